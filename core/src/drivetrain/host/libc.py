"""The system calls that Python 3.11 has no function for, through the C library."""

from __future__ import annotations

import ctypes
import os
import sys

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long

# The numbers are the same on every architecture: these calls came after the tables were unified.
OPEN_TREE, FSOPEN, FSCONFIG, FSMOUNT, MOVE_MOUNT = 428, 430, 431, 432, 429
MOUNT_SETATTR = 442

CLONE_NEWNS = 0x00020000
CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def mount(source: bytes, target: bytes, kind: bytes, flags: int, data: bytes) -> None:
    """Make a mount, see mount(2); raises ``OSError`` that names source and target."""
    result = _libc.mount(source, target, kind, ctypes.c_ulong(flags), data)
    _check(result, f"mount {os.fsdecode(source or kind)} at {os.fsdecode(target)}")


def umount2(target: bytes, flags: int) -> None:
    """Unmount, see umount(2)."""
    _check(_libc.umount2(target, flags), f"unmount {os.fsdecode(target)}")


def unshare(flags: int) -> None:
    """Give the calling thread new namespaces; see unshare(2)."""
    _check(_libc.unshare(flags), "unshare")


def setns(descriptor: int, kind: int) -> None:
    """Move the calling thread into a namespace, see setns(2)."""
    _check(_libc.setns(descriptor, kind), "enter namespace")


def syscall(what: str, number: int, *arguments: object) -> int:
    """Make a system call by its number; ``what`` names it in errors."""
    ctypes.set_errno(0)
    return _check(_libc.syscall(ctypes.c_long(number), *arguments), what)


def file_system_magic(path: str | os.PathLike[str]) -> int:
    """Return the magic number of the file system that holds ``path``, see statfs(2)."""
    # Larger than struct statfs on every architecture; its first member is a long.
    buffer = ctypes.create_string_buffer(256)
    _check(_libc.statfs(os.fsencode(path), buffer), f"statfs {os.fspath(path)}")
    return int.from_bytes(buffer.raw[: ctypes.sizeof(ctypes.c_long)], sys.byteorder) & 0xFFFFFFFF


def syncfs(descriptor: int) -> None:
    """Write everything of the file system that an open file is on; see syncfs(2)."""
    _check(_libc.syncfs(descriptor), "syncfs")
