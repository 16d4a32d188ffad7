"""Inode flags, as chattr(1) sets them: immutable, append-only and the like."""

from __future__ import annotations

import array
import errno
import fcntl
import os
import shutil
import stat
from pathlib import Path

#: Of ioctl_iflags(2); the numbers are those of all architectures Linux has 64 bits on.
FS_IOC_GETFLAGS, FS_IOC_SETFLAGS = 0x80086601, 0x40086602
IMMUTABLE, APPEND, NODUMP, NOATIME, SYNC, DIRSYNC = 0x10, 0x20, 0x40, 0x80, 0x8, 0x10000
NOCOW = 0x800000
#: Flags that stand for what somebody wanted of a file; others tell how its file system stores it.
KEPT = IMMUTABLE | APPEND | NODUMP | NOATIME | SYNC | DIRSYNC
#: Those that change what may be done to a file.
GUARDS = IMMUTABLE | APPEND
#: What ioctl says where there are no flags: other file systems, and the kernel's own.
_WITHOUT = (errno.ENOTTY, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)
_ENTRY = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


def get_flags(descriptor: int) -> int:
    """Return those of ``KEPT`` that an open file has."""
    value = array.array("i", [0])
    try:
        fcntl.ioctl(descriptor, FS_IOC_GETFLAGS, value)
    except OSError as error:
        if error.errno in _WITHOUT:
            return 0
        raise
    return value[0] & KEPT


def set_flags(descriptor: int, wanted: int) -> None:
    """Set those of ``KEPT``; the file system's own stay.

    Raises:
        OSError: a flag that guards the file cannot be set; others are let go.
    """
    value = array.array("i", [0])
    try:
        fcntl.ioctl(descriptor, FS_IOC_GETFLAGS, value)
        if value[0] & KEPT != wanted:
            value[0] = value[0] & ~KEPT | wanted
            fcntl.ioctl(descriptor, FS_IOC_SETFLAGS, value)
    except OSError:
        if wanted & GUARDS:
            raise


def keep_in_place(path: Path) -> None:
    """Make an empty file whose blocks are written where they are, on file systems that copy.

    A program that has such a file in its memory is not killed (SIGBUS) when the disk is full.
    Where there is no such flag, the file is made without.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        value = array.array("i", [0])
        fcntl.ioctl(descriptor, FS_IOC_GETFLAGS, value)
        value[0] |= NOCOW
        fcntl.ioctl(descriptor, FS_IOC_SETFLAGS, value)
    except OSError as error:
        if error.errno not in _WITHOUT:
            raise
    finally:
        os.close(descriptor)


def remove_tree(path: Path) -> None:
    """Remove a directory with all in it, also what was made immutable or append-only.

    A container with the capability can do that to its files, and they have to go with it all the
    same.

    Raises:
        OSError: something cannot be removed.
    """
    try:
        shutil.rmtree(path)
    except PermissionError:
        _clear_guards(os.fsencode(path))
        shutil.rmtree(path)


def _clear_guards(top: bytes) -> None:
    places = [top]
    for folder, names, files in os.walk(top):
        places += [os.path.join(folder, name) for name in (*names, *files)]
    for place in places:
        mode = os.lstat(place).st_mode
        if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
            continue
        descriptor = os.open(place, _ENTRY)
        try:
            flags = get_flags(descriptor)
            if flags & GUARDS:
                set_flags(descriptor, flags & ~GUARDS)
        finally:
            os.close(descriptor)
