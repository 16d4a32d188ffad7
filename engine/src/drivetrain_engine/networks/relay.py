"""Connections to published ports that rules cannot lead to a container.

The kernel never routes from ``::1`` to another link, and rules do not translate between IP
versions. What so reaches the socket that holds a port is carried to the container from here; the
container then sees the host's address as the client's.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from dataclasses import dataclass, field
from typing import Any

#: Bytes read at once, and seconds that a silent UDP client is remembered.
_CHUNK, _IDLE = 65536, 60.0
_CONNECT = 10.0


@dataclass
class _Carried:
    """A held socket with what is under way on it."""

    target: tuple[str, int]
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    clients: dict[Any, socket.socket] = field(default_factory=dict)


class Relay:
    """Carries what arrives at held sockets; one thread for all."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._carried: dict[socket.socket, _Carried] = {}

    def start(self, held: socket.socket, target: tuple[str, int]) -> None:
        """Carry what arrives at a socket to a container's address and port."""
        if self._loop is None:
            self._loop = loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=loop.run_forever, name="relay", daemon=True)
            self._thread.start()
        held.setblocking(False)
        self._loop.call_soon_threadsafe(self._begin, held, target)

    def stop(self, held: socket.socket) -> None:
        """Carry no longer, and close the socket and its connections; it is closed on return."""
        if self._loop is None or self._loop.is_closed():
            held.close()
            return
        done = threading.Event()

        def work() -> None:
            self._end(held)
            done.set()

        self._loop.call_soon_threadsafe(work)
        done.wait(5)

    def close(self) -> None:
        """End the thread."""
        if self._loop is not None and self._thread is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(5)

    # In the thread

    def _begin(self, held: socket.socket, target: tuple[str, int]) -> None:
        carried = self._carried[held] = _Carried(target)
        stream = held.type == socket.SOCK_STREAM
        asyncio.get_running_loop().add_reader(
            held, self._accept if stream else self._datagrams, held, carried
        )

    def _end(self, held: socket.socket) -> None:
        carried = self._carried.pop(held, None)
        if carried is not None:
            asyncio.get_running_loop().remove_reader(held)
            for task in carried.tasks:
                task.cancel()
        held.close()

    def _spawn(self, carried: _Carried, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        carried.tasks.add(task)
        task.add_done_callback(carried.tasks.discard)

    def _accept(self, held: socket.socket, carried: _Carried) -> None:
        with contextlib.suppress(OSError):
            client, _ = held.accept()
            client.setblocking(False)
            self._spawn(carried, _connection(client, carried.target))

    def _datagrams(self, held: socket.socket, carried: _Carried) -> None:
        with contextlib.suppress(OSError):
            while True:
                data, client = held.recvfrom(_CHUNK)
                upstream = carried.clients.get(client)
                if upstream is None:
                    family = socket.AF_INET6 if ":" in carried.target[0] else socket.AF_INET
                    upstream = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
                    upstream.connect(carried.target)
                    carried.clients[client] = upstream
                    self._spawn(carried, _answers(held, client, upstream, carried))
                upstream.send(data)


async def _connection(client: socket.socket, target: tuple[str, int]) -> None:
    with client, contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(_CONNECT):
            reader, writer = await asyncio.open_connection(*target)
        there, back = await asyncio.open_connection(sock=client.dup())
        try:
            await asyncio.gather(_pump(reader, back), _pump(there, writer))
        finally:
            writer.close()
            back.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_CHUNK):
        writer.write(data)
        await writer.drain()
    writer.write_eof()


async def _answers(
    held: socket.socket, client: Any, upstream: socket.socket, carried: _Carried
) -> None:
    loop = asyncio.get_running_loop()
    with upstream, contextlib.suppress(OSError, TimeoutError):
        try:
            while True:
                async with asyncio.timeout(_IDLE):
                    data = await loop.sock_recv(upstream, _CHUNK)
                held.sendto(data, client)
        finally:
            carried.clients.pop(client, None)
