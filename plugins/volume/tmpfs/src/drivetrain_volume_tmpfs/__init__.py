"""The tmpfs volume driver: volumes in memory.

A volume lives from its first mount to its last unmount; what is in it is gone then, and that is
what it is for: scratch space that several containers share, and secrets that no disk sees.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from drivetrain import hookimpl
from drivetrain.errors import InvalidArgument
from drivetrain.host import mounts
from drivetrain.host.mountedvolumes import MountedVolumes
from drivetrain.options import Option, Options
from drivetrain.storage import Mount


class Tmpfs(MountedVolumes):
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
    def volume_create(self, name: str, options: Options) -> bool:
        mode = options.string("mode")
        if not mode or not set(mode) <= set("01234567") or len(mode) > 4:
            raise InvalidArgument(f"volume {name}: option mode={mode!r}: octal digits are needed")
        for key in ("size", "inodes", "uid", "gid"):
            if options.integer(key) < 0:
                raise InvalidArgument(f"volume {name}: option {key} must not be negative")
        return True

    def attach(self, name: str, options: Options, target: Path) -> None:
        flags = [f"mode={options.string('mode')}", "nosuid", "nodev"]
        flags += [f"{key}={options.integer(key)}" for key in ("uid", "gid")]
        if options.integer("size"):
            flags.append(f"size={options.integer('size')}")
        if options.integer("inodes"):
            flags.append(f"nr_inodes={options.integer('inodes')}")
        if options.boolean("noexec"):
            flags.append("noexec")
        mounts.mount((Mount("tmpfs", "tmpfs", tuple(flags)),), target)
