"""The files of one log: numbered, the last one growing, those before it compressed."""

from __future__ import annotations

import os
import threading
import zlib
from pathlib import Path

from drivetrain.log import Batch, LogContext
from drivetrain.options import Options
from drivetrain_log_local.frames import END, backward, pack, valid_end

#: A good half of what level 6 saves, at a quarter of its time.
LEVEL = 3
#: Seconds that a close waits for a file that is being compressed; the next open does it anew.
PATIENCE = 4.0


class LogFiles:
    """Where a container's log is.

    Args:
        context: whose log.
        options: parsed.
    """

    def __init__(self, context: LogContext, options: Options) -> None:
        self.folder = context.directory / "local"
        self._bound = options.integer("max-size")
        self._count = options.integer("max-file")
        self._compress = options.boolean("compress")
        self._descriptor = -1
        self._number = 0
        self._size = 0
        self._packing: threading.Thread | None = None

    def path(self, number: int) -> Path:
        """Return the path of a file, when it is not compressed."""
        return self.folder / f"{number:08}"

    def packed(self, number: int) -> Path:
        """Return the path of a file, when it is compressed."""
        return self.folder / f"{number:08}.gz"

    def numbers(self) -> list[int]:
        """Return the numbers of the files that exist, oldest first."""
        try:
            names = os.listdir(self.folder)
        except FileNotFoundError:
            return []
        return sorted({int(name[:8]) for name in names if name[:8].isdigit() and "tmp" not in name})

    def open(self) -> None:
        """Append to the newest file; a frame that a crash cut is taken away first."""
        self.folder.mkdir(mode=0o700, exist_ok=True)
        for left in self.folder.glob("*.tmp"):
            left.unlink()
        numbers = self.numbers()
        self._number = numbers[-1] if numbers else 1
        if self.packed(self._number).exists():
            self._number += 1
        self._begin()
        if self._size and not self._ends_well():
            self._size = valid_end(self.path(self._number).read_bytes())
            os.ftruncate(self._descriptor, self._size)
        self._pack_old()

    def _ends_well(self) -> bool:
        """Whether the last frame is whole, without reading all of the file."""
        ending = os.pread(self._descriptor, END.size, max(0, self._size - END.size))
        length = END.unpack(ending)[0] if len(ending) == END.size else 0
        if not 0 < length <= self._size:
            return False
        frame = os.pread(self._descriptor, length, self._size - length)
        return backward(frame, len(frame)) is not None

    def _begin(self) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._descriptor = os.open(self.path(self._number), flags, 0o640)
        self._size = os.fstat(self._descriptor).st_size

    def write(self, batch: Batch) -> None:
        """Append a batch; a new file is begun when this one is full.

        Raises:
            OSError: no space; nothing of the batch was written.
        """
        if self._size >= self._bound:
            self._rotate()
        frame = pack(batch)
        try:
            written = os.write(self._descriptor, frame)
            while written < len(frame):
                written += os.write(self._descriptor, memoryview(frame)[written:])
        except OSError:
            os.ftruncate(self._descriptor, self._size)
            raise
        self._size += len(frame)

    def _rotate(self) -> None:
        """Begin the next file, and let go of the oldest."""
        full = self._descriptor
        self._number += 1
        try:
            self._begin()
        except OSError:
            self._number -= 1
            raise
        os.close(full)
        for number in self.numbers()[: -self._count]:
            self.path(number).unlink(missing_ok=True)
            self.packed(number).unlink(missing_ok=True)
        self._pack_old()

    def _pack_old(self) -> None:
        """Compress what is not yet, in a thread: the container does not wait for it."""
        if not self._compress or (self._packing is not None and self._packing.is_alive()):
            return
        older = [number for number in self.numbers()[:-1] if self.path(number).exists()]
        if older:
            self._packing = threading.Thread(target=self._pack, args=(older,), daemon=True)
            self._packing.start()

    def _pack(self, numbers: list[int]) -> None:
        for number in numbers:
            temporary = self.folder / f"{number:08}.gz.tmp"
            try:
                _gzip(self.path(number), temporary)
                if self.path(number).exists():
                    temporary.rename(self.packed(number))
                    self.path(number).unlink(missing_ok=True)
            except OSError:
                # No space, or gone by rotation: it stays as it is.
                temporary.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the newest file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        if self._packing is not None:
            self._packing.join(PATIENCE)


def _gzip(source: Path, target: Path) -> None:
    packer = zlib.compressobj(LEVEL, wbits=31)
    with source.open("rb", buffering=0) as reader, target.open("wb", buffering=0) as writer:
        while block := reader.read(1 << 18):
            writer.write(packer.compress(block))
        writer.write(packer.flush())
