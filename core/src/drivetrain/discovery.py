"""Finding drivers: the entry points of the installed distributions, without importing any.

The standard library's ``importlib.metadata`` does the same, but importing it costs a container's
shim more time and memory than all the rest, so the files are read directly; they are specified at
https://packaging.python.org/specifications/recording-installed-packages/.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from typing import NamedTuple


class Entry(NamedTuple):
    """One driver that some distribution announces.

    Attributes:
        family: from its group: ``storage`` for ``drivetrain.storage``.
        name: the driver's name.
        value: ``module:Class``.
        distribution, version: of the package.
    """

    family: str
    name: str
    value: str
    distribution: str
    version: str


_PREFIX = "drivetrain."
_cache: dict[tuple[tuple[str, int], ...], tuple[Entry, ...]] = {}


def entries() -> tuple[Entry, ...]:
    """Return all drivers on ``sys.path``, ordered by family and name.

    The result is kept until ``sys.path`` or one of its directories changes.
    """
    key = tuple((folder or ".", _changed(folder or ".")) for folder in sys.path)
    found = _cache.get(key)
    if found is None:
        _cache.clear()
        found = _cache[key] = tuple(sorted(_scan([folder for folder, _time in key])))
    return found


def _changed(folder: str) -> int:
    try:
        return os.stat(folder).st_mtime_ns
    except OSError:
        return 0


def _scan(folders: list[str]) -> Iterator[Entry]:
    seen: set[str] = set()
    for folder in dict.fromkeys(folders):
        try:
            names = os.listdir(folder)
        except NotADirectoryError:
            yield from _scan_archive(folder, seen)
            continue
        except OSError:
            continue
        for name in sorted(names):
            stem, dot, suffix = name.rpartition(".")
            if dot and suffix in ("dist-info", "egg-info"):
                # As for imports, the first distribution of a name on sys.path hides later ones.
                normalised = re.sub(r"[-_.]+", "-", stem.partition("-")[0]).lower()
                if normalised not in seen:
                    seen.add(normalised)
                    yield from _read(os.path.join(folder, name), stem)


def _read(folder: str, stem: str) -> Iterator[Entry]:
    try:
        with open(os.path.join(folder, "entry_points.txt"), encoding="utf-8") as file:
            text = file.read()
    except OSError:
        return
    if _PREFIX not in text:
        return
    distribution, version = _metadata(folder, stem)
    yield from _parse(text, distribution, version)


def _parse(text: str, distribution: str, version: str) -> Iterator[Entry]:
    group = ""
    for line in map(str.strip, text.splitlines()):
        if line.startswith("["):
            group = line.strip("[]").strip()
        elif line and line[0] not in "#;" and group.startswith(_PREFIX):
            name, equals, value = line.partition("=")
            if equals:
                value = value.partition("[")[0].strip()
                family = group.removeprefix(_PREFIX)
                yield Entry(family, name.strip(), value, distribution, version)


def _metadata(folder: str, stem: str) -> tuple[str, str]:
    """Return a distribution's name and version, from its metadata or its directory's name."""
    name, _, version = stem.partition("-")
    for file_name in ("METADATA", "PKG-INFO"):
        try:
            with open(os.path.join(folder, file_name), encoding="utf-8") as file:
                for line in file:
                    if line.startswith("Name:"):
                        name = line[5:].strip()
                    elif line.startswith("Version:"):
                        version = line[8:].strip()
                    elif not line.strip():
                        break
            break
        except OSError:
            continue
    return name, version or "0"


def _scan_archive(path: str, seen: set[str]) -> Iterator[Entry]:
    """Look into a zip file on ``sys.path``, as of a zipapp."""
    import importlib.metadata

    for distribution in importlib.metadata.distributions(path=[path]):
        name = distribution.metadata["Name"]
        normalised = re.sub(r"[-_.]+", "-", name).lower()
        if normalised in seen:
            continue
        seen.add(normalised)
        text = distribution.read_text("entry_points.txt") or ""
        yield from _parse(text, name, distribution.version)
