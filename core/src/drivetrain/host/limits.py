"""Limits of size for directories, on every file system.

Where the file system limits projects (see :mod:`drivetrain.host.quota`), a directory is made one.
Anywhere else, such as ordinary ext4, its content goes into a file system of its own in a sparse
file beside it, which is mounted through a loop device: it takes up what is written, no more, and
ends where it was told to.

A driver keeps one :class:`Limits`, and for each limited directory calls ``apply`` when it is made,
``mounts`` whenever it is to be mounted, ``unmounted`` after that, and ``lift`` before its removal.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path

from drivetrain.errors import Exhausted, Internal, InvalidArgument, NotSupported
from drivetrain.host import loops, quota
from drivetrain.storage import Mount

#: The name of the sparse file.
IMAGE = "image.ext4"
#: The least size of a file system in a sparse file, in bytes.
MINIMUM = 8 << 20


class Limits:
    """The limits of directories below a driver's root.

    Args:
        root: of the driver.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._by_project = quota.enforced(root)
        self._lock = threading.Lock()
        self._devices: dict[str, loops.LoopDevice] = {}

    @property
    def method(self) -> str:
        """How new limits are made, for ``storage_status``."""
        return "project quota" if self._by_project else "sparse file"

    def apply(
        self, folder: Path, size: int, *, content: Sequence[str] = (), throwaway: bool = False
    ) -> bool:
        """Limit a new directory that holds nothing but empty directories.

        Args:
            folder: the directory.
            size: in bytes; of a sparse file, a few percent go to the tables of its file system.
            content: its directories that a sparse file takes over, with their modes.
            throwaway: nobody misses it after a power cut.

        Returns:
            Whether its content is to be mounted from a sparse file.

        Raises:
            InvalidArgument: the size is too small.
            NotSupported: neither way is possible here; says what is missing.
        """
        if self._by_project:
            with self._lock:
                number = quota.free_number(self._root)
                quota.set_project(folder, number)
            for name in content:
                quota.set_project(folder / name, number)
            quota.limit(self._root, number, size)
            return False
        if size < MINIMUM:
            raise InvalidArgument(f"size: {size} bytes are too few, {MINIMUM} are the least")
        _make_image(folder, size, content, throwaway)
        return True

    @staticmethod
    def in_image(folder: Path) -> bool:
        """Tell whether a directory's content is in a sparse file."""
        return (folder / IMAGE).exists()

    def mounts(self, folder: Path) -> tuple[Mount, ...]:
        """Return what has to be mounted first; nothing unless the content is in a sparse file.

        Raises:
            NotSupported: this kernel has no loop devices.
        """
        image = folder / IMAGE
        if not image.exists():
            return ()
        with self._lock:
            device = self._devices.get(folder.name)
            if device is None:
                try:
                    device = self._devices[folder.name] = loops.attach(image)
                except FileNotFoundError as error:
                    raise NotSupported(
                        f"a limit of size needs loop devices here: {error}; modprobe loop"
                    ) from error
        # The tables are zero already, as the file is sparse; what is deleted becomes a hole again.
        return (Mount("ext4", str(device.path), ("noinit_itable", "discard")),)

    def unmounted(self, folder: Path) -> None:
        """Let go of the loop device, which is gone as soon as no mount needs it."""
        with self._lock:
            device = self._devices.pop(folder.name, None)
        if device is not None:
            device.close()

    def lift(self, folder: Path) -> None:
        """Give the directory's project back; it is about to be removed."""
        self.unmounted(folder)
        if self._by_project:
            number = quota.project(folder)
            if number >= quota.FIRST:
                quota.limit(self._root, number, 0)


def _make_image(folder: Path, size: int, content: Sequence[str], throwaway: bool) -> None:
    """Make the sparse file, and in it a file system with the directories of ``content``."""
    program = shutil.which("mkfs.ext4", path="/usr/sbin:/sbin:" + os.environ.get("PATH", ""))
    if program is None:
        raise NotSupported(
            f"size: the file system of {folder.parent} has no project quota, and mkfs.ext4 for a"
            " limit by a sparse file is missing: apt-get install e2fsprogs"
        )
    image, skeleton = folder / IMAGE, folder / "skeleton"
    skeleton.mkdir()
    for name in content:
        (folder / name).rename(skeleton / name)
    with image.open("xb") as file:
        image.chmod(0o600)
        file.truncate(size)
    features = ["-O", "^has_journal"] if throwaway else []
    # A new sparse file is all zeros, and needs none written.
    extended = "lazy_itable_init=1,lazy_journal_init=1,nodiscard,root_owner=0:0"
    command = [
        program, "-q", "-F", "-m", "0", "-E", extended,
        *features, "-d", str(skeleton), str(image),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    shutil.rmtree(skeleton)
    if done.returncode != 0:
        kind = Exhausted if "No space left" in done.stderr else Internal
        reason = done.stderr.strip() or f"exit code {done.returncode}"
        raise kind(f"mkfs.ext4 cannot make a file system of {size} bytes: {reason}")
