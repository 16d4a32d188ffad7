"""Reading the outer tar of an archive from a stream, once, without a copy of its data.

Entry names are never used as paths on this host; they are only keys. Still a name that would
leave the archive is refused: whoever made it wanted something else than an image.
"""

from __future__ import annotations

import os
import posixpath
import struct
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

from drivetrain.errors import InvalidArgument
from drivetrain_engine.content.compression import Readable

_MAX_ENTRIES = 1 << 16
_BLOCK = 512


class _Forward:
    """What tarfile needs of a file, on a stream that only goes forward."""

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self._position = 0

    def tell(self) -> int:
        return self._position

    def read_some(self, size: int) -> bytes:
        data = self._stream.read(size)
        self._position += len(data)
        return data

    def read(self, size: int) -> bytes:
        data = self.read_some(size)
        while len(data) < size and (more := self.read_some(size - len(data))):
            data += more
        return data

    def seek(self, position: int) -> None:
        while self._position < position and self.read_some(min(position - self._position, 1 << 20)):
            pass


def entry_name(name: str) -> str:
    """Return the entry's name in plain form.

    Raises:
        InvalidArgument: it leads out of the archive.
    """
    plain = posixpath.normpath(name.lstrip("/") or ".")
    if plain == ".." or plain.startswith("../"):
        raise InvalidArgument(f"archive entry {name!r}: the path leads out of the archive")
    return plain


def entries(
    stream: Readable,
) -> Iterator[tuple[str, tarfile.TarInfo, Callable[[int], bytes]]]:
    """Yield plain name, header and a reader of the content of every entry, in order.

    The content is there until the next entry is asked for.

    Raises:
        InvalidArgument: no tar, or a damaged, truncated or hostile one; the entry is named.
    """
    forward = _Forward(stream)
    last = "the first one"
    count = 0
    try:
        with tarfile.TarFile(fileobj=cast("object", forward), mode="r") as tar:  # type: ignore[arg-type]
            while (member := tar.next()) is not None:
                name = entry_name(member.name)
                count += 1
                if count > _MAX_ENTRIES:
                    raise InvalidArgument(f"the archive has more than {_MAX_ENTRIES} entries")
                if member.issparse():
                    raise InvalidArgument(f"archive entry {name}: sparse files are not accepted")
                last = name
                tar.members.clear()  # type: ignore[attr-defined]
                yield name, member, _content(forward, name, member.size)
        # to the end: checksums of compressions come last, and a client may still be sending
        while forward.read_some(1 << 20):
            pass
    except tarfile.TarError as error:
        raise InvalidArgument(f"not a usable tar archive: {error}, at entry {last}") from error


def _content(forward: _Forward, name: str, size: int) -> Callable[[int], bytes]:
    left = size

    def read(wanted: int) -> bytes:
        nonlocal left
        if not left:
            return b""
        data = forward.read_some(min(wanted, left))
        if not data:
            raise InvalidArgument(f"archive entry {name}: the archive ends {left} bytes too early")
        left -= len(data)
        return data

    return read


def _number(field: bytes) -> int:
    if field[0] & 0x80:
        return int.from_bytes(field, "big", signed=True) + (1 << (8 * len(field) - 1))
    return int(field.strip(b"\0 ") or b"0", 8)


def check_tar(path: Path) -> int:
    """Walk the headers of a plain tar file without reading its data; return the entries.

    Raises:
        InvalidArgument: it is not a tar, or ends in the middle; the entry is named.
    """
    size = path.stat().st_size
    position = count = 0
    name = "the first one"
    descriptor = os.open(path, os.O_RDONLY)
    try:
        while position < size:
            header = os.pread(descriptor, _BLOCK, position)
            if header.count(0) == _BLOCK:
                break
            try:
                recorded = _number(header[148:156])
                length = _number(header[124:136])
            except (ValueError, IndexError):
                recorded = length = -1
            total = sum(header) - sum(header[148:156]) + 256
            fits = recorded == total or recorded == _signed_sum(header)
            if len(header) < _BLOCK or not fits:
                raise InvalidArgument(f"not a usable tar archive: bad header after entry {name}")
            name = header[:100].rstrip(b"\0").decode(errors="replace")
            if header[156:157] in b"123456":  # links, devices, directories, FIFOs: no data
                length = 0
            count += 1
            position += _BLOCK + -(-length // _BLOCK) * _BLOCK
        if position > size:
            raise InvalidArgument(f"archive entry {name}: the archive ends in the middle of it")
    finally:
        os.close(descriptor)
    return count


def _signed_sum(header: bytes) -> int:
    """Return the checksum as some old programs make it, with signed bytes."""
    if len(header) != _BLOCK:
        return -1
    return 256 + int(sum(struct.unpack("148b8x356b", header)))
