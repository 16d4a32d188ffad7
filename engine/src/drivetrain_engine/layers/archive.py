"""Writing trees and changes as tar: the layers of the OCI image format, and exports."""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from drivetrain.storage import Change

CHUNK = 1 << 20
WHITEOUT = b".wh."
#: Attributes that belong to the storage, not to the file.
_HIDDEN = ("trusted.overlay.", "user.overlay.", "btrfs.")


def layer(root: Path, changes: Iterable[Change]) -> Iterator[bytes]:
    """Yield an OCI layer: changed entries as they are, deleted ones as whiteouts."""
    members = _Members(root)
    for change in changes:
        path = change.path.lstrip(b"/")
        if change.kind == "deleted":
            folder, base = os.path.split(path)
            yield from members.whiteout(os.path.join(folder, WHITEOUT + base))
        else:
            yield from members.entry(path)
    yield members.end()


def tree(root: Path) -> Iterator[bytes]:
    """Yield a whole tree; the root itself is left out, as docker's export has it."""
    members = _Members(root)
    for path in _walk(os.fsencode(root), b""):
        yield from members.entry(path)
    yield members.end()


def _walk(root: bytes, prefix: bytes) -> Iterator[bytes]:
    for entry in sorted(os.scandir(os.path.join(root, prefix)), key=lambda found: found.name):
        path = os.path.join(prefix, entry.name)
        yield path
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(root, path)


class _Members:
    """Makes members; knows the files with several names that were written already."""

    def __init__(self, root: Path) -> None:
        self._root = os.fsencode(root)
        self._links: dict[tuple[int, int], str] = {}
        self._size = 0

    def entry(self, path: bytes) -> Iterator[bytes]:
        """Yield one entry; one that has gone meanwhile, or is a socket, is left out."""
        place = os.path.join(self._root, path)
        try:
            found = os.lstat(place)
        except FileNotFoundError:
            return
        member = self._describe(path, place, found)
        if member is None:
            return
        if not member.isreg():
            yield self._header(member)
            return
        try:
            descriptor = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            return
        with open(descriptor, "rb", buffering=0) as file:
            yield self._header(member)
            yield from self._content(file.fileno(), member.size)

    def _content(self, descriptor: int, size: int) -> Iterator[bytes]:
        left = size
        while left:
            block = os.read(descriptor, min(CHUNK, left))
            if not block:
                block = bytes(min(CHUNK, left))  # cut while it was read: the header stands
            left -= len(block)
            self._size += len(block)
            yield block
        if padding := -size % tarfile.BLOCKSIZE:
            self._size += padding
            yield bytes(padding)

    def _describe(self, path: bytes, place: bytes, found: os.stat_result) -> tarfile.TarInfo | None:
        name = path.decode("utf-8", "surrogateescape")
        member = tarfile.TarInfo(name)
        member.mode = stat.S_IMODE(found.st_mode)
        member.uid, member.gid = found.st_uid, found.st_gid
        member.mtime = found.st_mtime_ns // 1_000_000_000
        if rest := found.st_mtime_ns % 1_000_000_000:
            member.pax_headers = {"mtime": f"{member.mtime}.{rest:09}"}
        mode = found.st_mode
        if stat.S_ISDIR(mode):
            member.type = tarfile.DIRTYPE
        elif stat.S_ISSOCK(mode):
            return None  # tar has none
        elif found.st_nlink > 1 and self._is_link(member, found):
            return member
        elif stat.S_ISREG(mode):
            member.size = found.st_size
        elif stat.S_ISLNK(mode):
            member.type = tarfile.SYMTYPE
            member.linkname = os.readlink(place).decode("utf-8", "surrogateescape")
        elif stat.S_ISFIFO(mode):
            member.type = tarfile.FIFOTYPE
        else:
            member.type = tarfile.CHRTYPE if stat.S_ISCHR(mode) else tarfile.BLKTYPE
            member.devmajor = os.major(found.st_rdev)
            member.devminor = os.minor(found.st_rdev)
        self._attributes(member, place)
        return member

    def _is_link(self, member: tarfile.TarInfo, found: os.stat_result) -> bool:
        """Make one more name of a file that was written under its first; or note the first."""
        first = self._links.setdefault((found.st_dev, found.st_ino), member.name)
        if first == member.name:
            return False
        member.type, member.linkname = tarfile.LNKTYPE, first
        return True

    @staticmethod
    def _attributes(member: tarfile.TarInfo, place: bytes) -> None:
        try:
            names = os.listxattr(place, follow_symlinks=False)
        except OSError:
            return
        headers = dict(member.pax_headers)
        for name in names:
            if name.startswith(_HIDDEN):
                continue
            try:
                value = os.getxattr(place, name, follow_symlinks=False)
            except OSError:
                continue
            text = value.decode("utf-8", "surrogateescape")
            headers[f"SCHILY.xattr.{name}"] = text
        member.pax_headers = headers

    def whiteout(self, path: bytes) -> Iterator[bytes]:
        """Yield the mark of a deleted entry."""
        yield self._header(tarfile.TarInfo(path.decode("utf-8", "surrogateescape")))

    def _header(self, member: tarfile.TarInfo) -> bytes:
        header = member.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
        self._size += len(header)
        return header

    def end(self) -> bytes:
        """Return the end of the archive."""
        tail = 2 * tarfile.BLOCKSIZE
        return bytes(tail + -(self._size + tail) % tarfile.RECORDSIZE)
