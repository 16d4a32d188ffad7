"""Compressed uploads."""

from __future__ import annotations

import bz2
import io
import lzma
from typing import IO, cast

from isal import igzip

from drivetrain_engine.api.messages import BodyReader

_GZIP = b"\x1f\x8b"
_BZIP2 = b"BZh"
_XZ = b"\xfd7zXZ\x00"


class _Source(io.RawIOBase):
    """A body with its first bytes given back."""

    def __init__(self, start: bytes, body: BodyReader) -> None:
        self._start = start
        self._body = body

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        size = len(buffer)
        data, self._start = self._start[:size], self._start[size:]
        if not data:
            data = self._body.read_some(size)
        buffer[: len(data)] = data
        return len(data)


def decompressed(body: BodyReader) -> IO[bytes]:
    """Return the body as a file, uncompressed if it is gzip, bzip2 or xz."""
    start = body.read(6)
    source = io.BufferedReader(_Source(start, body), 1 << 16)
    if start.startswith(_GZIP):
        return cast(IO[bytes], igzip.IGzipFile(fileobj=source, mode="rb"))  # type: ignore[no-untyped-call]
    if start.startswith(_BZIP2):
        return cast(IO[bytes], bz2.BZ2File(source))
    if start.startswith(_XZ):
        return cast(IO[bytes], lzma.LZMAFile(source))
    return source
