"""The overlay2 storage driver: kernel overlayfs.

Each layer is a directory ``<key>`` with ``diff`` (its own files), ``work`` (overlayfs' own) and
``link``, the name of a short symbolic link in ``l/`` that leads to ``diff``. The links keep the
list of lower directories within the one page that mount(2) takes for it.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
import string
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from drivetrain import hookimpl
from drivetrain.errors import FailedPrecondition, NotSupported
from drivetrain.host import mounts
from drivetrain.options import Option, Options
from drivetrain.storage import Change, Mount, Usage

#: Lower directories that this driver stacks; docker's limit as well.
MAX_PARENTS = 128
OPAQUE = "trusted.overlay.opaque"
_LETTERS = string.ascii_uppercase + string.digits


class Overlay2:
    """Layers as directories that the kernel unites."""

    @hookimpl
    def storage_probe(self, root: Path) -> bool:
        """Mount for real, and see that a removed directory stays removed."""
        with tempfile.TemporaryDirectory(prefix="probe-", dir=root) as name:
            folder = Path(name)
            for part in ("lower/gone", "upper", "work", "merged"):
                (folder / part).mkdir(parents=True)
            lower, upper, work = (folder / part for part in ("lower", "upper", "work"))
            data = (f"lowerdir={lower}", f"upperdir={upper}", f"workdir={work}")
            try:
                mounts.mount((Mount("overlay", "overlay", data),), folder / "merged")
            except OSError as error:
                raise NotSupported(
                    f"overlayfs cannot be mounted on {root}: {error}; modprobe overlay, or put the"
                    " data root on ext4, xfs (with ftype=1) or btrfs"
                ) from error
            try:
                (folder / "merged" / "gone").rmdir()
                whiteout = os.lstat(upper / "gone")
            finally:
                mounts.unmount(folder / "merged")
            if not stat.S_ISCHR(whiteout.st_mode):
                raise NotSupported(f"{root} cannot hold whiteouts: its file system has no d_type")
        return True

    @hookimpl
    def storage_options(self) -> Sequence[Option]:
        retired = "the kernel is probed instead"
        return (Option("overlay2.override_kernel_check", "boolean", retired=retired),)

    @hookimpl
    def storage_open(self, root: Path, options: Options) -> bool:
        self._root = root
        (root / "l").mkdir(mode=0o700, exist_ok=True)
        for path in (*root.glob("*.removing"), *root.glob("*.making"), *root.glob("probe-*")):
            shutil.rmtree(path)
        for link in (root / "l").iterdir():
            if not link.exists():
                link.unlink()
        return True

    @hookimpl
    def layer_create(self, key: str, parents: Sequence[str]) -> bool:
        if len(parents) > MAX_PARENTS:
            raise FailedPrecondition(
                f"layer {key}: {len(parents)} parents; overlay2 stacks at most {MAX_PARENTS}"
            )
        self.layer_remove(key)
        making = self._root / f"{key}.making"
        making.mkdir(mode=0o711)
        for part in ("diff", "work"):
            (making / part).mkdir()
            (making / part).chmod(0o755 if part == "diff" else 0o711)
        link = "".join(secrets.choice(_LETTERS) for _ in range(26))
        (making / "link").write_text(link)
        making.rename(self._root / key)
        (self._root / "l" / link).symlink_to(f"../{key}/diff")
        return True

    def _link(self, key: str) -> str:
        name = (self._root / key / "link").read_text()
        link = self._root / "l" / name
        if not link.is_symlink():
            link.symlink_to(f"../{key}/diff")
        return f"{self._root}/l/{name}"

    @hookimpl
    def layer_mounts(self, key: str, parents: Sequence[str], read_only: bool) -> Sequence[Mount]:
        diff = self._root / key / "diff"
        if not parents:
            return (Mount("bind", str(diff), ("ro" if read_only else "rw",)),)
        lowers = [self._link(parent) for parent in parents]
        if read_only:
            lowers.insert(0, self._link(key))
            return (Mount("overlay", "overlay", (f"lowerdir={':'.join(lowers)}", "ro")),)
        work = self._root / key / "work"
        upper = (f"upperdir={diff}", f"workdir={work}")
        return (Mount("overlay", "overlay", (f"lowerdir={':'.join(lowers)}", *upper)),)

    @hookimpl
    def layer_commit(self, key: str) -> bool:
        shutil.rmtree(self._root / key / "work", ignore_errors=True)
        return True

    @hookimpl
    def layer_remove(self, key: str) -> bool:
        place, removing = self._root / key, self._root / f"{key}.removing"
        try:
            link = (place / "link").read_text()
            (self._root / "l" / link).unlink(missing_ok=True)
            place.rename(removing)
        except FileNotFoundError:
            pass
        if removing.exists():
            shutil.rmtree(removing)
        return True

    @hookimpl
    def layer_usage(self, key: str) -> Usage:
        size = inodes = 0
        seen: set[int] = set()
        for folder, names, files in os.walk(self._root / key / "diff"):
            for name in (*names, *files):
                entry = os.lstat(f"{folder}/{name}")
                if entry.st_ino not in seen:
                    seen.add(entry.st_ino)
                    size += entry.st_blocks * 512
                    inodes += 1
        return Usage(size, inodes)

    @hookimpl
    def layer_changes(self, key: str, parents: Sequence[str]) -> Iterable[Change]:
        """Read the changes off the upper directory: it holds nothing else."""
        uppers = [self._root / parent / "diff" for parent in parents]
        return _changes(self._root / key / "diff", b"", uppers)

    @hookimpl
    def storage_status(self) -> Sequence[tuple[str, str]]:
        return (
            ("Backing Filesystem", _file_system(self._root)),
            ("Supports d_type", "true"),
            ("Native Overlay Diff", "true"),
        )


def _file_system(path: Path) -> str:
    """Return the type of the file system that holds ``path``, in docker's words."""
    for entry in reversed(mounts.mount_table()):
        if f"{path}/".startswith(str(entry.target).rstrip("/") + "/"):
            return "extfs" if entry.type.startswith("ext") else entry.type
    return "unknown"


def _changes(folder: Path, prefix: bytes, lowers: list[Path]) -> Iterator[Change]:
    """Yield the changes below one directory of the upper tree.

    Args:
        folder: in the upper directory.
        prefix: its path inside the layer; empty for the root.
        lowers: the same directory in the parents that have it, nearest first.
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
        if _opaque(inner):
            if was_folder:
                yield from _gone(below, inner, path)
            below = []
        yield from _changes(inner, path, _directories(below) if was_folder else [])


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


def _directories(candidates: list[Path]) -> list[Path]:
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
        if _opaque(candidate):
            break
    return found


def _gone(below: list[Path], inner: Path, path: bytes) -> Iterator[Change]:
    """Yield what an opaque directory hides and does not have itself."""
    names: set[str] = set()
    for folder in _directories(below):
        names.update(os.listdir(folder))
    for name in sorted(names - set(os.listdir(inner))):
        if _find([folder / name for folder in _directories(below)]) is not None:
            yield Change(path + b"/" + os.fsencode(name), "deleted")


def _opaque(path: Path) -> bool:
    try:
        return os.getxattr(path, OPAQUE, follow_symlinks=False) == b"y"
    except OSError:
        return False
