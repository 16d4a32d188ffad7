"""Records that wait on disk for a receiver: segments of frames, one writer, one reader.

The shim of a running container writes; whoever holds the lock reads: the shim, or the courier that
delivers for a container which has ended. They share nothing but the files::

    spool/fluentd/0000000000000007    segments, in order; each process begins a new one
    spool/fluentd/position            how far the reader is, four numbers of 8 bytes
    spool/fluentd/lock                flock(2) of the reader

A frame is a head and the lines, joined by newlines, which they cannot contain. A frame that a
crash cut is the last of its segment, and is skipped.
"""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path
from typing import NamedTuple

from drivetrain.log import Batch, Partial

#: Length of what follows the head, flags, time, number of lines, ordinal of a piece, its id.
_HEAD = struct.Struct("<IBQII32s")
#: Segment, offset in it, lines of the segment before the offset, lines done of the next frame.
_POSITION = struct.Struct("<QQQQ")
_STDERR, _PIECE, _LAST = 1, 2, 4
_NO_ID = bytes(32)
#: Bytes of a segment at least and at most; otherwise a sixteenth of the bound.
SEGMENT = (64 << 10, 8 << 20)
BLOCK = 1 << 20


class Position(NamedTuple):
    """How far the reader is."""

    segment: int = 0
    offset: int = 0
    lines: int = 0
    skip: int = 0


def pack(batch: Batch) -> bytes:
    """Return a batch as a frame."""
    body = b"\n".join(batch.lines)
    flags = _STDERR if batch.stream == "stderr" else 0
    ordinal, identity = 0, _NO_ID
    if batch.partial is not None:
        flags |= _PIECE | (_LAST if batch.partial.last else 0)
        ordinal, identity = batch.partial.ordinal, bytes.fromhex(batch.partial.id)
    return _HEAD.pack(len(body), flags, batch.time, len(batch.lines), ordinal, identity) + body


def _unpack(data: bytes, start: int) -> tuple[Batch, int] | None:
    """Return the frame at ``start`` and where it ends; ``None`` when it is not complete."""
    if len(data) - start < _HEAD.size:
        return None
    length, flags, time, count, ordinal, identity = _HEAD.unpack_from(data, start)
    begin = start + _HEAD.size
    if not count or len(data) - begin < length:
        return None
    lines = data[begin : begin + length].split(b"\n")
    partial = None
    if flags & _PIECE:
        partial = Partial(identity.hex(), ordinal, bool(flags & _LAST))
    stream = "stderr" if flags & _STDERR else "stdout"
    return Batch(stream, time, lines, partial), begin + length  # type: ignore[arg-type]


def _segments(folder: Path) -> list[int]:
    return sorted(int(entry) for entry in os.listdir(folder) if entry.isdigit())


def _name(folder: Path, number: int) -> str:
    return f"{folder}/{number:016}"


def _read_position(folder: Path) -> Position:
    try:
        data = (folder / "position").read_bytes()
    except FileNotFoundError:
        return Position()
    return Position(*_POSITION.unpack(data)) if len(data) == _POSITION.size else Position()


def waiting(folder: Path) -> int:
    """Return how many bytes of a spool are not delivered."""
    try:
        position, total = _read_position(folder), 0
        for number in _segments(folder):
            if number >= position.segment:
                total += os.stat(_name(folder, number)).st_size
                total -= position.offset if number == position.segment else 0
    except FileNotFoundError:
        return 0
    return max(0, total)


class Writer:
    """The end of a spool where records go in; the other lock in the folder is the writer's.

    Args:
        folder: of the spool; made when it is not there.
        bound: bytes that may wait.
    """

    def __init__(self, folder: Path, bound: int) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder
        self._lock = os.open(folder / "writing", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_SH)
        self._bound = bound
        self._size = min(max(bound // 16, SEGMENT[0]), SEGMENT[1])
        #: Bytes and lines of each segment that may still be there.
        self._segments = {number: self._counted(number) for number in _segments(folder)}
        position = _read_position(folder)
        self._current = max([*self._segments, position.segment])
        self._descriptor = -1
        self._waiting = 0
        self._measure()

    def _counted(self, number: int) -> list[int]:
        data = Path(_name(self._folder, number)).read_bytes()
        start = lines = 0
        while (frame := _unpack(data, start)) is not None:
            lines += len(frame[0].lines)
            start = frame[1]
        return [len(data), lines]

    @property
    def waiting(self) -> int:
        """Bytes that are not delivered, as of a moment ago; never too few."""
        return self._waiting

    def _measure(self) -> Position:
        """Count anew what is not delivered."""
        position = _read_position(self._folder)
        for number in [n for n in self._segments if n < position.segment]:
            del self._segments[number]
        total = sum(size for size, _ in self._segments.values())
        if position.segment in self._segments:
            total -= position.offset
        self._waiting = total
        return position

    def full(self, size: int = 0) -> bool:
        """Whether ``size`` more bytes are beyond the bound."""
        if self._waiting + size <= self._bound:
            return False
        self._measure()
        return self._waiting + size > self._bound

    def put(self, batch: Batch) -> None:
        """Append a batch.

        Raises:
            OSError: no space; nothing of it was written.
        """
        frame = pack(batch)
        if self._descriptor < 0 or self._segments[self._current][0] >= self._size:
            self._begin()
        entry = self._segments[self._current]
        try:
            written = os.write(self._descriptor, frame)
            while written < len(frame):
                written += os.write(self._descriptor, frame[written:])
        except OSError:
            os.ftruncate(self._descriptor, entry[0])
            raise
        entry[0] += len(frame)
        entry[1] += len(batch.lines)
        self._waiting += len(frame)

    def _begin(self) -> None:
        self._end_segment()
        number = self._current + 1
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._descriptor = os.open(_name(self._folder, number), flags, 0o600)
        self._current = number
        self._segments[number] = [0, 0]

    def drop_oldest(self) -> int:
        """Remove the oldest segment; returns how many lines were not delivered.

        The reader tells in ``rescued`` which of them it had in its hands.
        """
        position = self._measure()
        if not self._segments:
            return 0
        oldest = min(self._segments)
        lines = self._segments.pop(oldest)[1]
        if oldest == self._current:
            self._end_segment()
        Path(_name(self._folder, oldest)).unlink(missing_ok=True)
        self._waiting = sum(size for size, _ in self._segments.values())
        if oldest == position.segment:
            lines -= position.lines + position.skip
        return max(0, lines)

    def close(self) -> None:
        """Nothing more is written; what is there stays."""
        self._end_segment()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _end_segment(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class Reader:
    """The end of a spool where records come out: look with ``peek``, then say ``done``.

    Args:
        folder: of the spool; it exists.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = -1
        self._position = Position()
        self._place = -1
        self._descriptor = -1
        self._number = 0
        self._data = b""
        self._start = 0
        self._batch: Batch | None = None
        self._left = 0
        self._end = 0
        #: Lines that the writer counted as dropped while they were being delivered.
        self.rescued = 0

    def acquire(self) -> bool:
        """Become the only reader; false while there is another one."""
        lock = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return False
        self._lock = lock
        self._position = _read_position(self._folder)
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
        self._place = os.open(self._folder / "position", flags, 0o600)
        return True

    def peek(self) -> Batch | None:
        """Return the oldest batch, without the lines that are delivered; ``None``: nothing."""
        if self._batch is not None:
            return self._batch
        while True:
            if self._descriptor < 0 and not self._open():
                return None
            found = _unpack(self._data, self._start) or self._more()
            if found is None:
                if not self._next_exists():
                    return None
                # What came between our look and the writer's step into its next segment.
                found = self._more()
            if found is None:
                self._leave(remove=True)
                continue
            batch, self._end = found
            del batch.lines[: self._position.skip]
            self._batch, self._left = batch, len(batch.lines)
            return batch

    def _open(self) -> bool:
        numbers = [n for n in _segments(self._folder) if n >= self._position.segment]
        if not numbers:
            return False
        number = numbers[0]
        try:
            path = _name(self._folder, number)
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        if number != self._position.segment:
            self._position = Position(number)
            self._save()
        self._number = number
        self._data = b""
        self._start = 0
        return True

    def _more(self) -> tuple[Batch, int] | None:
        """Read on from where the next frame begins, and return it when it is complete."""
        size = BLOCK
        while True:
            self._data = os.pread(self._descriptor, size, self._position.offset)
            self._start = 0
            found = _unpack(self._data, 0)
            if found is not None or len(self._data) < size:
                return found
            size *= 2

    def _next_exists(self) -> bool:
        return any(number > self._number for number in _segments(self._folder))

    def done(self) -> None:
        """The batch is delivered."""
        if self._batch is None:
            return
        self.partly()
        position = self._position
        length = self._end - self._start
        lines = position.lines + position.skip + len(self._batch.lines)
        if os.fstat(self._descriptor).st_nlink == 0:
            self.rescued += len(self._batch.lines)
            self._leave(remove=False)
        else:
            self._start = self._end
            self._position = Position(position.segment, position.offset + length, lines)
            self._save()
        self._batch = None

    def partly(self) -> None:
        """The driver took lines away from the batch: those are delivered."""
        if self._batch is not None and len(self._batch.lines) != self._left:
            skip = self._position.skip + self._left - len(self._batch.lines)
            self._left = len(self._batch.lines)
            self._position = self._position._replace(skip=skip)
            self._save()

    def _leave(self, *, remove: bool) -> None:
        os.close(self._descriptor)
        self._descriptor = -1
        self._position = Position(self._number + 1)
        self._save()
        if remove:
            Path(_name(self._folder, self._number)).unlink(missing_ok=True)

    def _save(self) -> None:
        os.pwrite(self._place, _POSITION.pack(*self._position), 0)

    def close(self) -> None:
        """Let another reader go on. An empty spool of which nobody is the writer is removed."""
        if self._lock >= 0:
            self._tidy()
        for descriptor in (self._descriptor, self._place, self._lock):
            if descriptor >= 0:
                os.close(descriptor)
        self._descriptor = self._place = self._lock = -1

    def _tidy(self) -> None:
        try:
            writing = os.open(self._folder / "writing", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            fcntl.flock(writing, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not waiting(self._folder):
                for number in _segments(self._folder):
                    os.unlink(_name(self._folder, number))
        except (BlockingIOError, FileNotFoundError):
            return
        finally:
            os.close(writing)
