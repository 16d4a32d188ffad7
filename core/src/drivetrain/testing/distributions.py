"""Distributions that exist for a test only: metadata and modules in a directory, without pip."""

from __future__ import annotations

import importlib
import sys
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path


class Distributions:
    """A directory on ``sys.path`` that packages are put into.

    Args:
        folder: an empty directory.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def install(
        self,
        name: str,
        *,
        version: str = "1.0",
        drivers: Mapping[str, str],
        modules: Mapping[str, str] | None = None,
    ) -> None:
        """Put a distribution there, as pip would.

        Args:
            name: of the distribution.
            version: of it.
            drivers: entry points by ``family/name``, such as
                ``{"storage/mine": "my_package:Mine"}``.
            modules: the source of each module; indentation common to all lines is removed.
        """
        info = self.folder / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n\nVersion: no\n"
        )
        lines = []
        for key, value in drivers.items():
            family, _, driver = key.partition("/")
            lines.append(f"[drivetrain.{family}]\n{driver} = {value}\n")
        (info / "entry_points.txt").write_text("\n".join(lines))
        for module, source in (modules or {}).items():
            (self.folder / f"{module}.py").write_text(textwrap.dedent(source))
        importlib.invalidate_caches()


@contextmanager
def distributions(folder: Path) -> Iterator[Distributions]:
    """Have distributions in ``folder`` installed for the length of a ``with``.

    What they imported is forgotten at the end.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sys.path.insert(0, str(folder))
    try:
        yield Distributions(folder)
    finally:
        sys.path.remove(str(folder))
        for name, module in list(sys.modules.items()):
            origin = getattr(module, "__file__", None) or ""
            if origin.startswith(f"{folder}/"):
                del sys.modules[name]
        importlib.invalidate_caches()
