"""The vfs storage driver: each layer is a full copy of its parent.

It works on every file system and needs nothing of the kernel; where the file system can share
blocks (btrfs, xfs) a copy costs next to nothing, elsewhere time and space. A layer is a directory
``<key>``; one whose limit of size needs a file system of its own is ``<key>.limited``.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from drivetrain import hookimpl
from drivetrain.errors import Exhausted, FailedPrecondition, Internal
from drivetrain.host import mounts, orphans
from drivetrain.host.flags import remove_tree
from drivetrain.host.limits import Limits
from drivetrain.options import Option, Options
from drivetrain.storage import TARGET, Mount, Use

_LIMITED = ".limited"


class Vfs:
    """Layers as directories that stand alone."""

    @hookimpl
    def storage_options(self) -> Sequence[Option]:
        return (Option("size", "size", help="limit of every container's writable layer"),)

    @hookimpl
    def layer_options(self) -> Sequence[Option]:
        return (Option("size", "size", help="limit of the layer, its image included"),)

    @hookimpl
    def storage_open(self, root: Path, options: Options) -> bool:
        self._root = root
        self._limits = Limits(root)
        self._size = options.integer("size")
        for path in (*root.glob("*.removing"), *root.glob("*.making")):
            orphans.end(path)
            mounts.unmount(path / "mnt")
            remove_tree(path)
        return True

    @hookimpl
    def layer_create(self, key: str, parents: Sequence[str], options: Options, use: Use) -> bool:
        self.layer_remove(key)
        size = options.integer("size") or (self._size if use != "image" else 0)
        source = self._root / parents[0] if parents else None
        making = self._root / f"{key}.making"
        making.mkdir()
        try:
            making.chmod(0o755)
            if size:
                (making / "diff").mkdir(mode=0o755)
                throwaway = use == "throwaway"
                if self._limits.apply(making, size, content=("diff",), throwaway=throwaway):
                    self._fill_image(source, making)
                    making.rename(self._root / (key + _LIMITED))
                    return True
                (making / "diff").rmdir()
            if source is not None:
                _copy(source, making, making)
        except BaseException:
            self._limits.lift(making)
            shutil.rmtree(making, ignore_errors=True)
            raise
        making.rename(self._root / key)
        return True

    def _fill_image(self, source: Path | None, making: Path) -> None:
        """Copy the parent into the file system of a layer."""
        if source is None:
            return
        target = making / "mnt"
        target.mkdir()
        try:
            mounts.mount(self._limits.mounts(making), target)
            try:
                _copy(source, target / "diff", making)
            finally:
                mounts.unmount(target)
        finally:
            self._limits.unmounted(making)
        target.rmdir()

    @hookimpl
    def layer_mounts(self, key: str, read_only: bool) -> Sequence[Mount]:
        options = ("ro" if read_only else "rw",)
        first = self._limits.mounts(self._root / (key + _LIMITED))
        if first:
            return (*first, Mount("bind", f"{TARGET}/diff", options))
        return (Mount("bind", str(self._root / key), options),)

    @hookimpl
    def layer_unmounted(self, key: str) -> bool:
        self._limits.unmounted(self._root / (key + _LIMITED))
        return True

    @hookimpl
    def layer_commit(self, key: str) -> bool:
        if (self._root / (key + _LIMITED)).exists():
            raise FailedPrecondition(f"layer {key} has a limit of size and cannot be a parent")
        return True

    @hookimpl
    def layer_remove(self, key: str) -> bool:
        removing = self._root / f"{key}.removing"
        for place in (self._root / key, self._root / (key + _LIMITED)):
            if place.exists():
                self._limits.lift(place)
                place.rename(removing)
            if removing.exists():
                remove_tree(removing)
        return True

    @hookimpl
    def storage_status(self) -> Sequence[tuple[str, str]]:
        return (("Limits of Size", self._limits.method),)


def _copy(source: Path, target: Path, making: Path) -> None:
    """Copy a tree into an existing directory, and give that the attributes of the tree's root."""
    # cp shares blocks where the file system can, and else lets the kernel copy; it keeps hard
    # links, extended attributes, sparse files, devices and nanoseconds.
    command = ["cp", "-a", "--reflink=auto", "--sparse=auto", "--", f"{source}/.", str(target)]
    with orphans.working(making) as lock:
        done = subprocess.run(command, capture_output=True, text=True, pass_fds=(lock,))
    if done.returncode != 0:
        message = done.stderr.strip().splitlines()[-1:] or ["cp failed"]
        full = "No space left" in done.stderr or "Disk quota exceeded" in done.stderr
        kind = Exhausted if full else Internal
        raise kind(f"cannot copy layer {source.name}: {message[0]}")
