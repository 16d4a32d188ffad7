"""How often xfs retries what a full pool refuses (``dm.xfs_nospace_max_retries``).

That is a file in /sys which is there while the file system is mounted, and a driver does not mount.
So the file system is held by a mount that is attached nowhere, and the engine's mount joins it.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from drivetrain.host import libc

_SET_FLAG, _SET_STRING, _CREATE = 0, 1, 6
_CLOEXEC = 1


def hold(device: Path, retries: int) -> int:
    """Set the number of retries and return the descriptor that keeps it.

    Args:
        device: ``/dev/dm-N`` with an xfs.
        retries: 0: none; -1: for ever.
    """
    what = f"hold {device}"
    context = libc.syscall(what, libc.FSOPEN, ctypes.c_char_p(b"xfs"), _CLOEXEC)
    try:
        source = ctypes.c_char_p(os.fsencode(device))
        key = ctypes.c_char_p(b"source")
        libc.syscall(what, libc.FSCONFIG, context, _SET_STRING, key, source, 0)
        nouuid = ctypes.c_char_p(b"nouuid")
        libc.syscall(what, libc.FSCONFIG, context, _SET_FLAG, nouuid, None, 0)
        libc.syscall(what, libc.FSCONFIG, context, _CREATE, None, None, 0)
        held = libc.syscall(what, libc.FSMOUNT, context, _CLOEXEC, 0)
    finally:
        os.close(context)
    try:
        setting(device).write_text(str(retries))
    except BaseException:
        os.close(held)
        raise
    return held


def setting(device: Path) -> Path:
    """Return the file with the number of retries."""
    return Path(f"/sys/fs/xfs/{device.name}/error/metadata/ENOSPC/max_retries")
