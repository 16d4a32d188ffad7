"""Comparing two directory trees.

Every access goes through a descriptor of the directory and follows no symbolic link, so a tree
that somebody hostile filled, or still changes, cannot lead the comparison out of it.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

from drivetrain.storage import Change

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_CHUNK = 1 << 18
#: Nanoseconds in which two changes may have the same change time: a clock may tick in seconds.
_TICK = 2 * 10**9

Kind = Literal["added", "modified", "deleted"]


def compare(
    old: Path | None,
    new: Path,
    unchanged: Callable[[os.stat_result], bool] | None = None,
    snapshot_time: int = 0,
) -> Iterator[Change]:
    """Yield what differs in ``new`` from ``old``, parents before children, names sorted.

    A difference is one of type, content, mode, owner, extended attributes, link target, device
    number or modification time in nanoseconds; a file whose size and times are equal is read. A
    directory is ``modified`` when anything below it changed. Of a deleted directory only itself
    is told. The root is not told.

    Args:
        old: the tree before; ``None``: an empty one.
        new: the tree now.
        unchanged: tells of an entry of the new tree that it, and all below it, is as it was in
            the old one, if that has one of its name; a file system may know without reading.
        snapshot_time: when the new tree was made as a snapshot of the blocks of the old one, in
            nanoseconds since the epoch, so that what was not touched since has the inode number
            and the change time that it has there, and is not read; 0: it is no such snapshot.

    Raises:
        OSError: a directory cannot be read.
    """
    new_root = os.open(new, _DIRECTORY)
    try:
        old_root = None if old is None else os.open(old, _DIRECTORY)
        try:
            settled = snapshot_time - _TICK
            yield from _compare_directories(old_root, new_root, b"", unchanged, settled)
        finally:
            if old_root is not None:
                os.close(old_root)
    finally:
        os.close(new_root)


def _compare_directories(
    old: int | None,
    new: int,
    prefix: bytes,
    unchanged: Callable[[os.stat_result], bool] | None,
    settled: int,
) -> Iterator[Change]:
    before = set() if old is None else set(os.listdir(old))
    after = set(os.listdir(new))
    for name in sorted(before | after):
        path = prefix + b"/" + os.fsencode(name)
        if name not in after:
            yield Change(path, "deleted")
            continue
        try:
            entry = os.lstat(name, dir_fd=new)
        except FileNotFoundError:  # gone since the directory was listed
            if name in before:
                yield Change(path, "deleted")
            continue
        if name in before and unchanged is not None and unchanged(entry):
            continue
        earlier = os.lstat(name, dir_fd=old) if old is not None and name in before else None
        kind: Kind | None = "added"
        if earlier is not None and old is not None:
            kind = "modified" if _differs(old, earlier, new, entry, name, settled) else None
        if not stat.S_ISDIR(entry.st_mode):
            if kind is not None:
                yield Change(path, kind)
            continue
        if earlier is not None and not stat.S_ISDIR(earlier.st_mode):
            earlier = None
        below = _below(old if earlier is not None else None, new, name, path, unchanged, settled)
        first = next(below, None)
        if kind is not None or first is not None:
            yield Change(path, kind or "modified")
        if first is not None:
            yield first
            yield from below


def _below(
    old: int | None,
    new: int,
    name: str,
    path: bytes,
    unchanged: Callable[[os.stat_result], bool] | None,
    settled: int,
) -> Iterator[Change]:
    """Compare one subdirectory; ``old`` is ``None`` when there was none of that name."""
    try:
        new_below = os.open(name, _DIRECTORY, dir_fd=new)
    except FileNotFoundError:
        return
    try:
        old_below = None if old is None else os.open(name, _DIRECTORY, dir_fd=old)
        try:
            yield from _compare_directories(old_below, new_below, path, unchanged, settled)
        finally:
            if old_below is not None:
                os.close(old_below)
    finally:
        os.close(new_below)


def _differs(
    old: int, before: os.stat_result, new: int, after: os.stat_result, name: str, settled: int
) -> bool:
    """Tell whether an entry changed, leaving out what is below a directory.

    Nobody can set a change time, so that one which is equal, of the same inode, says that nothing
    was done; in a snapshot only when it is from before ``settled``.
    """
    if (before.st_ino, before.st_ctime_ns) == (after.st_ino, after.st_ctime_ns) and (
        before.st_dev == after.st_dev or after.st_ctime_ns < settled
    ):
        return False
    if (
        before.st_mode != after.st_mode
        or before.st_uid != after.st_uid
        or before.st_gid != after.st_gid
        or before.st_mtime_ns != after.st_mtime_ns
    ):
        return True
    mode = after.st_mode
    if (stat.S_ISCHR(mode) or stat.S_ISBLK(mode)) and before.st_rdev != after.st_rdev:
        return True
    if stat.S_ISLNK(mode) and os.readlink(name, dir_fd=old) != os.readlink(name, dir_fd=new):
        return True
    if stat.S_ISREG(mode) and before.st_size != after.st_size:
        return True
    if extended_attributes(old, name) != extended_attributes(new, name):
        return True
    return stat.S_ISREG(mode) and not _same_content(old, new, name)


def extended_attributes(directory: int, name: str) -> dict[str, bytes]:
    """Return all extended attributes of an entry of an open directory, links not followed."""
    # No call takes a directory's descriptor and a name; its entry in /proc does the same.
    path = f"/proc/self/fd/{directory}/{name}"
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError:  # a file system without them
        return {}
    found = {}
    for attribute in names:
        try:
            found[attribute] = os.getxattr(path, attribute, follow_symlinks=False)
        except OSError:  # listed but not readable, as some security modules do
            continue
    return found


def take_over(source: Path, target: Path, leave: tuple[str, ...] = ()) -> None:
    """Give a directory the owner, extended attributes and mode of another one.

    Args:
        source: of the attributes.
        target: a new directory.
        leave: beginnings of names of attributes that stay where they are.

    Raises:
        OSError: the file system of ``target`` cannot hold one of them.
    """
    entry = os.lstat(source)
    os.chown(target, entry.st_uid, entry.st_gid)
    for name in os.listxattr(source):
        if not name.startswith(leave):
            os.setxattr(target, name, os.getxattr(source, name))
    target.chmod(stat.S_IMODE(entry.st_mode))  # last: a change of owner clears some bits


def _same_content(old: int, new: int, name: str) -> bool:
    """Compare two files of one size; what is a hole in both is not read."""
    before = os.open(name, _FILE, dir_fd=old)
    try:
        after = os.open(name, _FILE, dir_fd=new)
        try:
            return _same_bytes(before, after, os.fstat(after).st_size)
        finally:
            os.close(after)
    finally:
        os.close(before)


def _same_bytes(before: int, after: int, size: int) -> bool:
    here = 0
    while here < size:
        if size > _CHUNK:
            here = min(next_data(before, here, size), next_data(after, here, size))
        piece = os.pread(before, _CHUNK, here)
        if piece != os.pread(after, _CHUNK, here):
            return False
        if not piece:
            return True
        here += len(piece)
    return True


def next_data(descriptor: int, start: int, size: int) -> int:
    """Return where the next data of a file begin, at or after ``start``; ``size`` if none do."""
    try:
        return os.lseek(descriptor, start, os.SEEK_DATA)
    except OSError as error:
        return size if error.errno == errno.ENXIO else start
