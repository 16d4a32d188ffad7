"""Drivers are pip packages: installed they are found, uninstalled they are gone."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.wheels import Environment, distributions, wheels_of

from drivetrain.testing.hosts import Host
from drivetrain.testing.rootfs import busybox_tar

#: The engine and one driver of each family, which is enough for a container.
CHOSEN = (
    "drivetrain-core",
    "drivetrain-engine",
    "drivetrain-storage-vfs",
    "drivetrain-network-host",
    "drivetrain-log-json-file",
    "drivetrain-volume-local",
)

#: A storage driver as somebody else writes it: the one of the contract's own page.
DRIVER = """
import shutil
import subprocess

from drivetrain import hookimpl
from drivetrain.storage import Mount


class Copies:
    @hookimpl
    def storage_open(self, root, options):
        self.root = root
        return True

    @hookimpl
    def storage_probe(self, root):
        return True

    @hookimpl
    def layer_create(self, key, parents):
        shutil.rmtree(self.root / key, ignore_errors=True)
        if parents:
            subprocess.run(["cp", "-a", self.root / parents[0], self.root / key], check=True)
        else:
            (self.root / key).mkdir(mode=0o755)
        return True

    @hookimpl
    def layer_mounts(self, key, read_only):
        return (Mount("bind", str(self.root / key), ("rbind", "ro" if read_only else "rw")),)

    @hookimpl
    def layer_commit(self, key):
        return True

    @hookimpl
    def layer_remove(self, key):
        shutil.rmtree(self.root / key, ignore_errors=True)
        return True
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    folder = tmp_path_factory.mktemp("packages")
    projects = distributions()
    wheels = wheels_of({name: projects[name] for name in CHOSEN}, folder)
    made = Environment(folder / "venv")
    made.install(wheels.values(), links=folder)
    return made


class PackagedHost(Host):
    """A host whose engine is that of an environment of its own."""

    def __init__(self, environment: Environment) -> None:
        super().__init__()
        self.environment = environment
        self.config_file.write_text("{}")

    @property
    def engine_command(self) -> list[str]:
        """The environment's command line; without a subcommand, the daemon."""
        python = [self.environment.python, "-m", "drivetrain_engine.cli"]
        return [*self.inside, *python, *self.roots]

    def drivers(self) -> set[str]:
        return set(self.engine("driver", "ls", "-q").stdout.split())


@pytest.fixture
def host(environment: Environment) -> Iterator[PackagedHost]:
    with PackagedHost(environment) as made:
        yield made


def write_driver_package(folder: Path) -> Path:
    (folder / "copies_driver.py").write_text(DRIVER)
    (folder / "pyproject.toml").write_text(
        textwrap.dedent(
            """
            [build-system]
            requires = ["hatchling"]
            build-backend = "hatchling.build"

            [project]
            name = "my-copies"
            version = "7.0"
            dependencies = ["drivetrain-core"]

            [project.entry-points."drivetrain.storage"]
            copies = "copies_driver:Copies"

            [tool.hatch.build.targets.wheel]
            only-include = ["copies_driver.py"]
            """
        )
    )
    return folder


def test_the_engine_and_one_driver_of_each_family_run_a_container(host: PackagedHost) -> None:
    host.start("--storage-driver", "vfs")
    host.engine("import", "-", "busybox", data=busybox_tar())
    done = host.engine("run", "--rm", "--network", "host", "busybox", "echo", "alone")
    assert done.stdout == "alone\n"


def test_an_uninstalled_driver_is_no_longer_listed(
    environment: Environment, host: PackagedHost
) -> None:
    assert "volume/local" in host.drivers()
    folder = environment.folder.parent
    environment.uninstall("drivetrain-volume-local")
    try:
        assert "volume/local" not in host.drivers()
        refused = host.engine("driver", "inspect", "volume", "local", check=False)
        assert refused.returncode == 1
        assert "pip install drivetrain-volume-local" in refused.stderr
    finally:
        environment.install(folder.glob("drivetrain_volume_local-*.whl"), links=folder)
    assert "volume/local" in host.drivers()


def test_a_driver_that_somebody_wrote_is_found_once_installed_and_carries_a_container(
    environment: Environment, host: PackagedHost, tmp_path: Path
) -> None:
    wheel = wheels_of({"my-copies": write_driver_package(tmp_path)}, tmp_path)["my-copies"]
    environment.install([wheel], links=environment.folder.parent)
    try:
        found = host.engine("driver", "inspect", "storage", "copies", "--format", "json")
        entry = json.loads(found.stdout)
        assert (entry["distribution"], entry["version"]) == ("my-copies", "7.0")
        host.start("--storage-driver", "copies")
        host.engine("import", "-", "busybox", data=busybox_tar())
        script = "echo mine > /file; cat /file"
        done = host.engine(
            "run", "--name", "mine", "--network", "host", "busybox", "sh", "-c", script
        )
        assert done.stdout == "mine\n"
        assert host.engine("inspect", "-f", "{{.GraphDriver.Name}}", "mine").stdout == "copies\n"
        host.clear()
        host.stop()
    finally:
        environment.uninstall("my-copies")
    assert "storage/copies" not in host.drivers()
