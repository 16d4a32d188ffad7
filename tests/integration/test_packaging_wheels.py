"""Every distribution builds a wheel that has what it should, and nothing of strangers."""

from __future__ import annotations

import configparser
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
from tests.wheels import ROOT, distributions, wheels_of

PROJECTS = distributions()


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return wheels_of(PROJECTS, tmp_path_factory.mktemp("wheels"))


def test_there_is_a_wheel_of_every_distribution(wheels: dict[str, Path]) -> None:
    assert sorted(wheels) == sorted(PROJECTS)
    for name, wheel in wheels.items():
        assert (
            wheel.name == f"{name.replace('-', '_')}-{_project(name)['version']}-py3-none-any.whl"
        )


def test_wheels_contain_the_package_its_types_and_nothing_else(wheels: dict[str, Path]) -> None:
    for name, wheel in wheels.items():
        files = zipfile.ZipFile(wheel).namelist()
        package = {"drivetrain-core": "drivetrain"}.get(name, name.replace("-", "_"))
        tops = {file.partition("/")[0] for file in files if ".dist-info" not in file}
        assert tops == {package}, name
        assert f"{package}/py.typed" in files
        assert not [file for file in files if "__pycache__" in file or "/tests/" in file]


def test_every_module_of_the_source_is_in_its_wheel(wheels: dict[str, Path]) -> None:
    for name, wheel in wheels.items():
        files = set(zipfile.ZipFile(wheel).namelist())
        source = PROJECTS[name] / "src"
        expected = {str(path.relative_to(source)) for path in source.rglob("*.py")}
        assert expected <= files, name


def test_a_drivers_entry_point_is_in_its_wheel(wheels: dict[str, Path]) -> None:
    for name, wheel in wheels.items():
        family = name.removeprefix("drivetrain-").partition("-")[0]
        if family not in ("storage", "network", "log", "volume"):
            continue
        archive = zipfile.ZipFile(wheel)
        text = archive.read(next(f for f in archive.namelist() if f.endswith("entry_points.txt")))
        parser = configparser.ConfigParser()
        parser.read_string(text.decode())
        driver = name.removeprefix(f"drivetrain-{family}-")
        if parser.has_section("drivetrain.finder"):  # it finds drivers that are no packages
            assert name.replace("-", "_") in parser["drivetrain.finder"][family]
            continue
        assert parser[f"drivetrain.{family}"][driver].startswith(name.replace("-", "_") + ":")


def test_drivers_need_the_core_and_never_the_engine(wheels: dict[str, Path]) -> None:
    for name, wheel in wheels.items():
        archive = zipfile.ZipFile(wheel)
        metadata = archive.read(next(f for f in archive.namelist() if f.endswith("/METADATA")))
        required = Parser().parsestr(metadata.decode()).get_all("Requires-Dist") or []
        ours = {one.split("=")[0].split("[")[0] for one in required if one.startswith("drivetrain")}
        if name == "drivetrain-core":
            assert ours == set()
        else:
            assert ours == {"drivetrain-core"}, name


def test_the_meta_distribution_brings_everything() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    required = {one.split("=")[0] for one in project["dependencies"]}
    assert required == set(PROJECTS) - {"drivetrain-core"}


def _project(name: str) -> dict[str, str]:
    found = tomllib.loads((PROJECTS[name] / "pyproject.toml").read_text())["project"]
    return {str(key): str(value) for key, value in found.items()}
