"""Names inside users' networks: a DNS server at 127.0.0.11 of each sandbox.

The sockets are opened in the sandbox, on free ports, and a rule there leads port 53 of 127.0.0.11
to them; so a container may have a DNS server of its own on port 53. One thread serves all
sandboxes and never waits for one question: what is not a container's name is forwarded, many at a
time.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import dnslib

from drivetrain.host import namespaces
from drivetrain.host.nft import Nft
from drivetrain_engine.networks import answers
from drivetrain_engine.networks.files import INSIDE
from drivetrain_engine.networks.forwarding import LIMIT, forward
from drivetrain_engine.networks.lookup import Names

log = logging.getLogger("engine.networks")

#: Seconds that a silent TCP client is kept.
IDLE = 10.0
#: Flushed, and not deleted and made anew: after a deletion the kernel lets whoever closes the
#: connection to nftables wait for a grace period, which is 3 to 20 ms of a container's start.
RULES = """
add table ip engine-dns
add chain ip engine-dns output {{ type nat hook output priority -105; }}
flush chain ip engine-dns output
add rule ip engine-dns output ip daddr {inside} udp dport 53 dnat to {inside}:{udp}
add rule ip engine-dns output ip daddr {inside} tcp dport 53 dnat to {inside}:{tcp}
"""


class Resolver:
    """The servers of all sandboxes of this daemon."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._names: dict[str, Names] = {}
        self._sockets: dict[str, list[socket.socket]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def open(self, container_id: str, sandbox: Path, names: Names) -> None:
        """Serve a sandbox; for one that is served already the names are replaced.

        Not at once with another call for the same sandbox.
        """
        with self._lock:
            self._names[container_id] = names
            if container_id in self._sockets:
                return
        udp, tcp = namespaces.run_in(sandbox, _sockets)
        self._lead(sandbox, udp, tcp)
        with self._lock:
            self._sockets[container_id] = [udp, tcp]
            loop = self._running()
        loop.call_soon_threadsafe(self._begin, loop, container_id, udp, tcp)

    @staticmethod
    def _lead(sandbox: Path, udp: socket.socket, tcp: socket.socket) -> None:
        nft = Nft(sandbox)
        try:
            ports = {"udp": udp.getsockname()[1], "tcp": tcp.getsockname()[1]}
            nft.run(RULES.format(inside=INSIDE, **ports))
        finally:
            nft.close()

    def _running(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = loop = asyncio.new_event_loop()
            self._limit = asyncio.Semaphore(LIMIT)
            self._thread = threading.Thread(target=loop.run_forever, name="dns", daemon=True)
            self._thread.start()
        return self._loop

    def close_sandbox(self, container_id: str) -> None:
        """Stop serving a sandbox; an unknown one is fine."""
        with self._lock:
            self._names.pop(container_id, None)
            made = self._sockets.pop(container_id, [])
            loop = self._loop
        if made and loop is not None:
            loop.call_soon_threadsafe(_end, loop, made)

    def close(self) -> None:
        """Stop serving all."""
        for container_id in list(self._sockets):
            self.close_sandbox(container_id)
        if self._loop is not None and self._thread is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(5)

    # In the thread

    def _begin(
        self, loop: asyncio.AbstractEventLoop, container_id: str, udp: socket.socket,
        tcp: socket.socket,
    ) -> None:  # fmt: skip
        if udp.fileno() < 0:
            return  # closed again meanwhile
        loop.add_reader(udp, self._datagrams, container_id, udp)
        loop.add_reader(tcp, self._connections, container_id, tcp)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _datagrams(self, container_id: str, udp: socket.socket) -> None:
        names = self._names.get(container_id)
        with contextlib.suppress(OSError):
            while names is not None:
                data, client = udp.recvfrom(4096)
                if (quick := _quick(data, names)) is not None:
                    udp.sendto(quick, client)
                    continue
                question = _parse(data)
                if question is None:
                    continue
                local = _answer(question, names, stream=False)
                if local is not None:
                    udp.sendto(local, client)
                else:
                    self._spawn(self._relay(udp, client, data, question, names))

    async def _relay(
        self, udp: socket.socket, client: Any, data: bytes, question: dnslib.DNSRecord, names: Names
    ) -> None:
        async with self._limit:
            reply = await forward(data, question, names.forwarders, stream=False)
        with contextlib.suppress(OSError):
            udp.sendto(reply, client)

    def _connections(self, container_id: str, tcp: socket.socket) -> None:
        names = self._names.get(container_id)
        with contextlib.suppress(OSError):
            connection, _ = tcp.accept()
            if names is None:
                connection.close()
            else:
                self._spawn(self._converse(connection, names))

    async def _converse(self, connection: socket.socket, names: Names) -> None:
        connection.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=connection)
        with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
            while True:
                async with asyncio.timeout(IDLE):
                    head = await reader.readexactly(2)
                    data = await reader.readexactly(int.from_bytes(head, "big"))
                question = _parse(data)
                if question is None:
                    break
                reply = _answer(question, names, stream=True)
                if reply is None:
                    async with self._limit:
                        reply = await forward(data, question, names.forwarders, stream=True)
                writer.write(len(reply).to_bytes(2, "big") + reply)
                await writer.drain()
        writer.close()


def _sockets() -> tuple[socket.socket, socket.socket]:
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    udp.bind((INSIDE, 0))
    tcp.bind((INSIDE, 0))
    tcp.listen(16)
    return udp, tcp


def _end(loop: asyncio.AbstractEventLoop, made: list[socket.socket]) -> None:
    for one in made:
        loop.remove_reader(one)
        one.close()


def _parse(data: bytes) -> dnslib.DNSRecord | None:
    """Return a question, or ``None``: whatever a container sends must not end the server."""
    try:
        question = dnslib.DNSRecord.parse(data)
    except Exception:
        return None
    return question if question.questions else None


def _quick(data: bytes, names: Names) -> bytes | None:
    try:
        return answers.quick(data, names)
    except Exception:
        log.exception("a name cannot be looked up")
        return None


def _answer(question: dnslib.DNSRecord, names: Names, *, stream: bool) -> bytes | None:
    try:
        return answers.answer(question, names, stream=stream)
    except Exception:
        log.exception("a name cannot be looked up")
        return None
