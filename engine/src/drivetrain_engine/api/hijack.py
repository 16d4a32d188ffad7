"""A connection taken over: attach and exec, raw bytes both ways.

Three peculiarities of clients are met here (measured, see docs/decisions):

- docker-py loses output that arrives together with the head of the answer, so nothing is sent
  before the peer has read the head, which a unix socket tells by SIOCOUTQ.
- The docker CLI closes its sending half on every ``run``; that ends the input, not the output.
- Closing a socket that holds unread input makes the kernel reset it, and the client loses the
  last output: after the end of the output the client's rest is read and discarded, for 2 s.
"""

from __future__ import annotations

import asyncio
import fcntl
import select
import socket
import struct
import termios
from collections.abc import Callable
from typing import Any

from drivetrain_engine.api.messages import Hijack
from drivetrain_engine.api.sink import start_pump

LINGER_SECONDS = 2.0
_HEAD_READ_SECONDS = 2.0


class HangupWatch:
    """Tells when a client that has closed its sending half goes away altogether.

    After a half-close a socket is readable for ever, so the loop no longer looks at it; epoll
    without any event reports only the hang-up.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._epoll = select.epoll()
        self._loop = loop
        self._callbacks: dict[int, Callable[[], None]] = {}
        loop.add_reader(self._epoll.fileno(), self._ready)

    def watch(self, fd: int, callback: Callable[[], None]) -> None:
        """Call ``callback`` once when the peer of ``fd`` is gone."""
        if fd not in self._callbacks:
            self._callbacks[fd] = callback
            self._epoll.register(fd, 0)

    def forget(self, fd: int) -> None:
        """Stop watching; before the descriptor is closed."""
        if self._callbacks.pop(fd, None) is not None:
            try:
                self._epoll.unregister(fd)
            except OSError:  # closed already
                pass

    def close(self) -> None:
        """Stop altogether."""
        if not self._epoll.closed:
            self._loop.remove_reader(self._epoll.fileno())
            self._epoll.close()

    def _ready(self) -> None:
        for fd, _ in self._epoll.poll(0):
            callback = self._callbacks.get(fd)
            self.forget(fd)
            if callback is not None:
                callback()


class DetachScanner:
    """Finds the keys that end an attachment in what the user types.

    Args:
        keys: the bytes, in order; empty: nothing ends it.
    """

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._matched = 0

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """Return what goes on to the container, and whether the keys were typed."""
        if not self._keys:
            return data, False
        out = bytearray()
        for byte in data:
            if byte == self._keys[self._matched]:
                self._matched += 1
                if self._matched == len(self._keys):
                    return bytes(out), True
                continue
            out += self._keys[: self._matched]
            self._matched = 1 if byte == self._keys[0] else 0
            if not self._matched:
                out.append(byte)
        return bytes(out), False


def unread_by_peer(fd: int) -> int:
    """Return how many bytes (and their overhead) the peer of a unix socket has not read."""
    return int(struct.unpack("i", fcntl.ioctl(fd, termios.TIOCOUTQ, b"\0\0\0\0"))[0])


async def head_read(connection: socket.socket) -> None:
    """Wait until the peer has read all that was sent, where the kernel can tell."""
    if connection.family != socket.AF_UNIX:
        return
    delay = 0.0001
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _HEAD_READ_SECONDS
    while loop.time() < deadline:
        try:
            if not unread_by_peer(connection.fileno()):
                return
        except (OSError, ValueError):  # closed meanwhile
            return
        await asyncio.sleep(delay)
        delay = min(delay * 2, 0.01)


class _Output(asyncio.Protocol):
    """What the container writes; it waits until the tunnel asks for it."""

    def __init__(self, tunnel: Tunnel) -> None:
        self._tunnel = tunnel

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.pause_reading()

    def data_received(self, data: bytes) -> None:
        self._tunnel.output(data)

    def eof_received(self) -> bool:
        self._tunnel.output_ended()
        return True

    def connection_lost(self, error: Exception | None) -> None:
        self._tunnel.output_ended()


class _Input(asyncio.Protocol):
    """What the container reads: a transport of its own over a duplicate of the socket.

    A failed write closes an asyncio transport at once, and a container that ends while its user
    types would cost the client the output that was not read yet.
    """

    def __init__(self, tunnel: Tunnel) -> None:
        self._tunnel = tunnel

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.pause_reading()

    def connection_lost(self, error: Exception | None) -> None:
        self._tunnel.resume_client()

    def pause_writing(self) -> None:
        self._tunnel.pause_client()

    def resume_writing(self) -> None:
        self._tunnel.resume_client()


class Tunnel:
    """The raw phase of one connection.

    Args:
        client: the client's transport, whose protocol hands everything on to this object.
        hijack: what the handler gave.
        run: runs blocking work in the pool.
    """

    def __init__(
        self,
        client: asyncio.Transport,
        hijack: Hijack,
        run: Callable[[Callable[[], object]], asyncio.Future[Any]],
    ) -> None:
        self._client = client
        self._hijack = hijack
        self._run = run
        self._scanner = DetachScanner(hijack.detach_keys)
        self._output: asyncio.Transport | None = None
        self._input: asyncio.Transport | None = None
        self._early = bytearray()
        self._input_ended = False
        self._client_writable = asyncio.Event()
        self._client_writable.set()
        self._ended = asyncio.Event()
        self._lost = False
        self._detached = False
        self._flowing = False

    async def serve(self) -> None:
        """Carry bytes until the output ends or the client is gone; then close both ends."""
        connection: socket.socket = self._client.get_extra_info("socket")
        try:
            if self._hijack.peer is not None:
                await self._open_peer(self._hijack.peer)
            await head_read(connection)
            if self._hijack.backlog is not None:
                await self._send_backlog()
            if self._output is not None and not self._lost:
                self._flowing = True
                if self._client_writable.is_set():
                    self._output.resume_reading()
                await self._ended.wait()
            if not self._lost:
                await self._client_writable.wait()
            if self._hijack.settled is not None and not self._lost and not self._detached:
                await self._run(self._hijack.settled)
        finally:
            for transport in (self._input, self._output):
                if transport is not None:
                    transport.abort()
            if self._output is None and self._hijack.peer is not None:
                self._hijack.peer.close()

    async def _open_peer(self, peer: socket.socket) -> None:
        peer.setblocking(False)
        loop = asyncio.get_running_loop()
        self._output, _ = await loop.connect_accepted_socket(lambda: _Output(self), peer)
        if not self._hijack.wants_input:
            return
        copy = peer.dup()
        self._input, _ = await loop.connect_accepted_socket(lambda: _Input(self), copy)
        # No await from here: what came early goes first, then the end of the input.
        if self._early:
            self._write_input(bytes(self._early))
            self._early.clear()
        if self._input_ended:
            self._end_input()

    async def _send_backlog(self) -> None:
        assert self._hijack.backlog is not None
        sink = start_pump(self._hijack.backlog, asyncio.get_running_loop())
        try:
            async for data in sink.pieces():
                if self._lost:
                    return
                self._client.write(data)
                await self._client_writable.wait()
        finally:
            sink.close()

    def input(self, data: bytes) -> None:
        """Bytes from the client."""
        if not self._hijack.wants_input or self._input_ended:
            return
        data, detached = self._scanner.feed(data)
        if self._input is not None:
            self._write_input(data)
        else:
            self._early += data
        if detached:
            self._detached = self._input_ended = True
            if self._hijack.on_detach is not None:
                self._run(self._hijack.on_detach)
            self.output_ended()

    def input_ended(self) -> None:
        """The client has closed its sending half."""
        if self._input_ended:
            return
        self._input_ended = True
        self._end_input()

    def _write_input(self, data: bytes) -> None:
        if self._input is not None and not self._input.is_closing():
            self._input.write(data)

    def _end_input(self) -> None:
        if self._input is not None and not self._input.is_closing():
            try:
                self._input.write_eof()
            except OSError:  # the container has gone first
                pass

    def output(self, data: bytes) -> None:
        """Bytes from the container."""
        if not self._client.is_closing():
            self._client.write(data)

    def output_ended(self) -> None:
        """Nothing more comes from the container."""
        self._ended.set()

    def client_lost(self) -> None:
        """The client's connection is gone."""
        self._lost = True
        self._client_writable.set()
        self._ended.set()

    def pause_output(self) -> None:
        """The client is slow."""
        self._client_writable.clear()
        if self._flowing and self._output is not None and not self._output.is_closing():
            self._output.pause_reading()

    def resume_output(self) -> None:
        """The client has caught up."""
        self._client_writable.set()
        if self._flowing and self._output is not None and not self._output.is_closing():
            self._output.resume_reading()

    def pause_client(self) -> None:
        """The container reads its input slowly."""
        if not self._client.is_closing():
            self._client.pause_reading()

    def resume_client(self) -> None:
        """The container has caught up."""
        if not self._client.is_closing():
            self._client.resume_reading()
