"""From the bytes that a container writes to the batches that log drivers take."""

from __future__ import annotations

import os
from collections.abc import Callable

from drivetrain.log import Batch, Partial, Stream

#: A line is cut into pieces of this many bytes, as docker does, unless the user sets another size.
LIMIT = 16 * 1024


class Splitter:
    """Cuts one stream into lines; the end of a chunk that is no line waits for the next.

    Args:
        stream: whose lines.
        write: takes each batch.
        limit: bytes of a line, or of a piece of a longer line.
    """

    def __init__(self, stream: Stream, write: Callable[[Batch], None], limit: int = LIMIT) -> None:
        self._stream = stream
        self._write = write
        self._limit = limit
        self._rest: list[bytes] = []
        self._size = 0
        self._partial: Partial | None = None
        self._time = 0

    def feed(self, data: bytes, now: int) -> None:
        """Take what was read at once, ``now`` in nanoseconds since 1970."""
        lines = data.split(b"\n")
        end = lines.pop()
        if lines:
            long = self._size + len(data) > self._limit
            if self._rest:
                self._rest.append(lines[0])
                lines[0] = self._take_rest()
            if self._partial is not None:
                self._end_line(lines.pop(0), now)
            if long and any(len(line) > self._limit for line in lines):
                self._cut_lines(lines, now)
            elif lines:
                self._write(Batch(self._stream, now, lines))
        if end:
            self._rest.append(end)
            self._size += len(end)
            if self._size > self._limit:
                self._cut_rest(now)

    def finish(self, now: int) -> None:
        """Write what has no newline, as a piece that is not the last: the container has ended."""
        rest = self._take_rest()
        if rest:
            self._piece(rest, now, last=False)

    def _take_rest(self) -> bytes:
        rest = b"".join(self._rest)
        self._rest.clear()
        self._size = 0
        return rest

    def _cut_rest(self, now: int) -> None:
        rest = self._take_rest()
        start = 0
        while len(rest) - start > self._limit:
            self._piece(rest[start : start + self._limit], now, last=False)
            start += self._limit
        self._rest.append(rest[start:])
        self._size = len(rest) - start

    def _cut_lines(self, lines: list[bytes], now: int) -> None:
        short: list[bytes] = []
        for line in lines:
            if len(line) <= self._limit:
                short.append(line)
                continue
            if short:
                self._write(Batch(self._stream, now, short))
                short = []
            self._end_line(line, now)
        if short:
            self._write(Batch(self._stream, now, short))

    def _end_line(self, line: bytes, now: int) -> None:
        start = 0
        while len(line) - start > self._limit:
            self._piece(line[start : start + self._limit], now, last=False)
            start += self._limit
        self._piece(line[start:], now, last=True)

    def _piece(self, piece: bytes, now: int, *, last: bool) -> None:
        if self._partial is None:
            self._time = now
            self._partial = Partial(os.urandom(32).hex(), 1, last)
        else:
            self._partial = Partial(self._partial.id, self._partial.ordinal + 1, last)
        self._write(Batch(self._stream, self._time, [piece], self._partial))
        if last:
            self._partial = None


class LogStream:
    """One stream on its way to all drivers.

    Args:
        splitters: one for each length of lines that drivers want.
        flush: called when output pauses; ``None``: no driver wants to know.
        full: whether the container has to wait; ``None``: never.
    """

    def __init__(
        self,
        splitters: list[Splitter],
        flush: Callable[[], None] | None = None,
        full: Callable[[], bool] | None = None,
    ) -> None:
        self._splitters = splitters
        self.flush = flush
        self.full = full
        #: Takes what was read at once, and the time.
        self.feed = splitters[0].feed if len(splitters) == 1 else self._feed

    def _feed(self, data: bytes, now: int) -> None:
        for splitter in self._splitters:
            splitter.feed(data, now)

    def finish(self, now: int) -> None:
        """The container has ended: write what has no newline."""
        for splitter in self._splitters:
            splitter.finish(now)
