"""Compression of layers and archives: telling which it is, and inflating a stream.

gzip goes through ISA-L (about three times as fast as zlib), zstd through ``zstandard``; bzip2
and xz are the standard library's.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable
from typing import BinaryIO, Literal, Protocol, cast

import zstandard
from drivetrain.errors import InvalidArgument
from isal import igzip, isal_zlib

Compression = Literal["", "gzip", "zstd", "bzip2", "xz"]

#: What the inflaters raise on bad data.
INFLATE_ERRORS: tuple[type[Exception], ...] = (
    EOFError,
    OSError,
    ValueError,
    zlib.error,
    cast("type[Exception]", isal_zlib.error),
    lzma.LZMAError,
    zstandard.ZstdError,
)

MAGIC_LENGTH = 6
_MAGIC: tuple[tuple[bytes, Compression], ...] = (
    (b"\x1f\x8b\x08", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\x00", "xz"),
)
_MEDIA_SUFFIX: dict[Compression, str] = {"": "", "gzip": "+gzip", "zstd": "+zstd"}


class Readable(Protocol):
    """Anything with ``read(n)`` that returns the empty string at the end."""

    def read(self, size: int = -1, /) -> bytes:
        """Return up to ``size`` bytes."""
        ...


def detect(head: bytes) -> Compression:
    """Return the compression that data with these first bytes has; empty for none known."""
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return name
    return ""


def layer_media_type(compression: Compression) -> str:
    """Return the OCI media type of a layer.

    Raises:
        KeyError: OCI knows no such layers (bzip2, xz); they are stored inflated.
    """
    return "application/vnd.oci.image.layer.v1.tar" + _MEDIA_SUFFIX[compression]


def storable(compression: Compression) -> bool:
    """Tell whether OCI has a media type for layers compressed so."""
    return compression in _MEDIA_SUFFIX


def inflater(stream: Readable, compression: Compression) -> Readable:
    """Return a reader of the inflated content of ``stream``; several members are joined."""
    raw = cast(BinaryIO, stream)
    openers: dict[str, Callable[[], object]] = {
        "gzip": lambda: igzip.IGzipFile(fileobj=raw, mode="rb"),  # type: ignore[no-untyped-call]
        "zstd": lambda: _Zstd(stream),
        "bzip2": lambda: bz2.BZ2File(raw),
        "xz": lambda: lzma.LZMAFile(raw),
    }
    if not compression:
        return stream
    return cast(Readable, openers[compression]())


class _Zstd:
    """zstd frames one after the other; complains about a truncated one, as gzip does."""

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self._frame = zstandard.ZstdDecompressor(max_window_size=1 << 27).decompressobj()
        self._started = False

    def read(self, size: int = -1, /) -> bytes:
        """Return the next piece, of any length; ``size`` is only a wish."""
        while True:
            data = self._frame.unused_data if self._frame.eof else b""
            if self._frame.eof:
                decompressor = zstandard.ZstdDecompressor(max_window_size=1 << 27)
                self._frame = decompressor.decompressobj()
                self._started = False
            data = data or self._stream.read(1 << 16)
            if not data:
                if self._started:
                    raise EOFError("the zstd data ends in the middle")
                return b""
            self._started = True
            if piece := self._frame.decompress(data):
                return piece


class Peeked:
    """A stream whose first bytes were looked at."""

    def __init__(self, stream: Readable, length: int = MAGIC_LENGTH) -> None:
        self._stream = stream
        self._head = b""
        while len(self._head) < length and (more := stream.read(length - len(self._head))):
            self._head += more

    @property
    def head(self) -> bytes:
        """The bytes looked at that were not read yet."""
        return self._head

    def read(self, size: int = -1, /) -> bytes:
        """Return up to ``size`` bytes."""
        if not self._head:
            return self._stream.read(size)
        cut = len(self._head) if size < 0 else size
        data, self._head = self._head[:cut], self._head[cut:]
        if size < 0:
            data += self._stream.read()
        return data


def open_archive(stream: Readable) -> Readable:
    """Return the inflated content of an archive of any known compression."""
    peeked = Peeked(stream)
    return inflater(peeked, detect(peeked.head))


def corrupt(entry: str, compression: str, error: BaseException) -> InvalidArgument:
    """Return the error for data that does not inflate."""
    return InvalidArgument(f"archive entry {entry}: corrupt {compression or 'tar'} data: {error}")
