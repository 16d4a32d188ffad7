"""Mounts that show files as of other owners; see mount_setattr(2), ID-mapped mounts.

Nothing on disk changes: a file of user 1000 is seen as one of user 0, and what user 0 makes there
belongs to 1000. Linux 5.12 and newer, and the file system has to take part.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from drivetrain.errors import Internal, InvalidArgument, NotSupported
from drivetrain.host import libc

_AT_FDCWD, _AT_EMPTY_PATH, _AT_RECURSIVE = -100, 0x1000, 0x8000
_OPEN_TREE_CLONE, _IDMAP, _MOVE_FROM_EMPTY = 1, 0x00100000, 4
_RANGE = re.compile(r"(\d+)-(\d+)-(\d+)")


@dataclass(frozen=True, slots=True)
class Range:
    """Owners that are shown as others.

    Attributes:
        disk: the first id in the file system.
        shown: the first id that it is shown as.
        count: how many.
    """

    disk: int
    shown: int
    count: int


@dataclass(frozen=True, slots=True)
class IdMap:
    """Which owners are shown as which; all others become nobody's (65534)."""

    users: tuple[Range, ...]
    groups: tuple[Range, ...]


def parse(text: str) -> IdMap:
    """Read ``uids=DISK-SHOWN-COUNT;gids=DISK-SHOWN-COUNT``, several ranges joined by ``#``.

    Raises:
        InvalidArgument: it is something else.
    """
    found: dict[str, tuple[Range, ...]] = {}
    for part in text.split(";"):
        key, _, value = part.partition("=")
        matches = [_RANGE.fullmatch(piece) for piece in value.split("#")]
        if key not in ("uids", "gids") or key in found or not all(matches):
            raise InvalidArgument(
                f"invalid idmap {text!r}: uids=DISK-CONTAINER-COUNT;gids=DISK-CONTAINER-COUNT "
                "is needed, as in uids=1000-0-1;gids=1000-0-1"
            )
        ranges = [Range(int(m[1]), int(m[2]), int(m[3])) for m in matches if m]
        if any(not one.count or max(one.disk, one.shown) + one.count >= 1 << 32 for one in ranges):
            raise InvalidArgument(f"invalid idmap {text!r}: ids are numbers below 4294967295")
        found[key] = tuple(ranges)
    users = found.get("uids") or found["gids"]
    return IdMap(users, found.get("gids") or users)


def bind(source: Path, target: Path, idmap: IdMap) -> None:
    """Bind ``source`` at ``target`` with other owners; mounts below it are left out.

    Raises:
        NotSupported: the kernel or the file system cannot.
        OSError: such as a source that is not there.
    """
    tree = libc.syscall(
        f"clone mount {source}", libc.OPEN_TREE, ctypes.c_int(_AT_FDCWD),
        ctypes.c_char_p(os.fsencode(source)), ctypes.c_uint(_OPEN_TREE_CLONE | os.O_CLOEXEC),
    )  # fmt: skip
    try:
        namespace = _user_namespace(idmap)
        try:
            _set_map(tree, namespace, source)
        finally:
            os.close(namespace)
        libc.syscall(
            f"mount at {target}", libc.MOVE_MOUNT, ctypes.c_int(tree), ctypes.c_char_p(b""),
            ctypes.c_int(_AT_FDCWD), ctypes.c_char_p(os.fsencode(target)),
            ctypes.c_uint(_MOVE_FROM_EMPTY),
        )  # fmt: skip
    finally:
        os.close(tree)


def _set_map(tree: int, namespace: int, source: Path) -> None:
    value = (ctypes.c_uint64 * 4)(_IDMAP, 0, 0, namespace)  # struct mount_attr
    try:
        libc.syscall(
            f"map the owners of {source}", libc.MOUNT_SETATTR, ctypes.c_int(tree),
            ctypes.c_char_p(b""), ctypes.c_uint(_AT_EMPTY_PATH), ctypes.byref(value),
            ctypes.c_size_t(32),
        )  # fmt: skip
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
            raise NotSupported(
                f"idmap: the file system of {source} (or this kernel) cannot show files as of "
                "other owners; ext4, xfs and btrfs can"
            ) from None
        raise


def _user_namespace(idmap: IdMap) -> int:
    """Return a descriptor of a user namespace that holds the map, and nobody lives in."""
    holder = subprocess.Popen(["unshare", "--user", "cat"], stdin=subprocess.PIPE)
    try:
        place = f"/proc/{holder.pid}"
        ours = os.readlink("/proc/self/ns/user")
        deadline = time.monotonic() + 10
        while os.readlink(f"{place}/ns/user") == ours:
            if holder.poll() is not None or time.monotonic() > deadline:
                raise Internal("idmap: unshare made no user namespace; is it allowed here?")
            time.sleep(0.001)
        _write(f"{place}/uid_map", idmap.users)
        _write(f"{place}/gid_map", idmap.groups)
        return os.open(f"{place}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        holder.communicate()


def _write(path: str, ranges: Sequence[Range]) -> None:
    lines = "".join(f"{one.disk} {one.shown} {one.count}\n" for one in ranges)
    try:
        Path(path).write_text(lines, encoding="ascii")
    except OSError as error:
        raise InvalidArgument(f"idmap: the kernel refuses the ranges: {error.strerror}") from None
