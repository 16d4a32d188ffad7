"""Compression of layers and archives: telling which it is, and inflating a stream.

gzip goes through ISA-L (about three times as fast as zlib), zstd through ``zstandard``; bzip2
and xz are the standard library's.
"""

from __future__ import annotations

import bz2
import io
import lzma
import zlib
from collections.abc import Callable
from typing import BinaryIO, Literal, Protocol, cast

import zstandard
from isal import igzip, isal_zlib

from drivetrain.errors import InvalidArgument

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
        self._frame = _zstd_frame()
        self._started = False
        self._rest = memoryview(b"")

    def read(self, size: int = -1, /) -> bytes:
        """Return up to ``size`` bytes."""
        if not self._rest:
            self._rest = memoryview(self._next())
        cut = len(self._rest) if size < 0 else size
        data, self._rest = bytes(self._rest[:cut]), self._rest[cut:]
        return data

    def _next(self) -> bytes:
        """Return the next inflated piece; empty at the end."""
        while True:
            data = b""
            if self._frame.eof:
                data = self._frame.unused_data
                self._frame = _zstd_frame()
                self._started = False
            data = data or self._stream.read(1 << 16)
            if not data:
                if self._started:
                    raise EOFError("the zstd data ends in the middle")
                return b""
            self._started = True
            if piece := self._frame.decompress(data):
                return piece


def _zstd_frame() -> zstandard.ZstdDecompressionObj:
    return zstandard.ZstdDecompressor(max_window_size=1 << 27).decompressobj()


class Joined(io.RawIOBase):
    """Some bytes that were read already, then those that a function returns."""

    def __init__(self, head: bytes, read: Callable[[int], bytes]) -> None:
        self._head = head
        self._more = read

    def readable(self) -> bool:
        """Return true."""
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        """Return up to ``size`` bytes; all to the end when negative."""
        if size is None or size < 0:
            return self.readall()
        if not self._head:
            return self._more(size)
        data, self._head = self._head[:size], self._head[size:]
        return data

    def readinto(self, buffer: bytearray | memoryview, /) -> int:  # type: ignore[override]
        """Fill the buffer with what there is."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def peek(read: Callable[[int], bytes], length: int) -> bytes:
    """Return the first bytes, fewer at the end only."""
    head = b""
    while len(head) < length and (more := read(length - len(head))):
        head += more
    return head


def open_archive(stream: Readable, name: str) -> Readable:
    """Return the inflated content of an archive of any known compression.

    Reading it raises InvalidArgument when the data is corrupt; ``name`` is for the message.
    """
    head = peek(stream.read, MAGIC_LENGTH)
    compression = detect(head)
    joined = Joined(head, stream.read)
    if not compression:
        return joined
    return _Checked(inflater(io.BufferedReader(joined, 1 << 16), compression), name, compression)


class _Checked:
    """A reader whose faults are told as faults of the archive."""

    def __init__(self, reader: Readable, name: str, compression: Compression) -> None:
        self._reader = reader
        self._name = name
        self._compression = compression

    def read(self, size: int = -1, /) -> bytes:
        """Return up to ``size`` bytes."""
        try:
            return self._reader.read(size)
        except INFLATE_ERRORS as error:
            raise corrupt(self._name, self._compression, error) from error


def corrupt(entry: str, compression: str, error: BaseException) -> InvalidArgument:
    """Return the error for data that does not inflate."""
    return InvalidArgument(f"{entry}: corrupt {compression or 'tar'} data: {error}")
