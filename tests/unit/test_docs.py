"""The reference is made from the code, and the guides' links lead somewhere."""

from __future__ import annotations

import importlib
import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
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
