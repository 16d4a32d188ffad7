"""Writing trees and changes as tar: the layers of the OCI image format, and exports."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from drivetrain.storage import Change
from drivetrain_engine.layers.headers import (
    BLOCK,
    CHARACTER,
    DEVICE,
    FIFO,
    FOLDER,
    LINK,
    SYMBOLIC,
    Member,
    header,
)

CHUNK = 1 << 20
#: Tars are a multiple of this long, as tapes had it.
RECORD = 20 * BLOCK
WHITEOUT = b".wh."
#: Attributes that belong to the storage, not to the file.
_HIDDEN = ("trusted.overlay.", "user.overlay.", "btrfs.")


def layer(root: Path, changes: Iterable[Change]) -> Iterator[bytes]:
    """Yield an OCI layer: changed entries as they are, deleted ones as whiteouts."""
    return _gathered(_layer(root, changes))


def _layer(root: Path, changes: Iterable[Change]) -> Iterator[bytes]:
    members = _Members(root)
    for change in changes:
        path = change.path.lstrip(b"/")
        if change.kind == "deleted":
            folder, base = os.path.split(path)
            yield header(Member(os.path.join(folder, WHITEOUT + base)))
        else:
            yield from members.entry(path)


def tree(root: Path) -> Iterator[bytes]:
    """Yield a whole tree; the root itself is left out, as docker's export has it."""
    return _gathered(_tree(root))


def _tree(root: Path) -> Iterator[bytes]:
    members = _Members(root)
    for path in _walk(os.fsencode(root), b""):
        yield from members.entry(path)


def _walk(root: bytes, prefix: bytes) -> Iterator[bytes]:
    for entry in sorted(os.scandir(os.path.join(root, prefix)), key=lambda found: found.name):
        path = os.path.join(prefix, entry.name)
        yield path
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(root, path)


def _gathered(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Yield few large pieces instead of many small ones, and the end of the archive."""
    parts: list[bytes] = []
    size = total = 0
    for piece in pieces:
        parts.append(piece)
        size += len(piece)
        if size >= CHUNK:
            yield b"".join(parts)
            total += size
            parts, size = [], 0
    total += size + 2 * BLOCK
    yield b"".join((*parts, bytes(2 * BLOCK + -total % RECORD)))


class _Members:
    """Makes entries; knows the files with several names that were written already."""

    def __init__(self, root: Path) -> None:
        self._root = os.fsencode(root)
        self._links: dict[tuple[int, int], bytes] = {}

    def entry(self, path: bytes) -> Iterator[bytes]:
        """Yield one entry; one that has gone meanwhile, or is a socket, is left out."""
        place = os.path.join(self._root, path)
        try:
            found = os.lstat(place)
            member = self._describe(path, place, found)
        except FileNotFoundError:
            return
        if member is None:
            return
        if not stat.S_ISREG(found.st_mode) or member.kind == LINK:
            yield header(member)
            return
        try:
            descriptor = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            return
        try:
            yield header(member)
            yield from _content(descriptor, member.size)
        finally:
            os.close(descriptor)

    def _describe(self, path: bytes, place: bytes, found: os.stat_result) -> Member | None:
        mode = found.st_mode
        if stat.S_ISSOCK(mode):
            return None  # tar has none
        member = Member(
            path, mode=stat.S_IMODE(mode), owner=(found.st_uid, found.st_gid),
            modified=found.st_mtime_ns,
        )  # fmt: skip
        if found.st_nlink > 1 and not stat.S_ISDIR(mode):
            first = self._links.setdefault((found.st_dev, found.st_ino), path)
            if first != path:
                return member._replace(kind=LINK, link=first)
        member = member._replace(attributes=_attributes(place))
        if stat.S_ISREG(mode):
            return member._replace(size=found.st_size)
        if stat.S_ISDIR(mode):
            return member._replace(name=path + b"/", kind=FOLDER)
        if stat.S_ISLNK(mode):
            return member._replace(kind=SYMBOLIC, link=os.readlink(place))
        if stat.S_ISFIFO(mode):
            return member._replace(kind=FIFO)
        kind = CHARACTER if stat.S_ISCHR(mode) else DEVICE
        device = os.major(found.st_rdev), os.minor(found.st_rdev)
        return member._replace(kind=kind, device=device)


def _content(descriptor: int, size: int) -> Iterator[bytes]:
    left = size
    while left:
        block = os.read(descriptor, min(CHUNK, left))
        if not block:
            block = bytes(min(CHUNK, left))  # cut while it was read: the header stands
        left -= len(block)
        yield block
    if padding := -size % BLOCK:
        yield bytes(padding)


def _attributes(place: bytes) -> tuple[tuple[bytes, bytes], ...]:
    try:
        names = os.listxattr(place, follow_symlinks=False)
    except OSError:
        return ()
    found = []
    for name in names:
        if name.startswith(_HIDDEN):
            continue
        try:
            value = os.getxattr(place, name, follow_symlinks=False)
        except OSError:
            continue
        found.append((os.fsencode(name), value))
    return tuple(found)
