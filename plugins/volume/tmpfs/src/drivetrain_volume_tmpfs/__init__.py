"""The tmpfs volume driver: volumes in memory.

A volume lives from its first mount to its last unmount; what is in it is gone then, and that is
what it is for: scratch space that several containers share, and secrets that no disk sees.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from drivetrain import hookimpl
from drivetrain.errors import InvalidArgument
from drivetrain.host import mounts
from drivetrain.options import Option, Options
from drivetrain.storage import Mount


class Tmpfs:
    """One tmpfs a volume."""

    OPTIONS: ClassVar[tuple[Option, ...]] = (
        Option("size", "size", help="limit in bytes; the kernel's default is half of the memory"),
        Option("mode", default="1777", help="permissions of the root, octal"),
        Option("uid", "integer", default=0, help="owner of the root"),
        Option("gid", "integer", default=0, help="group of the root"),
        Option("inodes", "integer", help="limit of files and directories"),
        Option("noexec", "boolean", default=False, help="no program can be started from it"),
    )

    @hookimpl
    def volume_options(self) -> Sequence[Option]:
        return self.OPTIONS

    @hookimpl
    def volume_open(self, root: Path) -> bool:
        self._root = root
        return True

    @hookimpl
    def volume_create(self, name: str, options: Options) -> bool:
        mode = options.string("mode")
        if not mode or not set(mode) <= set("01234567") or len(mode) > 4:
            raise InvalidArgument(f"volume {name}: option mode={mode!r}: octal digits are needed")
        for key in ("size", "inodes", "uid", "gid"):
            if options.integer(key) < 0:
                raise InvalidArgument(f"volume {name}: option {key} must not be negative")
        return True

    @hookimpl
    def volume_mount(self, name: str, options: Options) -> Path:
        target = self._root / name
        if mounts.is_mounted(target):
            return target
        target.mkdir(exist_ok=True)
        flags = [f"mode={options.string('mode')}", "nosuid", "nodev"]
        flags += [f"{key}={options.integer(key)}" for key in ("uid", "gid")]
        if options.integer("size"):
            flags.append(f"size={options.integer('size')}")
        if options.integer("inodes"):
            flags.append(f"nr_inodes={options.integer('inodes')}")
        if options.boolean("noexec"):
            flags.append("noexec")
        mounts.mount((Mount("tmpfs", "tmpfs", tuple(flags)),), target)
        return target

    @hookimpl
    def volume_unmount(self, name: str) -> bool:
        mounts.unmount(self._root / name)
        return True

    @hookimpl
    def volume_remove(self, name: str) -> bool:
        target = self._root / name
        mounts.unmount(target)
        if target.is_dir():
            target.rmdir()
        return True

    @hookimpl
    def volume_path(self, name: str) -> Path:
        return self._root / name
