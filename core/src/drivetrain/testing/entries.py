"""Trees that hold every kind of entry, and descriptions of trees to compare by.

The description is made without :mod:`drivetrain.host.trees`, so that it can judge it.
"""

from __future__ import annotations

import hashlib
import os
import socket
import stat
import struct
from pathlib import Path
from typing import Any

#: Value of security.capability for cap_net_raw+ep: revision 2, effective, bit 13.
CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")
ACCESS, DEFAULT = "system.posix_acl_access", "system.posix_acl_default"
_NO_ID = 0xFFFFFFFF


def acl(user: int, permissions: int) -> bytes:
    """Return an access control list, rwxr-x---, that gives one more user something.

    It is what the extended attributes ``ACCESS`` and ``DEFAULT`` hold, see acl(5): version 2, then
    tag, permissions and id of each entry.
    """
    entries = (
        (0x01, 7, _NO_ID),
        (0x02, permissions, user),
        (0x04, 5, _NO_ID),
        (0x10, 7, _NO_ID),
        (0x20, 0, _NO_ID),
    )
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def every_kind(root: Path, *, times: int = 10**18 + 123_456_789, odd_entries: bool = True) -> None:
    """Fill a directory with entries of every kind that a container can make.

    Args:
        root: an existing directory.
        times: of modification, nanoseconds since 1970, of all that is made.
        odd_entries: with names that mean a deletion in an archive, and nothing in a directory, one
            as long as names can be, and a symbolic link with an extended attribute.
    """
    _special_files(root)
    _attributes(root)
    _links(root)
    _names(root)
    if odd_entries:
        (root / ".wh.kept").write_text("x")
        (root / ".wh..wh..opq").touch()
        (root / ("n" * 255)).touch()
        os.setxattr(root / "absolute", "trusted.note", b"of a link", follow_symlinks=False)
    with (root / "sparse").open("wb") as file:
        file.seek(8 << 20)
        file.write(b"in the middle")
        file.truncate(1 << 30)
    for folder, names, files in os.walk(os.fsencode(root), topdown=False):
        for name in (*names, *files):
            os.utime(os.path.join(folder, name), ns=(times - 1, times), follow_symlinks=False)


def _special_files(root: Path) -> None:
    os.mkfifo(root / "fifo", 0o640)
    os.mknod(root / "character", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    os.mknod(root / "block", stat.S_IFBLK | 0o660, os.makedev(7, 200))
    with socket.socket(socket.AF_UNIX) as unix:
        here = os.open(root, os.O_RDONLY)
        try:
            unix.bind(f"/proc/self/fd/{here}/socket")
        finally:
            os.close(here)
    (root / "empty").touch()
    (root / "nothing in it").mkdir(mode=0o700)


def _attributes(root: Path) -> None:
    for name, mode in (("setuid", 0o4751), ("setgid", 0o2755), ("closed", 0o000)):
        (root / name).write_text(name)
        os.chown(root / name, 12, 34)
        (root / name).chmod(mode)
    (root / "sticky").mkdir()
    (root / "sticky").chmod(0o1777)
    (root / "capable").write_text("x")
    os.setxattr(root / "capable", "security.capability", CAPABILITY)
    (root / "noted").write_text("x")
    os.setxattr(root / "noted", "user.note", b"a\0b")
    os.setxattr(root / "noted", "trusted.note", b"\xff")
    (root / "granted").write_text("x")
    os.setxattr(root / "granted", ACCESS, acl(1000, 6))
    (root / "inherited").mkdir()
    (root / "inherited" / "before").write_text("made before there was a default list")
    os.setxattr(root / "inherited", DEFAULT, acl(1001, 4))
    (root / "inherited" / "after").write_text("has the list of its directory")


def _links(root: Path) -> None:
    (root / "here").mkdir()
    (root / "there").mkdir()
    (root / "here" / "one").write_text("several names")
    for other in ("here/two", "there/three", "four"):
        os.link(root / "here" / "one", root / other)
    os.mkfifo(root / "here" / "pipe")
    os.link(root / "here" / "pipe", root / "there" / "pipe")
    (root / "symbolic").symlink_to("nowhere at all")
    os.link(root / "symbolic", root / "there" / "symbolic", follow_symlinks=False)
    (root / "absolute").symlink_to("/etc/passwd")
    os.chown(root / "absolute", 5, 6, follow_symlinks=False)


def _names(root: Path) -> None:
    folder = os.fsencode(root)
    for name in (b"\xff\xfe", b"n" * 250, b"two\nlines", b"back\\slash", b"a:b,c"):
        with open(os.path.join(folder, name), "wb") as file:
            file.write(name)
    deep = root
    for number in range(30):
        deep /= f"level{number}"
    deep.mkdir(parents=True)
    (deep / "bottom").write_text("x")


def describe(root: Path, *, leave_out: tuple[bytes, ...] = (b"lost+found",)) -> dict[bytes, Any]:
    """Return everything that can be told of each entry of a tree, the root as ``b"."``.

    Names of the same file have the same first name in their descriptions. Times of access, which
    looking changes, and of change, which nobody can set, are left out; so are attributes of the
    file system itself.
    """
    found: dict[bytes, Any] = {}
    names: dict[tuple[int, int], bytes] = {}
    top = os.fsencode(root)
    found[b"."] = _describe(top)
    for folder, folders, files in os.walk(top):
        if folder == top:
            folders[:] = [name for name in folders if name not in leave_out]
        folders.sort()
        for name in sorted((*folders, *files)):
            path = os.path.join(folder, name)
            entry = os.lstat(path)
            described = _describe(path)
            if not stat.S_ISDIR(entry.st_mode):
                identity = (entry.st_dev, entry.st_ino)
                described["first name"] = names.setdefault(identity, path[len(top) + 1 :])
            found[path[len(top) + 1 :]] = described
    return found


def _describe(path: bytes) -> dict[str, Any]:
    entry = os.lstat(path)
    mode = entry.st_mode
    found: dict[str, Any] = {
        "mode": oct(mode),
        "owner": (entry.st_uid, entry.st_gid),
        "modified": entry.st_mtime_ns,
        "attributes": {
            name: os.getxattr(path, name, follow_symlinks=False)
            for name in os.listxattr(path, follow_symlinks=False)
            if not name.startswith("btrfs.")
        },
    }
    if stat.S_ISREG(mode):
        found["size"] = entry.st_size
        found["content"] = _digest(path)
        found["sparse"] = entry.st_size > 1 << 20 and entry.st_blocks * 512 < entry.st_size // 2
    elif stat.S_ISLNK(mode):
        found["target"] = os.readlink(path)
    elif stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        found["device"] = (os.major(entry.st_rdev), os.minor(entry.st_rdev))
    return found


def _digest(path: bytes) -> str:
    """Return the digest of a file's data and where they are; holes are not read."""
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        here, size = 0, os.fstat(file.fileno()).st_size
        while here < size:
            try:
                here = os.lseek(file.fileno(), here, os.SEEK_DATA)
            except OSError:  # ENXIO: nothing but a hole up to the end
                break
            file.seek(here)
            block = file.read(1 << 18)
            if not block:
                break
            # A hole reads as zeros, and a block of zeros may be stored as a hole or not.
            if block.strip(b"\0"):
                for start in range(0, len(block), 4096):
                    piece = block[start : start + 4096]
                    if piece.strip(b"\0"):
                        digest.update(struct.pack("<Q", here + start) + piece)
            here += len(block)
    return digest.hexdigest()
