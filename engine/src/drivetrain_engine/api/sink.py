"""From a thread that makes bytes to the loop that sends them, with backpressure."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterable

#: Bytes that may wait for the client before the thread has to.
WINDOW = 1 << 20


class Sink:
    """A bounded buffer between one thread and one coroutine.

    Neighbouring pieces that wait together arrive as one.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._condition = threading.Condition()
        self._ready = asyncio.Event()
        self._pieces: list[bytes] = []
        self._waiting = 0
        self._ended = False
        self._error: Exception | None = None
        self._signalled = False
        self.closed = False

    def put(self, data: bytes) -> bool:
        """Add bytes from the thread; blocks while too many wait. False: nobody wants them."""
        with self._condition:
            while self._waiting > WINDOW and not self.closed:
                self._condition.wait()
            if self.closed:
                return False
            self._pieces.append(data)
            self._waiting += len(data)
            self._signal()
        return True

    def finish(self, error: Exception | None = None) -> None:
        """Nothing more will come."""
        with self._condition:
            self._ended = True
            self._error = error
            self._signal()

    def close(self) -> None:
        """The receiver gives up: a blocked or later ``put`` returns false."""
        with self._condition:
            self.closed = True
            self._condition.notify_all()

    def _signal(self) -> None:
        if self._signalled:
            return
        self._signalled = True
        try:
            self._loop.call_soon_threadsafe(self._ready.set)
        except RuntimeError:  # the loop is closed: the daemon ends
            self.closed = True

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield what was put, until the end; raises what the source raised."""
        while True:
            await self._ready.wait()
            self._ready.clear()
            with self._condition:
                self._signalled = False
                pieces, self._pieces = self._pieces, []
                self._waiting = 0
                ended, error = self._ended, self._error
                self._condition.notify_all()
            if pieces:
                yield pieces[0] if len(pieces) == 1 else b"".join(pieces)
            if ended:
                if error is not None:
                    raise error
                return


def pump(source: Iterable[bytes], sink: Sink) -> None:
    """Move everything from an iterator into a sink; runs in a thread of its own."""
    error: Exception | None = None
    try:
        for piece in source:
            if piece and not sink.put(piece):
                break
    except Exception as raised:
        error = raised
    finally:
        close: Callable[[], None] | None = getattr(source, "close", None)
        try:
            if close is not None:
                close()
        except Exception as raised:
            error = error or raised
        sink.finish(error)


def start_pump(source: Iterable[bytes], loop: asyncio.AbstractEventLoop) -> Sink:
    """Start to move an iterator's pieces and return where they arrive."""
    sink = Sink(loop)
    threading.Thread(target=pump, args=(source, sink), name="api-stream", daemon=True).start()
    return sink
