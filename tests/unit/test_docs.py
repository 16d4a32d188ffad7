"""The reference is made from the code, and the guides' links lead somewhere."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from drivetrain import families
from drivetrain.calling import Driver
from drivetrain.log import Batch, LogContext, LogQuery
from drivetrain.options import parse_options

ROOT = Path(__file__).parents[2]
FAMILIES = ("storage", "network", "log", "volume", "extension")
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("packaging/*.md")])


@pytest.fixture(scope="module")
def make_docs() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_docs", ROOT / "tools" / "make_docs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pages(make_docs: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("reference")
    make_docs.main(folder)
    return {path.name: path.read_text() for path in folder.iterdir()}


@pytest.mark.parametrize("family", ["storage", "network", "log", "volume", "extension"])
def test_every_hook_is_on_its_familys_page(pages: dict[str, str], family: str) -> None:
    module = importlib.import_module(f"drivetrain.{family}")
    hooks = vars(getattr(module, f"{family.capitalize()}Hooks"))
    names = [name for name in hooks if not name.startswith("_")]
    missing = [
        name for name in names if f"### {name}\n\n```python\n{name}(" not in pages[f"{family}.md"]
    ]
    assert names
    assert missing == []


def hooks(family: str) -> dict[str, Any]:
    module = importlib.import_module(f"drivetrain.{family}")
    found = vars(getattr(module, f"{family.capitalize()}Hooks"))
    return {name: hook for name, hook in found.items() if not name.startswith("_")}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_hook_is_documented_with_its_exact_signature(
    pages: dict[str, str], family: str
) -> None:
    for name, hook in hooks(family).items():
        arguments = str(inspect.signature(hook)).replace("'", "")
        text = re.sub(r"^\(self(, )?", "(", arguments)
        assert f"### {name}\n\n```python\n{name}{text}\n```\n" in pages[f"{family}.md"], name


@pytest.mark.parametrize("family", FAMILIES)
def test_every_hook_says_in_words_what_it_does_and_what_its_arguments_are(family: str) -> None:
    for name, hook in hooks(family).items():
        said = inspect.getdoc(hook) or ""
        assert len(said.split()) > 2, f"{name} has no docstring"
        assert said.split("\n\n")[0].endswith((".", ":", ";")), f"{name}: {said}"


@pytest.mark.parametrize("family", FAMILIES)
def test_every_hook_has_an_example_that_keeps_to_the_contract(
    pages: dict[str, str], make_docs: ModuleType, family: str
) -> None:
    shown = make_docs.examples(family)
    specified = hooks(family)
    assert set(shown) == set(specified), "docs/examples has every hook and nothing else"
    namespace: dict[str, Any] = {"__name__": f"example_{family}"}
    exec((ROOT / f"docs/examples/{family}.py").read_text(), namespace)
    example = namespace["Example"]
    for name, hook in specified.items():
        given = list(inspect.signature(getattr(example, name)).parameters)
        assert given == list(inspect.signature(hook).parameters), name
        assert f"**Example**\n\n```python\n{shown[name]}\n```" in pages[f"{family}.md"]
    driver = Driver(families.family(family), "example", example())
    assert all(driver.implements(name) for name in specified)


def test_the_examples_of_storage_log_and_volume_work(tmp_path: Path) -> None:
    places = {name: tmp_path / name for name in ("storage", "volume", "log")}
    drivers: dict[str, Any] = {}
    for family, place in places.items():
        place.mkdir()
        namespace: dict[str, Any] = {"__name__": f"example_{family}"}
        exec((ROOT / f"docs/examples/{family}.py").read_text(), namespace)
        drivers[family] = Driver(families.family(family), "example", namespace["Example"]()).call
    storage, volume, log = drivers["storage"], drivers["volume"], drivers["log"]
    none = parse_options("example", storage.layer_options(), {})
    storage.storage_open(places["storage"], parse_options("example", storage.storage_options(), {}))
    storage.layer_create("base", (), none, "image")
    (places["storage"] / "base" / "file").write_text("x")
    storage.layer_commit("base")
    storage.layer_create("top", ("base",), none, "container")
    assert (places["storage"] / "top" / "file").read_text() == "x"
    assert [change.path for change in storage.layer_changes("base", ())] == [b"/file"]
    assert storage.layer_usage("top", ("base",)).inodes == 1
    assert storage.layer_metadata("top", ("base",)) == {"Directory": str(places["storage"] / "top")}

    options = parse_options("example", volume.volume_options(), {"mode": "0700"})
    volume.volume_open(places["volume"])
    volume.volume_create("one", options)
    (volume.volume_mount("one", options) / "file").write_text("y")
    volume.volume_clone("one", "two", options)
    assert sorted(info.name for info in volume.volume_list()) == ["one", "two"]
    volume.volume_remove("one", options)
    assert volume.volume_usage("two", options).inodes == 1

    options = parse_options("example", log.log_options(), {})
    context = LogContext("1" * 64, "box", directory=places["log"])
    log.log_open(context, options)
    log.log_write(Batch("stdout", 5, [b"a", b"b c"]))
    log.log_write(Batch("stderr", 6, [b""]))
    log.log_close()
    records = list(log.log_read(context, options, LogQuery(tail=2)))
    assert [(r.stream, r.time, r.line) for r in records] == [
        ("stdout", 5, b"b c"),
        ("stderr", 6, b""),
    ]


def test_every_command_is_on_the_command_lines_page(pages: dict[str, str]) -> None:
    text = pages["command-line.md"]
    for command in ("run", "ps", "network create", "driver use", "system df", "image prune"):
        assert f"## engine {command}\n" in text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text())
    local = [link for link in links if not re.match(r"[a-z]+:", link)]
    assert [link for link in local if not (page.parent / link).exists()] == []


def test_flags_in_the_configuration_guide_exist() -> None:
    from drivetrain_engine.cli.daemonflags import DAEMON_FLAGS

    known = {name for flag in DAEMON_FLAGS for name in flag.names}
    text = (ROOT / "docs/guides/configuration.md").read_text()
    used = set(re.findall(r"`(--[a-z0-9-]+)", text))
    assert used - known == set()


def test_the_drivers_in_the_readme_and_in_the_packaging_test_are_the_same_driver() -> None:
    readme = (ROOT / "README.md").read_text()
    test = (ROOT / "tests/integration/test_packaging_installs.py").read_text()
    for line in re.search(r"```python\n(.*?)```", readme, re.DOTALL)[1].splitlines():  # type: ignore[index]
        if line.strip().startswith(
            ("def ", "@", "(self", "return", "if ", "shutil.", "subprocess.")
        ):
            assert line.strip() in test, line
