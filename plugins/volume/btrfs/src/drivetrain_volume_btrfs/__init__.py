"""The btrfs volume driver: a subvolume a volume, with snapshots and clones in an instant.

Its root has to be on btrfs. ``size`` is a quota of the subvolume (quota is switched on when it is
first used); ``root=DIR`` puts a volume on another btrfs than the engine's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from drivetrain import hookimpl
from drivetrain.errors import InvalidArgument, NotFound, NotSupported
from drivetrain.host import btrfs
from drivetrain.options import Option, Options


class Btrfs:
    """Subvolumes below the driver's own directory, or below the ``root`` option."""

    OPTIONS: ClassVar[tuple[Option, ...]] = (
        Option("size", "size", help="limit in bytes, by a quota group"),
        Option("root", help="a directory on btrfs that holds the volume, instead of the engine's"),
    )

    @hookimpl
    def volume_probe(self) -> bool:
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
        if not btrfs.is_btrfs(place.parent):
            raise NotSupported(
                f"volume {name}: {place.parent} is not on btrfs: give -o root=DIR on one"
            )
        if not btrfs.is_subvolume(place):
            btrfs.create(place)
        try:
            self._limit(place, options)
        except BaseException:
            btrfs.delete(place)
            raise
        return True

    @staticmethod
    def _limit(place: Path, options: Options) -> None:
        if options.integer("size"):
            btrfs.enable_quota(place)
            btrfs.limit(place, options.integer("size"), shared=True)

    @hookimpl
    def volume_mount(self, name: str, options: Options) -> Path:
        place = self._place(name, options)
        if not btrfs.is_subvolume(place):
            raise NotFound(f"volume {name}: its subvolume {place} is gone")
        return place

    @hookimpl
    def volume_remove(self, name: str, options: Options) -> bool:
        place = self._place(name, options)
        for identity in btrfs.delete(place):
            btrfs.delete_quota_group(place.parent, identity)
        return True

    @hookimpl
    def volume_snapshot(self, name: str, snapshot: str, options: Options) -> bool:
        target = self._place(snapshot, options)
        if not btrfs.is_subvolume(target):
            btrfs.snapshot(self._place(name, options), target, read_only=True)
        return True

    @hookimpl
    def volume_clone(self, source: str, name: str, options: Options) -> bool:
        target = self._place(name, options)
        if not btrfs.is_subvolume(target):
            btrfs.snapshot(self._place(source, options), target)
            self._limit(target, options)
        return True

    @hookimpl
    def volume_restore(self, name: str, source: str, options: Options) -> bool:
        """Make the new content beside the old, then put it in its place."""
        place = self._place(name, options)
        fresh = place.with_name(f".restoring-{name}")
        if btrfs.is_subvolume(fresh):
            btrfs.delete(fresh)
        btrfs.snapshot(self._place(source, options), fresh)
        self._limit(fresh, options)
        if btrfs.is_subvolume(place):
            self.volume_remove(name, options)
        fresh.rename(place)
        return True

    @hookimpl
    def volume_path(self, name: str, options: Options) -> Path:
        return self._place(name, options)
