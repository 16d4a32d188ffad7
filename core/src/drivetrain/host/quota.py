"""Project quotas: limits for directory trees on xfs, and on ext4 with the feature ``project``.

See quotactl(2). A directory is given the number of a project, which everything made below it
inherits; the file system counts, and limits, what belongs to a number.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
from pathlib import Path

from drivetrain.host import libc

_QUOTACTL_FD = 443
_PROJECT = 2
_GET_STATE, _SET_LIMIT, _GET_QUOTA = 0x5805, 0x5804, 0x5803  # Q_XGETQSTAT, Q_XSETQLIM, Q_XGETQUOTA
_ENFORCED = 1 << 5  # FS_QUOTA_PDQ_ENFD
_FSGETXATTR, _FSSETXATTR = 0x801C581F, 0x401C5820
_INHERIT = 0x200
_BLOCK = 512
#: The least number that is given to a project here; administrators use small ones.
FIRST = 1 << 20


def _quotactl(path: Path, command: int, project: int, value: object) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        libc.syscall(
            f"quota of {path}",
            _QUOTACTL_FD,
            ctypes.c_uint(descriptor),
            ctypes.c_uint(command << 8 | _PROJECT),
            ctypes.c_uint(project),
            value,
        )
    finally:
        os.close(descriptor)


def enforced(path: Path) -> bool:
    """Tell whether the file system of a directory limits projects (mount option ``prjquota``).

    Kernels before 5.14 cannot be asked; they answer ``False``.
    """
    state = ctypes.create_string_buffer(80)  # struct fs_quota_stat
    try:
        _quotactl(path, _GET_STATE, 0, state)
    except OSError:
        return False
    (flags,) = struct.unpack_from("=H", state.raw, 2)
    return bool(flags & _ENFORCED)


def project(path: Path) -> int:
    """Return the number of a directory's project; 0: it has none."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        found = fcntl.ioctl(descriptor, _FSGETXATTR, bytes(28))
    finally:
        os.close(descriptor)
    return int(struct.unpack_from("=I", found, 12)[0])


def set_project(path: Path, number: int) -> None:
    """Put a directory, and all that is made below it from now on, into a project."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        found = bytearray(fcntl.ioctl(descriptor, _FSGETXATTR, bytes(28)))
        (flags,) = struct.unpack_from("=I", found)
        struct.pack_into("=I", found, 0, flags | _INHERIT)
        struct.pack_into("=I", found, 12, number)
        fcntl.ioctl(descriptor, _FSSETXATTR, bytes(found))
    finally:
        os.close(descriptor)


def limit(path: Path, number: int, size: int) -> None:
    """Limit what belongs to a project; a size of 0 lifts the limit.

    Args:
        path: a directory on the file system.
        number: of the project.
        size: in bytes.
    """
    blocks = size // _BLOCK
    # struct fs_disk_quota: version, flags, fields (limits of blocks), id, hard and soft limit.
    value = struct.pack("=bbHIQQ88x", 1, _PROJECT, 1 << 2 | 1 << 3, number, blocks, blocks)
    _quotactl(path, _SET_LIMIT, number, ctypes.create_string_buffer(value, 112))


def used(path: Path, number: int) -> bool:
    """Tell whether a project has a limit, or anything belongs to it."""
    value = ctypes.create_string_buffer(112)
    try:
        _quotactl(path, _GET_QUOTA, number, value)
    except OSError:
        return False
    hard, soft, _, _, blocks, inodes = struct.unpack_from("=QQQQQQ", value.raw, 8)
    return bool(hard or soft or blocks or inodes)


def free_number(path: Path) -> int:
    """Return a number that no project of the file system of a directory has."""
    number = FIRST
    while used(path, number):
        number += 1
    return number
