"""Reading the files back: whole, the tail, since and until, and following."""

from __future__ import annotations

import gzip
import time
from collections import deque
from collections.abc import Iterator, Mapping
from typing import BinaryIO, cast

from drivetrain.log import LogQuery, Record
from drivetrain_log_local.files import LogFiles
from drivetrain_log_local.frames import Frame, backward, forward, valid_end

BLOCK = 1 << 20
#: Seconds between looks of a follow, at most.
PAUSE = 0.1


def read(
    files: LogFiles, query: LogQuery, attributes: Mapping[str, str] | None
) -> Iterator[Record]:
    """Yield what the query asks for, oldest first."""
    chosen = dict(attributes) if attributes else None
    source = _Source(files)
    try:
        if query.tail >= 0:
            yield from _tail(files, source, query, chosen)
        else:
            yield from _forward(source, query, chosen)
        while query.follow:
            ended = query.ended() or 0 < query.until < time.time_ns()
            yield from _forward(source, query, chosen)
            if ended or source.beyond:
                return
            query.wait(PAUSE)
    finally:
        source.close()


class _Source:
    """A place in the sequence of files, from which frames are read on."""

    def __init__(self, files: LogFiles) -> None:
        self._files = files
        self._file: BinaryIO | None = None
        self.number = 0
        self._data = b""
        self._start = 0
        #: A record after the query's ``until`` was seen.
        self.beyond = False

    def go_to(self, number: int, offset: int) -> None:
        """Go on in a file at an offset; it is opened when it is read."""
        self.close()
        self.number = number
        if self._open(number) and self._file is not None:
            self._file.seek(offset)

    def _open(self, number: int) -> bool:
        for path in (self._files.path(number), self._files.packed(number), None):
            try:
                if path is None:
                    return False
                opened = path.open("rb", buffering=0) if not path.suffix else gzip.open(path, "rb")
            except FileNotFoundError:
                # Compressed just now, or gone: the next look says which.
                continue
            self._file = cast("BinaryIO", opened)
            self.number = number
            self._data, self._start = b"", 0
            return True
        return False

    def next(self) -> tuple[bytes, Frame] | None:
        """Return the next frame, with the buffer it is in; ``None`` when there is none now."""
        while True:
            if self._file is None and not self._open_next():
                return None
            frame = forward(self._data, self._start)
            while frame is None and self._fill():
                frame = forward(self._data, self._start)
            if frame is not None:
                self._start = frame.end
                return self._data, frame
            if not any(number > self.number for number in self._files.numbers()):
                return None
            # Seen before the last read: nothing more is written to a file with a successor.
            if not self._fill():
                self.close()

    def _open_next(self) -> bool:
        return any(self._open(n) for n in self._files.numbers() if n > self.number)

    def _fill(self) -> bool:
        assert self._file is not None
        block = self._file.read(BLOCK)
        if block:
            self._data = self._data[self._start :] + block
            self._start = 0
        return bool(block)

    def close(self) -> None:
        """Free what is open."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _forward(
    source: _Source, query: LogQuery, attributes: dict[str, str] | None
) -> Iterator[Record]:
    while (found := source.next()) is not None:
        data, frame = found
        if frame.time < query.since:
            continue
        if query.until and frame.time > query.until:
            source.beyond = True
            continue
        yield from frame.records(data, attributes)


def _tail(
    files: LogFiles, source: _Source, query: LogQuery, attributes: dict[str, str] | None
) -> Iterator[Record]:
    """Yield the last lines that fit the query, and leave the source behind them."""
    kept: deque[list[Record]] = deque()
    wanted = query.tail
    open_streams: set[str] = set()
    place: tuple[int, int] | None = None
    for number in reversed(files.numbers()):
        data = _content(files, number)
        if data is None:
            continue
        end = valid_end(data)
        place = place or (number, end)
        while (wanted > 0 or open_streams) and (frame := backward(data, end)) is not None:
            end = frame.start
            if frame.time < query.since or (query.until and frame.time > query.until):
                continue
            wanted = _take(kept, frame, data, attributes, wanted, open_streams)
        if wanted <= 0 and not open_streams:
            break
    if place is not None:
        source.go_to(*place)
    for records in reversed(kept):
        yield from records


def _take(
    kept: deque[list[Record]],
    frame: Frame,
    data: bytes,
    attributes: dict[str, str] | None,
    wanted: int,
    open_streams: set[str],
) -> int:
    """Keep what a frame, seen from behind, adds to the tail; returns how many lines are missing."""
    if frame.piece:
        if frame.stream not in open_streams:
            if wanted <= 0:
                return wanted
            wanted -= 1
            open_streams.add(frame.stream)
        if frame.ordinal == 1:
            open_streams.discard(frame.stream)
        kept.append(frame.records(data, attributes))
    elif wanted > 0:
        records = frame.records(data, attributes)[-wanted:]
        wanted -= len(records)
        kept.append(records)
    return wanted


def _content(files: LogFiles, number: int) -> bytes | None:
    for _ in range(2):
        try:
            return files.path(number).read_bytes()
        except FileNotFoundError:
            pass
        try:
            with gzip.open(files.packed(number), "rb") as file:
                return file.read()
        except FileNotFoundError:
            continue
    return None
