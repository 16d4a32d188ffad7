"""Streams of a process in a container: what it writes goes to the log and to those attached."""

from __future__ import annotations

import fcntl
import os
import select
import socket
import time
from collections.abc import Callable

from drivetrain_engine.containers.shim.logpipe import LogStream

SMALL, LARGE = 4096, 256 << 10
PIPE_SIZE = 1 << 20
F_SETPIPE_SZ = 1031
#: Bytes that wait for a slow client; reading from the container pauses beyond.
CLIENT_BOUND = 4 << 20
#: Seconds without progress after which a stalled client is dropped.
STALLED = 60.0


def wide_pipe() -> tuple[int, int]:
    """Return a pipe that holds a megabyte, where the system allows it."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    try:
        fcntl.fcntl(writing, F_SETPIPE_SZ, PIPE_SIZE)
    except OSError:
        pass  # /proc/sys/fs/pipe-max-size or pipe-user-pages-soft: the default works as well
    return reading, writing


class Client:
    """One attached connection.

    Args:
        connection: non-blocking from now on.
        stdin, stdout, stderr: what the client wants.
        raw: no frames: the process has a terminal.
    """

    def __init__(
        self, connection: socket.socket, stdin: bool, stdout: bool, stderr: bool, raw: bool
    ) -> None:
        connection.setblocking(False)
        self.connection = connection
        self.stdin = stdin
        self.wants = (False, stdout, stderr)
        self.raw = raw
        self.buffer = bytearray()
        self.gone = False
        self.half_closed = False
        self.ending = False
        self._progress = time.monotonic()

    def write(self, stream: int, data: bytes) -> None:
        """Queue output of stream 1 or 2, and send what the client takes now."""
        if self.gone or not self.wants[stream]:
            return
        if not self.raw:
            self.buffer += bytes((stream, 0, 0, 0)) + len(data).to_bytes(4, "big")
        self.buffer += data
        self.flush()

    def flush(self) -> None:
        """Send what waits, without blocking."""
        while self.buffer and not self.gone:
            try:
                sent = self.connection.send(memoryview(self.buffer)[: 1 << 18])
            except BlockingIOError:
                if time.monotonic() - self._progress > STALLED:
                    self.gone = True
                return
            except OSError:
                self.gone = True
                return
            self._progress = time.monotonic()
            del self.buffer[:sent]
        self._progress = time.monotonic()
        if self.ending and not self.gone:
            self._shut()

    def end(self) -> None:
        """No more output comes: the client gets the end of the stream once it has read all."""
        self.ending = True
        self.flush()

    def _shut(self) -> None:
        try:
            self.connection.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        self.gone = True


class Output:
    """One descriptor that a process writes to, and where that goes.

    Args:
        descriptor: the reading end of a pipe, or a pty master.
        stream: 1 or 2.
        log: the way to the log; ``None``: it is not logged.
        clients: the process's clients; looked at anew for every read.
    """

    def __init__(
        self, descriptor: int, stream: int, log: LogStream | None, clients: list[Client]
    ) -> None:
        os.set_blocking(descriptor, False)
        self.descriptor = descriptor
        self.stream = stream
        self.open = True
        self._log = log
        self._clients = clients
        self._size = SMALL

    @property
    def paused(self) -> bool:
        """Whether a client, or a log that is to block, is so far behind that the process waits."""
        if self._log is not None and self._log.full is not None and self._log.full():
            return True
        return any(len(c.buffer) > CLIENT_BOUND for c in self._clients if not c.gone)

    def read(self) -> bool:
        """Read once and pass it on; false when there is nothing now or nothing will come."""
        try:
            data = os.read(self.descriptor, self._size)
        except BlockingIOError:
            return False
        except OSError:
            data = b""  # EIO: the last user of the terminal has gone
        if not data:
            self.close()
            return False
        pausing = len(data) < self._size
        if not pausing:
            self._size = min(self._size * 2, LARGE)
        if self._log is not None:
            self._log.feed(data, time.time_ns())
            if pausing and self._log.flush is not None:
                self._log.flush()
        for client in self._clients:
            client.write(self.stream, data)
        return True

    def drain(self) -> None:
        """Read what is there now: the process has ended, and wrote all of it before."""
        while self.open and self.read():
            pass
        self.close()

    def close(self) -> None:
        """Close the descriptor and log what had no newline."""
        if self.open:
            self.open = False
            os.close(self.descriptor)
            if self._log is not None:
                self._log.finish(time.time_ns())


class Input:
    """The writing end of a process's standard input, or its terminal.

    What clients send waits here while the process does not read.
    """

    BOUND = 1 << 20

    def __init__(self, descriptor: int, terminal: bool) -> None:
        os.set_blocking(descriptor, False)
        self.descriptor = descriptor
        self.terminal = terminal
        self.open = True
        self.buffer = bytearray()
        self._closing = False

    @property
    def full(self) -> bool:
        """Whether clients should wait."""
        return len(self.buffer) > self.BOUND

    def write(self, data: bytes) -> None:
        """Queue what a client sent, and write what fits now."""
        if self.open and not self._closing:
            self.buffer += data
            self.flush()

    def flush(self) -> None:
        """Write what waits, without blocking."""
        while self.buffer and self.open:
            try:
                written = os.write(self.descriptor, memoryview(self.buffer)[: 1 << 16])
            except BlockingIOError:
                return
            except OSError:
                self.buffer.clear()
                self._close()
                return
            del self.buffer[:written]
        if self._closing and self.open:
            self._close()

    def close(self) -> None:
        """End the input after what waits; on a terminal that is the end-of-file character."""
        if self.terminal:
            self.write(b"\x04")
            return
        self._closing = True
        self.flush()

    def _close(self) -> None:
        self.open = False
        if not self.terminal:
            os.close(self.descriptor)


class Loop:
    """poll(2) with a callback for each descriptor; a selector would cost more memory."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self._calls: dict[int, Callable[[int], None]] = {}
        self._masks: dict[int, int] = {}

    def watch(self, descriptor: int, mask: int, call: Callable[[int], None]) -> None:
        """Call ``call(events)`` when the descriptor is ready; a mask of 0 only sees its end."""
        if self._masks.get(descriptor) != mask:
            self._poll.register(descriptor, mask)
            self._masks[descriptor] = mask
        self._calls[descriptor] = call

    def forget(self, descriptor: int) -> None:
        """Stop watching."""
        if self._masks.pop(descriptor, None) is not None:
            self._poll.unregister(descriptor)
        self._calls.pop(descriptor, None)

    def once(self, timeout: float | None) -> bool:
        """Wait and call; false when nothing was ready within ``timeout`` seconds."""
        ready = self._poll.poll(None if timeout is None else timeout * 1000)
        for descriptor, events in ready:
            call = self._calls.get(descriptor)
            if call is not None:
                call(events)
        return bool(ready)
