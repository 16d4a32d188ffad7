"""The btrfs volume driver: a subvolume a volume, with snapshots and clones in an instant.

Its root has to be on btrfs. ``size`` is a quota of the subvolume (``btrfs quota`` is switched on
when it is first used); ``root=DIR`` puts a volume on another btrfs than the engine's own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from drivetrain import hookimpl
from drivetrain.errors import InvalidArgument, NotFound, NotSupported, Unavailable
from drivetrain.options import Option, Options

#: statfs(2) magic number of btrfs, and the inode of the root of every subvolume.
BTRFS_MAGIC = 0x9123683E
SUBVOLUME_INODE = 256


def _run(*arguments: str) -> str:
    try:
        done = subprocess.run(["btrfs", *arguments], capture_output=True, text=True, timeout=50)
    except FileNotFoundError:
        raise NotSupported("the command btrfs is missing: apt-get install btrfs-progs") from None
    if done.returncode != 0:
        raise Unavailable(f"btrfs {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


def _is_btrfs(path: Path) -> bool:
    done = subprocess.run(["stat", "-f", "-c", "%t", path], capture_output=True, text=True)
    return done.stdout.strip().lower() == f"{BTRFS_MAGIC:x}"


def _is_subvolume(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink() and path.stat().st_ino == SUBVOLUME_INODE


class Btrfs:
    """Subvolumes below the driver's own directory, or below the ``root`` option."""

    OPTIONS: ClassVar[tuple[Option, ...]] = (
        Option("size", "size", help="limit in bytes, by a quota group"),
        Option("root", help="a directory on btrfs that holds the volume, instead of the engine's"),
    )

    @hookimpl
    def volume_probe(self) -> bool:
        if shutil.which("btrfs") is None:
            raise NotSupported("the command btrfs is missing: apt-get install btrfs-progs")
        if "\tbtrfs" not in Path("/proc/filesystems").read_text():
            raise NotSupported("this kernel has no btrfs: modprobe btrfs")
        return True

    @hookimpl
    def volume_options(self) -> Sequence[Option]:
        return self.OPTIONS

    @hookimpl
    def volume_open(self, root: Path) -> bool:
        self._root = root
        return True

    def _place(self, name: str, options: Options) -> Path:
        return Path(options.string("root") or self._root) / name

    @hookimpl
    def volume_create(self, name: str, options: Options) -> bool:
        place = self._place(name, options)
        if not place.is_absolute() or not place.parent.is_dir():
            raise InvalidArgument(f"volume {name}: option root: {place.parent} is no directory")
        if not _is_btrfs(place.parent):
            raise NotSupported(
                f"volume {name}: {place.parent} is not on btrfs: give -o root=DIR on one"
            )
        if not _is_subvolume(place):
            _run("subvolume", "create", str(place))
        try:
            self._limit(place, options)
        except BaseException:
            _run("subvolume", "delete", str(place))
            raise
        return True

    @staticmethod
    def _limit(place: Path, options: Options) -> None:
        if options.integer("size"):
            _run("quota", "enable", str(place.parent))
            _run("qgroup", "limit", str(options.integer("size")), str(place))

    @hookimpl
    def volume_mount(self, name: str, options: Options) -> Path:
        place = self._place(name, options)
        if not _is_subvolume(place):
            raise NotFound(f"volume {name}: its subvolume {place} is gone")
        return place

    @hookimpl
    def volume_remove(self, name: str, options: Options) -> bool:
        self._delete(self._place(name, options))
        return True

    def _delete(self, place: Path) -> None:
        """Delete a subvolume and those that were made inside it, innermost first."""
        if not _is_subvolume(place):
            return
        inner: list[Path] = []
        device = place.stat().st_dev
        for folder, names, _ in os.walk(place):
            for entry in names:
                path = Path(folder, entry)
                if _is_subvolume(path) and path.stat().st_dev != device:
                    inner.append(path)
        for path in reversed(inner):
            self._writable(path)
            _run("subvolume", "delete", str(path))
        self._writable(place)
        _run("subvolume", "delete", "--commit-after", str(place))

    @staticmethod
    def _writable(place: Path) -> None:
        if not os.access(place, os.W_OK):
            _run("property", "set", "-f", str(place), "ro", "false")

    @hookimpl
    def volume_snapshot(self, name: str, snapshot: str, options: Options) -> bool:
        target = self._place(snapshot, options)
        if not _is_subvolume(target):
            _run("subvolume", "snapshot", "-r", str(self._place(name, options)), str(target))
        return True

    @hookimpl
    def volume_clone(self, source: str, name: str, options: Options) -> bool:
        target = self._place(name, options)
        if not _is_subvolume(target):
            _run("subvolume", "snapshot", str(self._place(source, options)), str(target))
            self._limit(target, options)
        return True

    @hookimpl
    def volume_path(self, name: str, options: Options) -> Path:
        return self._place(name, options)
