"""The btrfs storage driver: a subvolume a layer, and a snapshot of its parent where it has one.

``layers/`` holds the subvolumes. ``groups/`` names the quota groups of deleted subvolumes which
the kernel still needed; they are deleted when it no longer does.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from drivetrain import hookimpl
from drivetrain.errors import InvalidArgument, NotSupported
from drivetrain.host import btrfs, trees
from drivetrain.options import Option, Options
from drivetrain.storage import Change, Mount, Usage

_MAKING = ".making"


class Btrfs:
    """Layers as subvolumes."""

    @hookimpl
    def storage_probe(self, root: Path) -> bool:
        if not btrfs.is_btrfs(root):
            raise NotSupported(
                f"{root} is not on btrfs: mkfs.btrfs a device and mount it there, or choose a"
                " --data-root that is on one"
            )
        probe = root / "probe.making"
        btrfs.delete(probe)
        btrfs.create(probe)
        btrfs.delete(probe)
        return True

    @hookimpl
    def storage_options(self) -> Sequence[Option]:
        return (
            Option("btrfs.min_space", "size", default=0, help="the smallest size for a container"),
        )

    @hookimpl
    def layer_options(self) -> Sequence[Option]:
        return (Option("size", "size", help="limit of what the layer itself takes up"),)

    @hookimpl
    def storage_open(self, root: Path, options: Options) -> bool:
        self._minimum = options.integer("btrfs.min_space")
        self._layers, self._groups = root / "layers", root / "groups"
        for folder in (self._layers, self._groups):
            folder.mkdir(mode=0o711, exist_ok=True)
        for path in self._layers.glob("*" + _MAKING):
            self._delete(path)
        self._delete_groups()
        return True

    @hookimpl
    def layer_create(self, key: str, parents: Sequence[str], options: Options) -> bool:
        size = options.integer("size")
        if 0 < size < self._minimum:
            raise InvalidArgument(
                f"size of {size} bytes is below btrfs.min_space, {self._minimum} bytes"
            )
        self._delete(self._layers / key)
        making = self._layers / (key + _MAKING)
        self._delete(making)
        try:
            if parents:
                btrfs.snapshot(self._layers / parents[0], making)
            else:
                btrfs.create(making)
                making.chmod(0o755)
            if size:
                btrfs.enable_quota(making)
                btrfs.limit(making, size, shared=False)
        except BaseException:
            self._delete(making)
            raise
        making.rename(self._layers / key)
        return True

    @hookimpl
    def layer_mounts(self, key: str, read_only: bool) -> Sequence[Mount]:
        return (Mount("bind", str(self._layers / key), ("ro" if read_only else "rw",)),)

    @hookimpl
    def layer_commit(self, key: str) -> bool:
        btrfs.set_read_only(self._layers / key, True)
        return True

    @hookimpl
    def layer_remove(self, key: str) -> bool:
        self._delete(self._layers / key)
        self._delete_groups()
        return True

    def _delete(self, path: Path) -> None:
        for identity in btrfs.delete(path):
            if not btrfs.delete_quota_group(self._layers, identity):
                (self._groups / str(identity)).touch()

    def _delete_groups(self) -> None:
        for mark in self._groups.iterdir():
            if btrfs.delete_quota_group(self._layers, int(mark.name)):
                mark.unlink(missing_ok=True)

    @hookimpl
    def layer_usage(self, key: str) -> Usage:
        found = btrfs.written(self._layers / key)
        return Usage(found.size, len(found.inodes))

    @hookimpl
    def layer_changes(self, key: str, parents: Sequence[str]) -> Iterable[Change] | None:
        """Compare with the parent only what the file system says is newer than the snapshot."""
        if not parents:
            return None
        place = self._layers / key
        found, device = btrfs.written(place), place.lstat().st_dev

        def unchanged(entry: os.stat_result) -> bool:
            return entry.st_dev == device and entry.st_ino not in found.touched

        return trees.compare(self._layers / parents[0], place, unchanged)

    @hookimpl
    def storage_status(self) -> Sequence[tuple[str, str]]:
        found = os.statvfs(self._layers)
        return (
            ("Backing Filesystem", "btrfs"),
            ("Space Total", f"{found.f_blocks * found.f_frsize} bytes"),
            ("Space Available", f"{found.f_bavail * found.f_frsize} bytes"),
        )
