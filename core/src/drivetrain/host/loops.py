"""Loop devices by ioctl, which the kernel frees when the last who uses one is gone.

See loop(4). A device made here has LO_FLAGS_AUTOCLEAR: it lives as long as the descriptor that
:func:`attach` returns, or a mount or device mapper table that uses it, whatever happens to us.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
import time
from pathlib import Path

_CTL_GET_FREE, _CONFIGURE, _GET_STATUS, _SET_CAPACITY = 0x4C82, 0x4C0A, 0x4C05, 0x4C07
_AUTOCLEAR = 4
_MAJOR = 7


class LoopDevice:
    """A loop device that is held open.

    Attributes:
        path: the device, ``/dev/loop3``.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor

    def close(self) -> None:
        """Let go of it; when nothing else uses it, it is gone. May be called twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def reread_size(self) -> None:
        """Take the file's size of now."""
        fcntl.ioctl(self._descriptor, _SET_CAPACITY)


def attach(file: Path) -> LoopDevice:
    """Return the loop device of a file: the one that it has, else a new one.

    One file has one device only; two would not know what the other has cached.

    Raises:
        OSError: the kernel has no loop devices, or none is left.
    """
    existing = find(file)
    if existing is not None:
        return existing
    backing = os.open(file, os.O_RDWR | os.O_CLOEXEC)
    try:
        control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
        try:
            return _attach(control, backing, file)
        finally:
            os.close(control)
    finally:
        os.close(backing)


def _attach(control: int, backing: int, file: Path) -> LoopDevice:
    # struct loop_config: the file's descriptor, the block size, struct loop_info64.
    information = struct.pack("<QQQQQIIII64s120x", 0, 0, 0, 0, 0, 0, 0, 0, _AUTOCLEAR, b"")
    for _ in range(100):
        number = fcntl.ioctl(control, _CTL_GET_FREE)
        path = _node(number)
        device = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.ioctl(device, _CONFIGURE, struct.pack("<II232s64x", backing, 0, information))
        except OSError as error:
            os.close(device)
            if error.errno != errno.EBUSY:  # somebody else was quicker
                raise
            time.sleep(0.01)
        else:
            return LoopDevice(path, device)
    raise OSError(errno.EBUSY, f"no loop device is free for {file}")


def _node(number: int) -> Path:
    """Return the device's path; where no devtmpfs makes it (in containers), it is made here."""
    path = Path(f"/dev/loop{number}")
    if not path.exists():
        os.mknod(path, stat.S_IFBLK | 0o660, os.makedev(_MAJOR, number))
    return path


def find(file: Path) -> LoopDevice | None:
    """Return the loop device that a file has, held open, or ``None``."""
    wanted = os.path.realpath(file)
    if not os.path.exists(wanted):
        return None
    status = os.stat(wanted)
    for entry in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            if entry.read_text().rstrip("\n") != wanted:
                continue
            device = Path("/dev", entry.parts[3])
            descriptor = os.open(device, os.O_RDWR | os.O_CLOEXEC)
        except OSError:  # gone since the directory was listed
            continue
        # Now it stays; but it may have been given to another file before it was opened.
        try:
            found = fcntl.ioctl(descriptor, _GET_STATUS, bytes(232))
            _, inode = struct.unpack_from("<QQ", found)
            if inode == status.st_ino:
                return LoopDevice(device, descriptor)
        except OSError:
            pass
        os.close(descriptor)
    return None
