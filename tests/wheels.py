"""Wheels of this repository's distributions, and environments made from them, for tests."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[1]
UV = Path(sys.executable).with_name("uv")

#: Builds one wheel by hatchling in our own environment: no download, no isolation.
_BUILD = "import sys, hatchling.build as b; print(b.build_wheel(sys.argv[1]))"


def distributions() -> dict[str, Path]:
    """The directory of each distribution by its name, without the meta distribution."""
    found = {}
    for file in (ROOT / "core", ROOT / "engine", *sorted(ROOT.glob("plugins/*/*"))):
        if (file / "pyproject.toml").exists():
            project = tomllib.loads((file / "pyproject.toml").read_text())["project"]
            found[project["name"]] = file
    return found


def wheels_of(projects: Mapping[str, Path], target: Path) -> dict[str, Path]:
    """Build wheels into ``target`` and return them by name."""

    def build(folder: Path) -> Path:
        done = subprocess.run(
            [sys.executable, "-c", _BUILD, str(target)],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, f"{folder}: {done.stderr}"
        return target / done.stdout.split()[-1]

    with ThreadPoolExecutor(4) as pool:
        built = pool.map(build, projects.values())
        return dict(zip(projects, built, strict=True))


class Environment:
    """A virtual environment of its own.

    Args:
        folder: a directory that does not exist yet.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._uv("venv", "--quiet", "--python", sys.executable, str(folder))

    @property
    def python(self) -> str:
        """Its interpreter."""
        return str(self.folder / "bin" / "python")

    def install(self, packages: Iterable[Path | str], links: Path | None = None) -> None:
        """Install wheels and packages; ours come from ``links``, never from an index."""
        more = ["--find-links", str(links)] if links else []
        self._uv("pip", "install", "--quiet", "--python", self.python, *more, *map(str, packages))

    def uninstall(self, *names: str) -> None:
        """Uninstall distributions."""
        self._uv("pip", "uninstall", "--quiet", "--python", self.python, *names)

    def engine(
        self, *arguments: str, check: bool = True, data: bytes = b""
    ) -> subprocess.CompletedProcess[str]:
        """Run its ``engine`` command."""
        done = subprocess.run(
            [str(self.folder / "bin" / "engine"), *arguments],
            input=data,
            capture_output=True,
            timeout=120,
            env={key: value for key, value in os.environ.items() if key != "ENGINE_HOST"},
        )
        out, err = (part.decode(errors="replace") for part in (done.stdout, done.stderr))
        assert not check or done.returncode == 0, f"{arguments}: {done.returncode}\n{out}{err}"
        return subprocess.CompletedProcess(done.args, done.returncode, out, err)

    @staticmethod
    def _uv(*arguments: str) -> None:
        done = subprocess.run(
            [str(UV), *arguments], capture_output=True, text=True, timeout=300, cwd="/"
        )
        assert done.returncode == 0, f"uv {arguments}: {done.stderr}"
