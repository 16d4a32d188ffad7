"""The headers of entries of a tar: ustar, and pax for what that cannot say.

:mod:`tarfile` makes the same ones in ten times the time.
"""

from __future__ import annotations

import zlib
from typing import NamedTuple

BLOCK = 512
FILE, LINK, SYMBOLIC, CHARACTER, DEVICE, FOLDER, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"
#: What the fields of a ustar header can hold.
_NAME, _ID, _SIZE = 100, 1 << 21, 1 << 33


class Member(NamedTuple):
    """What a header says.

    Attributes:
        name: without a slash in front.
        kind: ``FILE``, ``LINK``, …
        mode: permissions.
        owner: user and group.
        size: of the content, bytes.
        modified: nanoseconds.
        link: what a link leads to.
        device: major and minor number.
        attributes: extended ones.
    """

    name: bytes
    kind: bytes = FILE
    mode: int = 0o644
    owner: tuple[int, int] = (0, 0)
    size: int = 0
    modified: int = 0
    link: bytes = b""
    device: tuple[int, int] = (0, 0)
    attributes: tuple[tuple[bytes, bytes], ...] = ()


def header(member: Member) -> bytes:
    """Return the header of an entry, with one before it for what does not fit."""
    more = _more(member)
    seconds = member.modified // 1_000_000_000
    uid, gid = (number if number < _ID else 0 for number in member.owner)
    own = _ustar(
        member.name, member.kind, member.mode, uid, gid,
        member.size if member.size < _SIZE else 0, seconds if 0 <= seconds < _SIZE else 0,
        member.link, member.device,
    )  # fmt: skip
    if not more:
        return own
    text = b"".join(_record(key, value) for key, value in more)
    if not _is_text(text):
        text = _record(b"hdrcharset", b"BINARY") + text
    padding = bytes(-len(text) % BLOCK)
    return _ustar(b"././@PaxHeader", b"x", 0o644, 0, 0, len(text)) + text + padding + own


def _more(member: Member) -> list[tuple[bytes, bytes]]:
    """Return what the fields of the header cannot say."""
    more = []
    for key, text in ((b"path", member.name), (b"linkpath", member.link)):
        if len(text) > _NAME or not text.isascii():
            more.append((key, text))
    for key, number in zip((b"uid", b"gid"), member.owner, strict=True):
        if number >= _ID:
            more.append((key, b"%d" % number))
    if member.size >= _SIZE:
        more.append((b"size", b"%d" % member.size))
    seconds, rest = divmod(member.modified, 1_000_000_000)
    if rest or not 0 <= seconds < _SIZE:
        more.append((b"mtime", _decimal(member.modified)))
    more += [(b"SCHILY.xattr." + key, value) for key, value in member.attributes]
    return more


def _decimal(nanoseconds: int) -> bytes:
    whole, rest = divmod(abs(nanoseconds), 1_000_000_000)
    return (b"-" if nanoseconds < 0 else b"") + b"%d" % whole + (b".%09d" % rest if rest else b"")


def _record(key: bytes, value: bytes) -> bytes:
    """Return length, key, value and newline; the length counts its own digits."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    length = rest + len(str(length))
    return b"%d %s=%s\n" % (length, key, value)


def _is_text(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _ustar(
    name: bytes, kind: bytes, mode: int, uid: int, gid: int, size: int, seconds: int = 0,
    link: bytes = b"", device: tuple[int, int] = (0, 0),
) -> bytes:  # fmt: skip
    block = b"".join(
        (
            name[:_NAME].ljust(_NAME, b"\0"),
            b"%07o\0%07o\0%07o\0%011o\0%011o\0        " % (mode, uid, gid, size, seconds),
            kind,
            link[:_NAME].ljust(_NAME, b"\0"),
            b"ustar\x0000",
            bytes(64),
            b"%07o\0%07o\0" % device,
            bytes(167),
        )
    )
    # The lower half of Adler's sum is one more than the sum of so few bytes.
    total = (zlib.adler32(block[:256]) & 0xFFFF) + (zlib.adler32(block[256:]) & 0xFFFF) - 2
    return block[:148] + b"%06o\0 " % total + block[156:]
