"""Questions that are not about containers: asked of other servers, for a sandbox."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import dnslib

from drivetrain.host import namespaces

#: Seconds that each server has to answer.
TIMEOUT = 3.0
#: Questions under way at once, over all sandboxes; more wait for their turn.
LIMIT = 1024
_PORT = 53
#: Answers after which the next server is asked.
_UNUSABLE = (dnslib.RCODE.SERVFAIL, dnslib.RCODE.REFUSED)


@dataclass(frozen=True, slots=True)
class Forwarder:
    """A server to ask.

    Attributes:
        address: without a port.
        sandbox: ask from within that namespace, as for servers that the user chose for a
            container, which may be containers themselves; ``None``: from the host.
    """

    address: str
    sandbox: Path | None = None


async def forward(
    data: bytes, question: dnslib.DNSRecord, servers: Sequence[Forwarder], *, stream: bool
) -> bytes:
    """Ask one server after the other; return an answer in any case.

    Args:
        data: the question as it came.
        question: the same, parsed.
        servers: in the order to ask.
        stream: ask over TCP, as the client did.
    """
    unusable = b""
    for server in servers:
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(TIMEOUT):
                reply = await _ask(data, server, stream=stream)
            if len(reply) > 3 and reply[3] & 15 not in _UNUSABLE:
                return reply
            unusable = reply
    if unusable:
        return unusable
    reply = question.reply(aa=0, ra=1)
    reply.header.rcode = dnslib.RCODE.SERVFAIL
    return bytes(reply.pack())


async def _ask(data: bytes, server: Forwarder, *, stream: bool) -> bytes:
    family = socket.AF_INET6 if ":" in server.address else socket.AF_INET
    kind = socket.SOCK_STREAM if stream else socket.SOCK_DGRAM

    def make() -> socket.socket:
        return socket.socket(family, kind | socket.SOCK_NONBLOCK)

    loop = asyncio.get_running_loop()
    with make() if server.sandbox is None else namespaces.run_in(server.sandbox, make) as upstream:
        await loop.sock_connect(upstream, (server.address, _PORT))
        if stream:
            await loop.sock_sendall(upstream, len(data).to_bytes(2, "big") + data)
            size = int.from_bytes(await _exactly(loop, upstream, 2), "big")
            return await _exactly(loop, upstream, size)
        await loop.sock_sendall(upstream, data)
        while True:
            reply = await loop.sock_recv(upstream, 65535)
            if reply[:2] == data[:2]:
                return reply


async def _exactly(loop: asyncio.AbstractEventLoop, stream: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = await loop.sock_recv(stream, size - len(data))
        if not more:
            raise OSError("the server closed the connection")
        data += more
    return data
