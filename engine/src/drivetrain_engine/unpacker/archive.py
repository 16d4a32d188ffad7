"""Reading a tar: POSIX (ustar, pax), GNU and what there was before them.

Headers are read here, in a tenth of the time that :mod:`tarfile` takes, and that knows neither
extended attributes nor holes.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from typing import NamedTuple

BLOCK = 512
#: Bytes that are read at a time. The buffer stays: the pages of a new one would come anew.
SIZE = 1 << 18
#: What an extended header or a long name may have; no file system holds more.
LONGEST = 16 << 20

FILE, HARD, SYMBOLIC, CHARACTER, DEVICE, FOLDER, FIFO = b"0123456"
_KINDS = {kind: kind for kind in b"0123456"} | dict.fromkeys(b"\x007S", FILE)
_PAX, _GLOBAL, _LONG_NAME, _LONG_LINK = b"xgLK"
_SPARSE = ord("S")
_XATTR = b"SCHILY.xattr."
_HOLES = b"GNU.sparse."

Pairs = dict[bytes, bytes]
Extents = list[tuple[int, int]]


class Entry(NamedTuple):
    """One entry of an archive.

    Attributes:
        kind: one of FILE, HARD, …
        name: as the archive has it.
        link: what a link leads to.
        mode: permissions.
        owner: user and group.
        modified: nanoseconds.
        device: major and minor number.
        attributes: extended ones.
        size: of the file, bytes.
        extents: where a file with holes has content, bytes and bytes; ``None``: everywhere.
    """

    kind: int
    name: bytes
    link: bytes
    mode: int
    owner: tuple[int, int]
    modified: int
    device: tuple[int, int]
    attributes: Pairs
    size: int
    extents: Extents | None


#: The content of an entry, without holes; each piece is only good until the next.
Content = Iterator[memoryview]


class Archive:
    """A tar, read once from front to back.

    Args:
        descriptor: of a file or pipe.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._buffer = bytearray(SIZE)
        self._view = memoryview(self._buffer)
        self._begin = self._end = 0
        self._global: Pairs = {}

    def entries(self) -> Iterator[tuple[Entry, Content]]:
        """Yield what there is.

        Raises:
            ValueError: it ends in the middle, or is no tar.
        """
        header = self._block()
        if not header:
            raise ValueError("the archive is empty")
        while header.strip(b"\0"):
            entry, content = self._entry(header)
            yield entry, content
            for _ in content:
                pass  # what nobody has read
            header = self._block()

    def _entry(self, header: bytes) -> tuple[Entry, Content]:
        own: Pairs = {}
        while True:
            check(header)
            kind = header[156]
            if kind in _KINDS:
                break
            if kind not in (_PAX, _GLOBAL, _LONG_NAME, _LONG_LINK):
                raise ValueError(f"an entry has the unknown type {chr(kind)!r}")
            text = self._text(number(header[124:136]))
            if kind == _PAX:
                own |= records(text)
            elif kind == _GLOBAL:
                self._global |= records(text)
            else:
                key = b"path" if kind == _LONG_NAME else b"linkpath"
                own[key] = text.partition(b"\0")[0]
            header = self._block()
        extended = {**self._global, **own} if self._global else own
        entry = parse(header, extended)
        if entry.kind != FILE:
            return entry, iter(())
        stored = int(extended.get(b"size") or number(header[124:136]))
        if kind == _SPARSE:
            return self._old_sparse(header, entry, stored)
        if extended.get(_HOLES + b"major") == b"1":
            entry, stored = self._inner_map(entry, stored)
        return entry, self._content(stored)

    def _old_sparse(self, header: bytes, entry: Entry, stored: int) -> tuple[Entry, Content]:
        """Read a map of the file in the header, and in blocks behind it."""
        extents = extents_of(header[386:482], 4)
        more = header[482]
        while more:
            block = self._block()
            extents += extents_of(block, 21)
            more = block[504] if block else 0
        size = number(header[483:495])
        return entry._replace(extents=extents, size=size), self._content(stored)

    def _inner_map(self, entry: Entry, stored: int) -> tuple[Entry, int]:
        """Read a map of the file that is the first part of its content."""
        text = b""
        while True:
            count, sign, rest = text.partition(b"\n")
            if sign and rest.count(b"\n") >= 2 * int(count):
                break
            if len(text) >= min(stored, LONGEST):
                raise ValueError("the map of a file with holes is damaged")
            text += self._block()
        numbers = [int(item) for item in rest.split(b"\n")[: 2 * int(count)]]
        return entry._replace(extents=pairs(numbers)), stored - len(text)

    def _fill(self) -> int:
        """Read more behind what is there; return how many bytes."""
        if self._begin == self._end:
            self._begin = self._end = 0
        elif self._end == SIZE:
            rest = self._buffer[self._begin : self._end]
            self._buffer[: len(rest)] = rest
            self._begin, self._end = 0, len(rest)
        got = os.readv(self._descriptor, [self._view[self._end :]])
        self._end += got
        return got

    def _block(self) -> bytes:
        """Return the next block; empty at the end."""
        while self._end - self._begin < BLOCK:
            if not self._fill():
                if self._end > self._begin:
                    raise ValueError("the archive ends within a block")
                return b""
        self._begin += BLOCK
        return bytes(self._view[self._begin - BLOCK : self._begin])

    def _text(self, size: int) -> bytes:
        if size > LONGEST:
            raise ValueError(f"an extended header of {size} bytes is too long")
        return b"".join(map(bytes, self._content(size)))

    def _content(self, size: int) -> Content:
        """Yield the next bytes, and go over what fills their last block."""
        if size < 0:
            raise ValueError("the size of an entry is damaged")
        left = size + -size % BLOCK
        while left:
            if self._begin == self._end and not self._fill():
                raise ValueError("the archive ends within an entry")
            length = min(left, self._end - self._begin)
            begin = self._begin
            self._begin += length
            if size > 0:
                yield self._view[begin : begin + min(length, size)]
            left -= length
            size -= length

    def drain(self) -> None:
        """Read what is behind the end: the sender compares the digest of all of it."""
        while os.readv(self._descriptor, [self._view]):
            pass


def check(header: bytes) -> None:
    """Compare the checksum of a header: of all bytes, its own place taken as blanks.

    The lower half of Adler's sum is that sum, and zlib takes it quickly.

    Raises:
        ValueError: it does not fit; or the archive ended.
    """
    try:
        told = number(header[148:156])
    except (ValueError, IndexError):
        told = -1
    whole = zlib.adler32(header) & 0xFFFF
    own = zlib.adler32(header[148:156]) & 0xFFFF
    if told < 0 or (whole - own + 8 * 32 - told) % 65521:
        raise ValueError("a header of the archive is damaged")


def number(field: bytes) -> int:
    """Return a number: octal digits, or binary after a mark."""
    if field[0] in (0x80, 0xFF):
        rest = int.from_bytes(field[1:], "big")
        return rest if field[0] == 0x80 else rest - (1 << 8 * len(field[1:]))
    return int(field.partition(b"\0")[0].strip() or b"0", 8)


def records(text: bytes) -> Pairs:
    """Return what an extended header says.

    Raises:
        ValueError: it is damaged.
    """
    found: Pairs = {}
    at = 0
    while at < len(text) and text[at]:
        blank = text.index(b" ", at)
        end = at + int(text[at:blank])
        key, sign, value = text[blank + 1 : end - 1].partition(b"=")
        if not sign or end <= blank or end > len(text):
            raise ValueError("an extended header is damaged")
        if key in (_HOLES + b"offset", _HOLES + b"numbytes"):  # one after the other, many times
            key = _HOLES + b"map"
            value = found[key] + b"," + value if key in found else value
        if value or key.startswith(_XATTR):
            found[key] = value
        at = end
    return found


def pairs(numbers: list[int]) -> Extents:
    """Return positions and lengths.

    Raises:
        ValueError: they do not come in pairs, overlap, or lie before the beginning.
    """
    found = list(zip(numbers[::2], numbers[1::2], strict=True))
    position = 0
    for begin, length in found:
        if begin < position or length < 0:
            raise ValueError("the map of a file with holes is damaged")
        position = begin + length
    return found


def extents_of(fields: bytes, count: int) -> Extents:
    """Return the extents that are in a header, as GNU's tar wrote them first."""
    numbers = []
    for at in range(0, 24 * count, 24):
        if fields[at + 12 : at + 13].strip(b"\0"):
            numbers += [number(fields[at : at + 12]), number(fields[at + 12 : at + 24])]
    return pairs(numbers)


def parse(header: bytes, extended: Pairs) -> Entry:
    """Return the entry of a header.

    Args:
        header: checked.
        extended: what headers before it said, with precedence.

    Raises:
        ValueError: it is damaged.
    """
    kind = _KINDS[header[156]]
    name = header[:100].partition(b"\0")[0]
    if header[257:263] == b"ustar\0" and header[345]:
        name = header[345:500].partition(b"\0")[0] + b"/" + name
    link = header[157:257].partition(b"\0")[0]
    size = number(header[124:136])
    user, group = number(header[108:116]), number(header[116:124])
    modified = number(header[136:148]) * 1_000_000_000
    mode = number(header[100:108]) & 0o7777
    attributes: Pairs = {}
    extents = None
    if extended:
        name = extended.get(_HOLES + b"name") or extended.get(b"path") or name
        link = extended.get(b"linkpath") or link
        size = int(
            extended.get(_HOLES + b"realsize")
            or extended.get(_HOLES + b"size")
            or extended.get(b"size")
            or size
        )
        user, group = int(extended.get(b"uid") or user), int(extended.get(b"gid") or group)
        if b"mtime" in extended:
            modified = nanoseconds(extended[b"mtime"])
        attributes = {
            key[len(_XATTR) :]: value for key, value in extended.items() if key.startswith(_XATTR)
        }
        if _HOLES + b"map" in extended:
            extents = pairs([int(item) for item in extended[_HOLES + b"map"].split(b",")])
    if header[156] == 0 and name.endswith(b"/"):
        kind = FOLDER  # as it was before there was a type for it
    device = (0, 0)
    if kind in (CHARACTER, DEVICE):
        device = number(header[329:337]), number(header[337:345])
    return Entry(
        kind, name, link, mode, (user, group), modified, device, attributes, size, extents
    )  # fmt: skip


def nanoseconds(text: bytes) -> int:
    """Return a time that is told in seconds, with decimals or without.

    Raises:
        ValueError: it is no time.
    """
    whole, _, rest = text.partition(b".")
    moment = int(whole or b"0") * 1_000_000_000
    part = int(rest[:9].ljust(9, b"0"))
    return moment - part if whole.startswith(b"-") else moment + part
