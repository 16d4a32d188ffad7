"""The files of one log: the newest, and those that were rotated away."""

from __future__ import annotations

import gzip
import os
import shutil
from pathlib import Path

from drivetrain.log import LogContext
from drivetrain.options import Options


class LogFiles:
    """Where a container's log is.

    Args:
        context: whose log.
        options: parsed.
    """

    def __init__(self, context: LogContext, options: Options) -> None:
        self.path = context.directory / f"{context.container_id}-json.log"
        self._bound = options.integer("max-size")
        self._count = options.integer("max-file")
        self._compress = options.boolean("compress")
        self._descriptor = -1
        self._size = 0

    def open(self) -> None:
        """Append to the newest file; a line that a crash cut is ended first."""
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._descriptor = os.open(self.path, flags, 0o640)
        self._size = os.fstat(self._descriptor).st_size
        if self._size and os.pread(self._descriptor, 1, self._size - 1) != b"\n":
            os.write(self._descriptor, b"\n")
            self._size += 1

    def write(self, data: bytes) -> None:
        """Append lines, rotating before them when the file is full."""
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

    def _append(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            written = os.write(self._descriptor, view)
            self._size += written
            view = view[written:]

    def _rotate(self) -> None:
        self.close()
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
        elif self._compress:
            _gzip(self.numbered(1))
        self.open()

    def numbered(self, number: int) -> Path:
        """Return the path of a rotated file, uncompressed; 1 is the newest of them."""
        return self.path.with_name(f"{self.path.name}.{number}")

    def all(self) -> list[Path]:
        """Return the files that exist, oldest first."""
        found = [self.path]
        for number in range(1, max(self._count, 1)):
            plain = self.numbered(number)
            found += [plain, plain.with_name(plain.name + ".gz")]
        return [path for path in reversed(found) if path.exists()]

    def close(self) -> None:
        """Close the newest file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _gzip(path: Path) -> None:
    temporary = path.with_name(path.name + ".tmp")
    with path.open("rb") as source, gzip.open(temporary, "wb", compresslevel=6) as target:
        shutil.copyfileobj(source, target, 1 << 20)
    temporary.rename(path.with_name(path.name + ".gz"))
    path.unlink()
