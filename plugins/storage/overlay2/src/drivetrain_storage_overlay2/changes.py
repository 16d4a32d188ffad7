"""Reading the differences of a layer off its upper directory, which holds nothing else."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from drivetrain.storage import Change


def changes(
    folder: Path, prefix: bytes, lowers: list[Path], opaque: str, *, hides: bool = False
) -> Iterator[Change]:
    """Yield the changes below one directory of the upper tree.

    Args:
        folder: in the upper directory.
        prefix: its path inside the layer; empty for the root.
        lowers: the same directory in the parents that have it, nearest first.
        opaque: the attribute of a directory that hides what is below it.
        hides: this one, or one above it, is such a directory.
    """
    for name in sorted(os.listdir(os.fsencode(folder))):
        path = prefix + b"/" + name
        entry = os.lstat(os.fsencode(folder) + b"/" + name)
        below = [low / os.fsdecode(name) for low in lowers]
        if stat.S_ISCHR(entry.st_mode) and entry.st_rdev == 0:
            if _find(below) is not None:
                yield Change(path, "deleted")
            continue
        found = _find(below)
        yield Change(path, "modified" if found is not None else "added")
        if not stat.S_ISDIR(entry.st_mode):
            continue
        inner = folder / os.fsdecode(name)
        was_folder = found is not None and found.is_dir() and not found.is_symlink()
        anew = hides or _opaque(inner, opaque)
        united = _directories(below, opaque) if was_folder else []
        if anew:
            yield from _gone(united, inner, path)
        yield from changes(inner, path, united, opaque, hides=anew)


def _find(candidates: list[Path]) -> Path | None:
    """Return the nearest entry, unless a whiteout hides what is below."""
    for candidate in candidates:
        try:
            entry = candidate.lstat()
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR):
                continue
            raise
        if stat.S_ISCHR(entry.st_mode) and entry.st_rdev == 0:
            return None
        return candidate
    return None


def _directories(candidates: list[Path], opaque: str) -> list[Path]:
    """Return those that unite into one directory: down to a whiteout, a file or an opaque one."""
    found: list[Path] = []
    for candidate in candidates:
        try:
            entry = candidate.lstat()
        except OSError:
            continue
        if not stat.S_ISDIR(entry.st_mode):
            break
        found.append(candidate)
        if _opaque(candidate, opaque):
            break
    return found


def _gone(folders: list[Path], inner: Path, path: bytes) -> Iterator[Change]:
    """Yield what a directory that was made anew hides and does not have itself."""
    names: set[str] = set()
    for folder in folders:
        names.update(os.listdir(folder))
    for name in sorted(names - set(os.listdir(inner))):
        if _find([folder / name for folder in folders]) is not None:
            yield Change(path + b"/" + os.fsencode(name), "deleted")


def _opaque(path: Path, attribute: str) -> bool:
    try:
        return os.getxattr(path, attribute, follow_symlinks=False) == b"y"
    except OSError:
        return False
