"""What volume drivers share whose volumes are a mount each, such as shares of servers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from drivetrain.host import mounts
from drivetrain.markers import hookimpl
from drivetrain.options import Option, Options


class MountedVolumes:
    """A volume driver that mounts a volume in its root for the first user.

    What is left to a driver::

        class Scratch(MountedVolumes):
            OPTIONS = (Option("size", "size", help="limit in bytes"),)

            @hookimpl
            def volume_create(self, name, options):
                return True

            def attach(self, name, options, target):
                words = (f"size={options.integer('size')}",)
                mounts.mount((Mount("tmpfs", "tmpfs", words),), target)

    Attributes:
        OPTIONS: of a volume.
        root: the driver's directory; a volume is mounted at its name in it.
    """

    OPTIONS: ClassVar[tuple[Option, ...]] = ()
    root: Path

    def attach(self, name: str, options: Options, target: Path) -> None:
        """Mount a volume at ``target``, an empty directory.

        Raises:
            Unavailable: what it is mounted from does not answer.
        """
        raise NotImplementedError

    @hookimpl
    def volume_options(self) -> Sequence[Option]:
        return self.OPTIONS

    @hookimpl
    def volume_open(self, root: Path) -> bool:
        self.root = root
        return True

    @hookimpl
    def volume_mount(self, name: str, options: Options) -> Path:
        target = self.root / name
        if not mounts.is_mounted(target):
            target.mkdir(exist_ok=True)
            self.attach(name, options, target)
        return target

    @hookimpl
    def volume_unmount(self, name: str) -> bool:
        mounts.unmount(self.root / name)
        return True

    @hookimpl
    def volume_remove(self, name: str) -> bool:
        """Forget the volume; files of a server belong to the server."""
        target = self.root / name
        mounts.unmount(target)
        if target.is_dir():
            target.rmdir()
        return True

    @hookimpl
    def volume_path(self, name: str) -> Path:
        return self.root / name
