"""The files of one log: the newest, and those that were rotated away."""

from __future__ import annotations

import os
import threading
import zlib
from pathlib import Path
from typing import NamedTuple

from drivetrain.log import LogContext
from drivetrain.options import Options

#: The limits of whoever sets none: a container's log must not fill the disk.
SIZE, COUNT = 20 << 20, 5
#: A good half of what level 6 saves, at a quarter of its time.
LEVEL = 3
#: Seconds that a close waits for a file that is being compressed; the next open does it anew.
PATIENCE = 4.0


class Limits(NamedTuple):
    """How large a file may be in bytes (0: no limit), and how many files there are."""

    size: int
    count: int

    @classmethod
    def of(cls, options: Options) -> Limits:
        """Return what options mean: ``max-size`` alone is one file, as in docker."""
        if "max-size" in options.given:
            size, count = options.integer("max-size"), 1
        else:
            size, count = SIZE, COUNT
        return cls(size, options.integer("max-file") if "max-file" in options.given else count)


class LogFiles:
    """Where a container's log is.

    Args:
        context: whose log.
        options: parsed.
    """

    def __init__(self, context: LogContext, options: Options) -> None:
        self.path = context.directory / f"{context.container_id}-json.log"
        self._bound, self._count = Limits.of(options)
        self._compress = options.boolean("compress")
        self._descriptor = -1
        self._size = 0
        self._packing: threading.Thread | None = None
        #: Lines of the last write that are in the files, also when it failed.
        self.written = 0

    def open(self) -> None:
        """Append to the newest file; a line that a crash cut is ended first."""
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._descriptor = os.open(self.path, flags, 0o640)
        self._size = os.fstat(self._descriptor).st_size
        if self._size and os.pread(self._descriptor, 1, self._size - 1) != b"\n":
            os.write(self._descriptor, b"\n")
            self._size += 1
        if self._compress:
            self._pack_old()

    def write(self, data: bytes) -> None:
        """Append lines, rotating before them when the file is full.

        Raises:
            OSError: no space; nothing of the lines is in the newest file.
        """
        self.written = 0
        if self._descriptor < 0:
            self.open()
        if self._bound and self._size >= self._bound:
            self._rotate()
        if self._bound and len(data) > self._bound:
            self._write_cut(data)
            return
        self._append(data)

    def _write_cut(self, data: bytes) -> None:
        """Write a batch that is larger than a file, line by line."""
        for line in data.splitlines(keepends=True):
            if self._size >= self._bound:
                self._rotate()
            self._append(line)
            self.written += 1

    def _append(self, data: bytes) -> None:
        try:
            written = os.write(self._descriptor, data)
            while written < len(data):
                written += os.write(self._descriptor, memoryview(data)[written:])
        except OSError:
            os.ftruncate(self._descriptor, self._size)
            raise
        self._size += len(data)

    def _rotate(self) -> None:
        if self._packing is not None:
            self._packing.join()
        for number in range(self._count - 1, 0, -1):
            older = self.numbered(number)
            newer = self.numbered(number - 1) if number > 1 else self.path
            for suffix in ("", ".gz"):
                older.with_name(older.name + suffix).unlink(missing_ok=True)
                source = newer.with_name(newer.name + suffix)
                if source.exists():
                    source.rename(older.with_name(older.name + suffix))
        if self._count == 1:
            self.path.unlink(missing_ok=True)
        os.close(self._descriptor)
        self._descriptor = -1
        self.open()

    def _pack_old(self) -> None:
        """Compress what is not yet, in a thread: the container does not wait for it."""
        plain = [self.numbered(number) for number in range(self._count - 1, 0, -1)]
        plain = [path for path in plain if path.exists()]
        if plain:
            self._packing = threading.Thread(target=_pack, args=(plain,), daemon=True)
            self._packing.start()

    def numbered(self, number: int) -> Path:
        """Return the path of a rotated file, uncompressed; 1 is the newest of them."""
        return self.path.with_name(f"{self.path.name}.{number}")

    def all(self) -> list[Path]:
        """Return the files that exist, oldest first."""
        found = [self.path] if self.path.exists() else []
        for number in range(1, max(self._count, 1)):
            plain = self.numbered(number)
            packed = plain.with_name(plain.name + ".gz")
            # For a moment there are both; the compressed one is whole.
            found += [path for path in (packed, plain) if path.exists()][:1]
        return found[::-1]

    def close(self) -> None:
        """Close the newest file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        if self._packing is not None:
            self._packing.join(PATIENCE)


def gzip_name(path: Path) -> bytes:
    """Return the name in the head of a file's compressed successor, by which followers find it."""
    return b"%d" % path.stat().st_ino


def _pack(paths: list[Path]) -> None:
    for path in paths:
        temporary = path.with_name(path.name + ".tmp")
        try:
            _gzip(path, temporary)
            temporary.rename(path.with_name(path.name + ".gz"))
            path.unlink()
        except OSError:
            # No space: it stays as it is.
            temporary.unlink(missing_ok=True)


def _gzip(source: Path, target: Path) -> None:
    """Compress as gzip does, with the number of the file as the name in the head (RFC 1952)."""
    packer = zlib.compressobj(LEVEL, wbits=-15)
    checksum = length = 0
    with source.open("rb", buffering=0) as reader, target.open("wb", buffering=0) as writer:
        writer.write(b"\x1f\x8b\x08\x08" + bytes(4) + b"\x00\x03" + gzip_name(source) + b"\0")
        while block := reader.read(1 << 18):
            checksum = zlib.crc32(block, checksum)
            length += len(block)
            writer.write(packer.compress(block))
        writer.write(packer.flush())
        tail = (checksum, length & 0xFFFFFFFF)
        writer.write(b"".join(number.to_bytes(4, "little") for number in tail))


def named_in_head(path: Path) -> int:
    """Return the number of the file that a compressed one was made of; 0: not by us."""
    with path.open("rb") as file:
        head = file.read(64)
    name = head[10:].partition(b"\0")[0]
    return int(name) if head[3:4] == b"\x08" and name.isdigit() else 0
