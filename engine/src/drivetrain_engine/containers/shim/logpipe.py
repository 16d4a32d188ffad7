"""From the bytes that a container writes to the batches that a log driver takes."""

from __future__ import annotations

import collections
import os
import sys
import threading
import time
from collections.abc import Callable

from drivetrain.errors import EngineError, Exhausted, Unavailable
from drivetrain.log import Batch, LogHooks, LogTraits, Partial, Stream

#: A line is cut into pieces of this many bytes, as docker does.
LIMIT = 16 * 1024
#: Bytes that wait for a receiver that is down, in blocking mode.
WAITING = 8 << 20
#: Seconds that the end of a container waits for a receiver that is down.
FAREWELL = 5.0


class Splitter:
    """Cuts one stream into lines; the end of a chunk that is no line waits for the next."""

    def __init__(self, stream: Stream, write: Callable[[Batch], None]) -> None:
        self._stream = stream
        self._write = write
        self._rest = b""
        self._partial: Partial | None = None
        self._time = 0

    def feed(self, data: bytes, now: int) -> None:
        """Take what was read at once, ``now`` in nanoseconds since 1970."""
        if self._rest:
            data = self._rest + data
        lines = data.split(b"\n")
        self._rest = lines.pop()
        if self._partial is not None and lines:
            self._end_line(lines.pop(0), now)
        if len(data) > LIMIT and any(len(line) > LIMIT for line in lines):
            self._cut_lines(lines, now)
        elif lines:
            self._write(Batch(self._stream, now, lines))
        while len(self._rest) >= LIMIT:
            self._piece(self._rest[:LIMIT], now, last=False)
            self._rest = self._rest[LIMIT:]

    def finish(self, now: int) -> None:
        """Write what has no newline: the container has ended."""
        if self._partial is not None:
            self._end_line(self._rest, now)
        elif self._rest:
            self._write(Batch(self._stream, now, [self._rest]))
        self._rest = b""

    def _cut_lines(self, lines: list[bytes], now: int) -> None:
        for line in lines:
            if len(line) <= LIMIT:
                self._write(Batch(self._stream, now, [line]))
            else:
                self._end_line(line, now)

    def _end_line(self, line: bytes, now: int) -> None:
        while len(line) > LIMIT:
            self._piece(line[:LIMIT], now, last=False)
            line = line[LIMIT:]
        self._piece(line, now, last=True)

    def _piece(self, piece: bytes, now: int, *, last: bool) -> None:
        if self._partial is None:
            self._time = now
            self._partial = Partial(os.urandom(32).hex(), 1, last)
        else:
            self._partial = Partial(self._partial.id, self._partial.ordinal + 1, last)
        self._write(Batch(self._stream, self._time, [piece], self._partial))
        if last:
            self._partial = None


class LogPipe:
    """Gives batches to a driver; an error of the driver never reaches the container.

    A local driver in blocking mode is called at once. Otherwise batches wait in memory, the
    oldest go when they are too many, and a thread gives them to the driver, again and again while
    the receiver is down.

    Args:
        driver: opened already.
        traits: the driver's.
        blocking: the mode that the user chose.
        bound: bytes that wait at most in non-blocking mode.
    """

    def __init__(self, driver: LogHooks, traits: LogTraits, blocking: bool, bound: int) -> None:
        self._call = driver
        self._direct = blocking and not traits.remote
        self._bound = WAITING if blocking else bound
        self._waiting: collections.deque[Batch] = collections.deque()
        self._size = 0
        self._changed = threading.Condition()
        self._ending = False
        self._thread: threading.Thread | None = None
        self._complained = 0.0
        #: Lines that were given up.
        self.dropped = 0

    def write(self, batch: Batch) -> None:
        """Take a batch."""
        if not self._direct:
            self._enqueue(batch)
            return
        try:
            self._call.log_write(batch)
        except Exception as error:
            self.dropped += len(batch.lines)
            self._complain(error)

    def flush(self) -> None:
        """Output pauses."""
        if self._direct:
            try:
                self._call.log_flush()
            except Exception as error:
                self._complain(error)

    def close(self) -> None:
        """Write what waits, within a few seconds, and close the driver."""
        if self._thread is not None:
            with self._changed:
                self._ending = True
                self._changed.notify()
            self._thread.join(FAREWELL)
            with self._changed:
                self.dropped += sum(len(batch.lines) for batch in self._waiting)
        try:
            self._call.log_close()
        except Exception as error:
            self._complain(error)

    def _enqueue(self, batch: Batch) -> None:
        size = sum(map(len, batch.lines)) + 64 * len(batch.lines)
        with self._changed:
            self._waiting.append(batch)
            self._size += size
            while self._size > self._bound and len(self._waiting) > 1:
                self._drop_oldest()
            self._changed.notify()
        if self._thread is None:
            self._thread = threading.Thread(target=self._deliver, daemon=True)
            self._thread.start()

    def _drop_oldest(self) -> None:
        oldest = self._waiting.popleft()
        self._size -= sum(map(len, oldest.lines)) + 64 * len(oldest.lines)
        self.dropped += len(oldest.lines)

    def _deliver(self) -> None:
        pause = 0.1
        while True:
            with self._changed:
                while not self._waiting:
                    if self._ending:
                        return
                    self._changed.wait()
                batch = self._waiting[0]
                size = sum(map(len, batch.lines)) + 64 * len(batch.lines)
            try:
                self._call.log_write(batch)
                pause = 0.1
            except (Unavailable, Exhausted) as error:
                self._complain(error)
                with self._changed:
                    # Not for longer at the end: the container's exit waits for us.
                    self._changed.wait(0.1 if self._ending else pause)
                pause = min(pause * 2, 5.0)
                continue
            except Exception as error:
                self._complain(error)
                with self._changed:
                    self.dropped += len(batch.lines)
            with self._changed:
                if self._waiting and self._waiting[0] is batch:
                    self._waiting.popleft()
                    self._size -= size

    def _complain(self, error: Exception) -> None:
        """Say it on the daemon's log, but not for every line."""
        now = time.monotonic()
        if now - self._complained > 10:
            self._complained = now
            kind = "" if isinstance(error, EngineError) else f"{type(error).__name__}: "
            try:
                print(f"log driver: {kind}{error}", file=sys.stderr, flush=True)
            except (OSError, ValueError):
                # Nobody reads the daemon's output any more; the container goes on.
                return
