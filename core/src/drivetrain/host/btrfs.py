"""btrfs by ioctl: subvolumes, snapshots, quota groups, and what changed since a snapshot.

See btrfs-ioctl(2) and linux/btrfs.h. No command is run, and nothing but the kernel is needed.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from drivetrain.host import libc

MAGIC = 0x9123683E
#: The inode number of the root directory of every subvolume.
ROOT_INODE = 256

_SNAP_CREATE_V2, _SUBVOL_CREATE_V2, _SNAP_DESTROY_V2 = 0x50009417, 0x50009418, 0x5000943F
_SUBVOL_GETFLAGS, _SUBVOL_SETFLAGS, _GET_SUBVOL_INFO = 0x80089419, 0x4008941A, 0x81F8943C
_TREE_SEARCH_V2, _SYNC = 0xC0709411, 0x9408
_QUOTA_CTL, _QGROUP_CREATE, _QGROUP_LIMIT, _RESCAN_WAIT = (
    0xC0109428, 0x4010942A, 0x8030942B, 0x942E,
)  # fmt: skip
_READ_ONLY, _BY_ID = 2, 16
_MAX_REFERENCED, _MAX_EXCLUSIVE = 1, 2
_ROOT_TREE, _QUOTA_TREE = 1, 8
_INODE_ITEM, _INODE_REF, _INODE_EXTREF, _EXTENT_DATA, _ROOT_REF, _QGROUP_INFO = (
    1, 12, 13, 108, 156, 242,
)  # fmt: skip
_ALL = (1 << 64) - 1
_BUFFER = 1 << 16


@dataclass(frozen=True, slots=True)
class Subvolume:
    """What the kernel knows of a subvolume.

    Attributes:
        id: of its tree.
        born: the generation of which it is a snapshot: what is newer was written since; 0 when
            it began empty.
        read_only: no write can reach it.
    """

    id: int
    born: int
    read_only: bool


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def is_btrfs(path: Path) -> bool:
    """Tell whether a directory is on btrfs."""
    return libc.file_system_magic(path) == MAGIC


def is_subvolume(path: Path) -> bool:
    """Tell whether a path, on btrfs, is a subvolume; nothing there is none."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_ino == ROOT_INODE


def create(path: Path) -> None:
    """Make an empty subvolume; its root directory is as mkdir(2) makes one."""
    with _opened(path.parent) as parent:
        fcntl.ioctl(parent, _SUBVOL_CREATE_V2, _arguments(path.name))


def snapshot(source: Path, path: Path, *, read_only: bool = False) -> None:
    """Make a subvolume with the content of another one, in an instant."""
    with _opened(source) as origin, _opened(path.parent) as parent:
        flags = _READ_ONLY if read_only else 0
        fcntl.ioctl(parent, _SNAP_CREATE_V2, _arguments(path.name, origin, flags))


def _arguments(name: str, descriptor: int = 0, flags: int = 0) -> bytearray:
    # struct btrfs_ioctl_vol_args_v2; the kernel wants the name to end with a NUL. Python passes
    # on more than 1024 bytes only from what it can write to.
    return bytearray(struct.pack("<qQQ32x4040s", descriptor, 0, flags, os.fsencode(name)))


def info(path: Path) -> Subvolume:
    """Return what the kernel knows of a subvolume."""
    with _opened(path) as descriptor:
        found = fcntl.ioctl(descriptor, _GET_SUBVOL_INFO, bytes(504))
    (identity,) = struct.unpack_from("<Q", found, 0)
    (flags,), (made,) = struct.unpack_from("<Q", found, 288), struct.unpack_from("<Q", found, 352)
    is_snapshot = any(found[312:328])  # it has the UUID of a parent
    return Subvolume(identity, made if is_snapshot else 0, bool(flags & 1))


def set_read_only(path: Path, read_only: bool) -> None:
    """Let no write reach a subvolume, or let them again."""
    with _opened(path) as descriptor:
        (flags,) = struct.unpack("<Q", fcntl.ioctl(descriptor, _SUBVOL_GETFLAGS, bytes(8)))
        wanted = flags | _READ_ONLY if read_only else flags & ~_READ_ONLY
        if wanted != flags:
            fcntl.ioctl(descriptor, _SUBVOL_SETFLAGS, struct.pack("<Q", wanted))


def delete(path: Path) -> list[int]:
    """Delete a subvolume and all that were made inside it; one that is gone is fine.

    Space comes back a little later. Needs Linux 5.7.

    Returns:
        The ids of the subvolumes that are gone; their quota groups are left.
    """
    if not is_subvolume(path):
        return []
    identity = info(path).id
    with _opened(path.parent) as parent:
        gone = _descendants(parent, identity)
        # A directory inside a read-only subvolume cannot lose an entry.
        if gone:
            set_read_only(path, False)
        for inner in gone:
            # struct btrfs_ioctl_vol_args_v2, with the id where the name would be.
            by_id = bytearray(struct.pack("<qQQ32xQ4032x", 0, 0, _BY_ID, inner))
            fcntl.ioctl(parent, _SNAP_DESTROY_V2, by_id)
        fcntl.ioctl(parent, _SNAP_DESTROY_V2, _arguments(path.name))
    return [*gone, identity]


def _descendants(descriptor: int, identity: int) -> list[int]:
    """Return the ids of the subvolumes inside one, the innermost first."""
    found: list[int] = []
    for item in _search(descriptor, _ROOT_TREE, identity, identity, _ROOT_REF, _ROOT_REF):
        found += [*_descendants(descriptor, item.offset), item.offset]
    return found


# Quota groups


def enable_quota(path: Path) -> None:
    """Switch quota groups on for the file system of ``path``, and wait until they are right."""
    with _opened(path) as descriptor:
        if not _quota_enabled(descriptor):
            fcntl.ioctl(descriptor, _QUOTA_CTL, struct.pack("<QQ", 1, 0))
        fcntl.ioctl(descriptor, _RESCAN_WAIT)


def _quota_enabled(descriptor: int) -> bool:
    try:
        return next(_search(descriptor, _QUOTA_TREE, 0, _ALL, 0, 255), None) is not None
    except FileNotFoundError:
        return False


def limit(path: Path, size: int, *, shared: bool) -> None:
    """Limit a subvolume.

    Args:
        path: a subvolume, on a file system with quota groups switched on.
        size: in bytes.
        shared: of all that is in it; else of what it takes up alone, and shares with no other.
    """
    flags = _MAX_REFERENCED if shared else _MAX_EXCLUSIVE
    with _opened(path) as descriptor:
        # Group 0: that of the subvolume itself.
        value = struct.pack("<QQQQQQ", 0, flags, size, size, 0, 0)
        fcntl.ioctl(descriptor, _QGROUP_LIMIT, value)


def delete_quota_group(path: Path, identity: int) -> bool:
    """Delete the quota group of a deleted subvolume; ``False``: the kernel still needs it.

    Args:
        path: anything on the same file system.
        identity: of the subvolume that is gone.
    """
    with _opened(path) as descriptor:
        try:
            fcntl.ioctl(descriptor, _QGROUP_CREATE, struct.pack("<QQ", 0, identity))
        except OSError as error:
            if error.errno == errno.EBUSY:
                return False
            # ENOTCONN: quota is off; ENOENT: the kernel deleted it with the subvolume.
            if error.errno not in (errno.ENOENT, errno.ENOTCONN, errno.EINVAL):
                raise
    return True


# What was written since


@dataclass(frozen=True, slots=True)
class Written:
    """What of a snapshot is newer than itself.

    Attributes:
        size: bytes of extents that were written since.
        inodes: numbers of the inodes that changed in any way, directories included.
        touched: those, and all directories above them.
    """

    size: int
    inodes: frozenset[int]
    touched: frozenset[int]


def written(path: Path) -> Written:
    """Find what was written to a subvolume since it was made, by reading only newer leaves."""
    with _opened(path) as descriptor:
        # What is not in the tree yet would be missed.
        fcntl.ioctl(descriptor, _SYNC)
        born = info(path).born
        size, inodes = 0, set[int]()
        for item in _search(descriptor, 0, ROOT_INODE, _ALL, 0, 255, born + 1):
            if item.type == _INODE_ITEM and struct.unpack_from("<QQ", item.data)[1] > born:
                inodes.add(item.objectid)
            elif item.type == _EXTENT_DATA:
                size += _extent_size(item.data, born)
        touched, todo = set[int](), list(inodes)
        while todo:
            inode = todo.pop()
            if inode in touched:
                continue
            touched.add(inode)
            for item in _search(descriptor, 0, inode, inode, _INODE_REF, _INODE_EXTREF):
                todo += _named_in(item)
    return Written(size, frozenset(inodes), frozenset(touched))


def _extent_size(data: bytes, born: int) -> int:
    """Return the bytes that an extent takes up on disk when it is newer."""
    # struct btrfs_file_extent_item: generation, ram_bytes, …, type, disk_bytenr, disk_num_bytes.
    (generation,) = struct.unpack_from("<Q", data)
    if generation <= born:
        return 0
    if data[20] == 0:  # inline in the tree
        return len(data) - 21
    start, size = struct.unpack_from("<QQ", data, 21)
    return size if start else 0


def _named_in(item: _Item) -> list[int]:
    """Return the directories that have a name for an inode."""
    if item.type == _INODE_REF:
        return [item.offset]
    found, place = [], 0
    while place < len(item.data):  # struct btrfs_inode_extref: parent, index, length of the name
        parent, _, length = struct.unpack_from("<QQH", item.data, place)
        found.append(parent)
        place += 18 + length
    return found


@dataclass(frozen=True, slots=True)
class _Item:
    objectid: int
    type: int
    offset: int
    data: bytes


def _search(
    descriptor: int, tree: int, first: int, last: int, low: int, high: int, since: int = 0
) -> Iterator[_Item]:
    """Yield the items of a tree between two keys.

    Args:
        descriptor: anything on the file system.
        tree: its id; 0: that of the subvolume that the descriptor is of.
        first: the lowest object id.
        last: the highest object id.
        low: the lowest type.
        high: the highest type.
        since: only leaves of this generation and newer, with all that is in them.
    """
    key, kind, offset = first, low, 0
    buffer = bytearray(112 + _BUFFER)
    while True:
        # struct btrfs_ioctl_search_key and the size of the buffer.
        struct.pack_into(
            "<QQQQQQQIIII32xQ", buffer, 0,
            tree, key, last, offset, _ALL, since, _ALL, kind, high, 1 << 20, 0, _BUFFER,
        )  # fmt: skip
        fcntl.ioctl(descriptor, _TREE_SEARCH_V2, buffer)
        (count,) = struct.unpack_from("<I", buffer, 64)
        if count == 0:
            return
        place = 112
        for _ in range(count):
            _, key, offset, kind, length = struct.unpack_from("<QQQII", buffer, place)
            place += 32
            # Between the keys of two inodes lie all types.
            if low <= kind <= high:
                yield _Item(key, kind, offset, bytes(buffer[place : place + length]))
            place += length
        if offset < _ALL:
            offset += 1
        elif kind < 255:
            kind, offset = kind + 1, 0
        elif key < _ALL:
            key, kind, offset = key + 1, 0, 0
        else:
            return
