"""Names inside users' networks: a DNS server at 127.0.0.11 of each sandbox.

The sockets are opened in the sandbox, on free ports, and a rule there leads port 53 of 127.0.0.11
to them; so a container may have a DNS server of its own on port 53. One thread serves all
sandboxes; what is not a container's name is forwarded to the resolvers of the host.
"""

from __future__ import annotations

import contextlib
import random
import selectors
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from pathlib import Path

import dnslib

from drivetrain.host import namespaces
from drivetrain.host.nft import Nft
from drivetrain_engine.networks.files import INSIDE

#: Seconds a forwarded question waits for an answer, at each server.
TIMEOUT = 3.0
TTL = 600
RULES = """
table ip engine-dns {{
  chain output {{ type nat hook output priority -105;
    ip daddr {inside} udp dport 53 dnat to {inside}:{udp}
    ip daddr {inside} tcp dport 53 dnat to {inside}:{tcp}
  }}
}}
"""


class Names:
    """What one sandbox may resolve.

    Attributes:
        find: returns the addresses of a name as texts, or ``None`` when it is no container's.
        reverse: returns the name of an address, or ``None``.
        forwarders: addresses of servers for everything else.
    """

    def __init__(
        self,
        find: Callable[[str], list[str] | None],
        reverse: Callable[[str], str | None],
        forwarders: list[str],
    ) -> None:
        self.find = find
        self.reverse = reverse
        self.forwarders = forwarders


class Resolver:
    """The servers of all sandboxes of this daemon."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._lock = threading.Lock()
        self._sockets: dict[str, list[socket.socket]] = {}
        self._pool = ThreadPoolExecutor(16, thread_name_prefix="dns")
        self._wake, self._woken = socket.socketpair()
        self._selector.register(self._woken, selectors.EVENT_READ, None)
        self._closed = False
        self._thread: threading.Thread | None = None

    def open(self, container_id: str, sandbox: Path, names: Names) -> None:
        """Serve a sandbox; one that is served already is served anew."""
        self.close_sandbox(container_id)

        def make() -> tuple[socket.socket, socket.socket]:
            udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            udp.bind((INSIDE, 0))
            tcp.bind((INSIDE, 0))
            tcp.listen(16)
            return udp, tcp

        udp, tcp = namespaces.run_in(sandbox, make)
        nft = Nft(sandbox)
        try:
            forget = "table ip engine-dns\ndelete table ip engine-dns\n"
            ports = {"udp": udp.getsockname()[1], "tcp": tcp.getsockname()[1]}
            nft.run(forget + RULES.format(inside=INSIDE, **ports))
        finally:
            nft.close()
        with self._lock:
            self._sockets[container_id] = [udp, tcp]
            self._selector.register(udp, selectors.EVENT_READ, (self._datagram, names))
            self._selector.register(tcp, selectors.EVENT_READ, (self._connection, names))
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="dns", daemon=True)
                self._thread.start()
        self._wake.send(b"x")

    def close_sandbox(self, container_id: str) -> None:
        """Stop serving a sandbox; an unknown one is fine."""
        with self._lock:
            for made in self._sockets.pop(container_id, []):
                with contextlib.suppress(KeyError, ValueError):
                    self._selector.unregister(made)
                made.close()

    def close(self) -> None:
        """Stop serving all."""
        self._closed = True
        for container_id in list(self._sockets):
            self.close_sandbox(container_id)
        self._wake.send(b"x")
        if self._thread is not None:
            self._thread.join(5)
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _serve(self) -> None:
        while not self._closed:
            for key, _ in self._selector.select():
                if key.data is None:
                    self._woken.recv(4096)
                    continue
                handler, names = key.data
                with contextlib.suppress(OSError, RuntimeError):
                    handler(key.fileobj, names)

    def _datagram(self, udp: socket.socket, names: Names) -> None:
        data, client = udp.recvfrom(4096)

        def answer(reply: bytes) -> None:
            with contextlib.suppress(OSError):
                udp.sendto(reply, client)

        self._question(data, names, answer, stream=False)

    def _connection(self, tcp: socket.socket, names: Names) -> None:
        connection, _ = tcp.accept()
        self._pool.submit(self._converse, connection, names)

    def _converse(self, connection: socket.socket, names: Names) -> None:
        with connection, contextlib.suppress(OSError):
            connection.settimeout(10)
            while data := _read_message(connection):
                done = threading.Event()

                def answer(reply: bytes, done: threading.Event = done) -> None:
                    with contextlib.suppress(OSError):
                        connection.sendall(len(reply).to_bytes(2, "big") + reply)
                    done.set()

                self._question(data, names, answer, stream=True)
                if not done.wait(4 * TIMEOUT):
                    return

    def _question(
        self, data: bytes, names: Names, answer: Callable[[bytes], None], *, stream: bool
    ) -> None:
        try:
            question = dnslib.DNSRecord.parse(data)
        except Exception:  # whatever a container sends must not end the server
            return
        local = _answer(question, names)
        if local is not None:
            answer(local)
        elif stream:
            answer(_forward(data, question, names.forwarders, stream=True))
        else:
            self._pool.submit(
                lambda: answer(_forward(data, question, names.forwarders, stream=False))
            )


def _read_message(connection: socket.socket) -> bytes:
    head = _read_exactly(connection, 2)
    return _read_exactly(connection, int.from_bytes(head, "big")) if head else b""


def _read_exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = connection.recv(size - len(data))
        if not more:
            return b""
        data += more
    return data


def _answer(question: dnslib.DNSRecord, names: Names) -> bytes | None:
    """Answer what is about containers; ``None``: it is not."""
    name = str(question.q.qname).rstrip(".").lower()
    reply = question.reply(aa=0, ra=1)
    kind = question.q.qtype
    if kind == dnslib.QTYPE.PTR:
        address = _reversed_address(name)
        found = names.reverse(address) if address else None
        if found is None:
            return None
        reply.add_answer(
            dnslib.RR(question.q.qname, dnslib.QTYPE.PTR, rdata=dnslib.PTR(f"{found}."), ttl=TTL)
        )
        return bytes(reply.pack())
    addresses = names.find(name)
    if addresses is None:
        return None
    chosen = [
        text
        for text in addresses
        if kind == (dnslib.QTYPE.A if ip_address(text).version == 4 else dnslib.QTYPE.AAAA)
    ]
    random.shuffle(chosen)
    for text in chosen:
        rdata = dnslib.A(text) if kind == dnslib.QTYPE.A else dnslib.AAAA(text)
        reply.add_answer(dnslib.RR(question.q.qname, kind, rdata=rdata, ttl=TTL))
    return bytes(reply.pack())


def _reversed_address(name: str) -> str:
    if name.endswith(".in-addr.arpa"):
        return ".".join(reversed(name.removesuffix(".in-addr.arpa").split(".")))
    if name.endswith(".ip6.arpa"):
        digits = "".join(reversed(name.removesuffix(".ip6.arpa").split(".")))
        groups = [digits[i : i + 4] for i in range(0, len(digits), 4)]
        with contextlib.suppress(ValueError):
            return str(ip_address(":".join(groups)))
    return ""


def _forward(data: bytes, question: dnslib.DNSRecord, servers: list[str], *, stream: bool) -> bytes:
    for server in servers:
        with contextlib.suppress(OSError):
            return _ask(data, server, stream=stream)
    reply = question.reply(aa=0, ra=1)
    reply.header.rcode = dnslib.RCODE.SERVFAIL
    return bytes(reply.pack())


def _ask(data: bytes, server: str, *, stream: bool) -> bytes:
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    kind = socket.SOCK_STREAM if stream else socket.SOCK_DGRAM
    with socket.socket(family, kind) as upstream:
        upstream.settimeout(TIMEOUT)
        upstream.connect((server, 53))
        if not stream:
            upstream.send(data)
            while True:
                reply = upstream.recv(65535)
                if reply[:2] == data[:2]:
                    return reply
        upstream.sendall(len(data).to_bytes(2, "big") + data)
        reply = _read_message(upstream)
        if not reply:
            raise OSError("the server closed the connection")
        return reply
