"""A small world of network namespaces, with real packets, for checks of network drivers.

::

    world (192.0.2.2, 2001:db8::2) ──eth0───uplink0── host (192.0.2.1, 2001:db8::1)
                                                       │ what the driver makes
                                                       ├── a container's sandbox
                                                       └── another one
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_address, ip_interface
from pathlib import Path
from typing import TypeVar

from drivetrain.host import namespaces
from drivetrain.host.netlink import Netlink
from drivetrain.network import Endpoint, Link, Sandbox

T = TypeVar("T")

UPLINK = "uplink0"
HOST4, WORLD4 = "192.0.2.1", "192.0.2.2"
HOST6, WORLD6 = "2001:db8::1", "2001:db8::2"
#: Seconds that something which should arrive may take, and that nothing is waited for.
PATIENCE, SILENCE = 15.0, 0.7
SCTP = 132


class Place:
    """A network namespace where programs of a check run.

    Attributes:
        path: a file to open for setns(2).

    Args:
        path: where the namespace is made.
        existing: it is there, and somebody else's to remove.
    """

    def __init__(self, path: Path, *, existing: bool = False) -> None:
        self.path = path
        self._existing = existing
        self._servers: list[Server] = []
        if not existing:
            namespaces.new_network_namespace(path)
            with Netlink(path) as inside:
                inside.set_link("lo", attributes={}, up=True)

    @property
    def sandbox(self) -> Sandbox:
        """The place as drivers have it."""
        return Sandbox(self.path)

    def run(self, func: Callable[[], T]) -> T:
        """Call ``func`` inside, in a thread of its own."""
        return namespaces.run_in(self.path, func)

    def netlink(self) -> Netlink:
        """Return a socket for the links inside; to be closed."""
        return Netlink(self.path)

    def serve(self, port: int = 80, *, kind: str = "tcp", address: str = "") -> Server:
        """Start a server that answers each client with the client's own address."""
        server = self.run(lambda: Server(kind, port, address))
        self._servers.append(server)
        server.start()
        return server

    def ask(self, address: str, port: int = 80, *, kind: str = "tcp", wait: float = 1.0) -> str:
        """Ask a server; the client's address as the server sees it, or nothing: no answer."""
        return self.run(lambda: _ask(kind, address, port, wait))

    def reaches(self, address: str, port: int = 80, *, kind: str = "tcp") -> str:
        """Ask until there is an answer, and return it.

        Raises:
            AssertionError: there is none.
        """
        deadline = time.monotonic() + PATIENCE
        while not (answer := self.ask(address, port, kind=kind)):
            assert time.monotonic() < deadline, f"no answer from {address} port {port}/{kind}"
            time.sleep(0.05)
        return answer

    def misses(self, address: str, port: int = 80, *, kind: str = "tcp") -> bool:
        """Tell that a server, which others reach, gives no answer here."""
        return not self.ask(address, port, kind=kind, wait=SILENCE)

    def pings(self, address: str, wait: float = PATIENCE) -> bool:
        """Tell whether an ICMP echo request is answered."""
        return self.run(lambda: _ping(address, wait))

    def close(self) -> None:
        """End the servers and let go of the namespace; may be called twice."""
        for server in self._servers:
            server.close()
        self._servers.clear()
        if not self._existing:
            namespaces.remove_network_namespace(self.path)


class Server:
    """A server on one socket, made in the namespace of the thread that constructs it."""

    def __init__(self, kind: str, port: int, address: str) -> None:
        self.kind = kind
        self.clients: list[str] = []
        family = socket.AF_INET if address and ":" not in address else socket.AF_INET6
        self._socket = _socket(family, kind)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        self._socket.bind((address or "::", port))
        if kind != "udp":
            self._socket.listen(16)
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            while True:
                if self.kind == "udp":
                    _, client = self._socket.recvfrom(2048)
                    if client is None:
                        return  # shut down
                    self._socket.sendto(self._note(client), client)
                    continue
                connection, client = self._socket.accept()
                with connection:
                    connection.sendall(self._note(client))

    def _note(self, client: tuple[str, int]) -> bytes:
        text = client[0].removeprefix("::ffff:")
        self.clients.append(text)
        return text.encode()

    def close(self) -> None:
        """Stop; may be called twice."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


def _socket(family: int, kind: str) -> socket.socket:
    if kind == "udp":
        return socket.socket(family, socket.SOCK_DGRAM)
    return socket.socket(family, socket.SOCK_STREAM, SCTP if kind == "sctp" else 0)


def _ask(kind: str, address: str, port: int, wait: float) -> str:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with _socket(family, kind) as client, contextlib.suppress(OSError):
        client.settimeout(wait)
        client.connect((address, port))
        if kind == "udp":
            client.send(b"?")
        return client.recv(2048).decode()
    return ""


def _ping(address: str, wait: float) -> bool:
    six = ":" in address
    family, protocol = (socket.AF_INET6, 58) if six else (socket.AF_INET, 1)
    request, reply = (128, 129) if six else (8, 0)
    token = os.urandom(8)
    body = struct.pack("!BBHHH", request, 0, 0, os.getpid() & 0xFFFF, 1) + token
    if not six:  # for ICMPv6 the kernel fills the checksum in
        body = body[:2] + struct.pack("!H", _checksum(body)) + body[4:]
    with socket.socket(family, socket.SOCK_RAW, protocol) as raw:
        deadline = time.monotonic() + wait
        while time.monotonic() < deadline:
            raw.settimeout(0.3)
            try:
                raw.sendto(body, (address, 0))
                while True:
                    data = raw.recv(2048)
                    data = data if six else data[(data[0] & 15) * 4 :]
                    if data[0] == reply and data[8:] == token:
                        return True
            except TimeoutError:
                continue
            except OSError as error:
                if error.errno not in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EPERM):
                    raise
                time.sleep(0.05)
    return False


def _checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def configure(place: Place, endpoint: Endpoint, link: Link) -> None:
    """Set a joined link up in its sandbox, as the engine does."""
    if not link.name:
        return
    with place.netlink() as inside:
        if not link.in_sandbox:
            with Netlink() as host, open(place.path) as handle:
                host.set_link(link.name, attributes={"IFLA_NET_NS_FD": handle.fileno()})
            if link.name != endpoint.interface:
                inside.set_link(link.name, attributes={"IFLA_IFNAME": endpoint.interface})
            if endpoint.mac:
                attributes = {"IFLA_ADDRESS": endpoint.mac}
                inside.set_link(endpoint.interface, attributes=attributes)
        if link.mtu:
            inside.set_link(endpoint.interface, attributes={"IFLA_MTU": link.mtu})
        place.run(lambda: _set_sysctls(endpoint.interface, dict(link.sysctls)))
        inside.configure(
            endpoint.interface,
            addresses=link.addresses or endpoint.addresses,
            gateways=[g for g in link.gateways if g.version in endpoint.gateway_for],
            routes=[(route.destination, route.gateway) for route in link.routes],
            default_on_link=link.default_route_on_link,
        )


def _set_sysctls(interface: str, values: dict[str, str]) -> None:
    for name, value in values.items():
        parts = [part.replace("IFNAME", interface) for part in name.split(".")]
        Path("/proc/sys", *parts).write_text(value)


class Lab:
    """A host with an uplink to the world outside.

    Args:
        root: a directory for the files of namespaces.
        host: the namespace of a host that is there already.
    """

    def __init__(self, root: Path, host: Path | None = None) -> None:
        self._root = root
        self._places: list[Place] = []
        self.host = self.place("host") if host is None else Place(host, existing=True)
        self.world = self.place("world")
        with self.host.netlink() as near, self.world.netlink() as far:
            near.veth(UPLINK, "eth0", namespace=self.world.path)
            for inside, name, texts in (
                (near, UPLINK, (f"{HOST4}/24", f"{HOST6}/64")),
                (far, "eth0", (f"{WORLD4}/24", f"{WORLD6}/64")),
            ):
                inside.configure(name, addresses=[ip_interface(text) for text in texts])

    def place(self, name: str) -> Place:
        """Return a new namespace, which goes with the lab."""
        made = Place(self._root / name)
        self._places.append(made)
        return made

    def route_from_world(self, prefix: str) -> None:
        """Have the world send packets for a network of containers to the host."""
        destination = ip_interface(prefix).network
        gateway = ip_address(HOST6 if destination.version == 6 else HOST4)
        with self.world.netlink() as world:
            version = destination.version
            world.add_route(world.index("eth0"), destination, gateway, version=version)

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Have the calling thread on the host for the length of a ``with``."""
        with namespaces.inside(self.host.path):
            yield

    def links(self) -> set[str]:
        """Return the names of the host's links."""
        with self.host.netlink() as host:
            return {link.name for link in host.links()}

    def traces(self) -> set[str]:
        """Return what the host has of links, addresses, routes and rules, to compare."""
        from drivetrain.host.nft import Nft

        with self.host.netlink() as host:
            names = {link.index: link.name for link in host.links()}
            found = {f"link {link.name} {link.kind}" for link in host.links()}
            found |= {f"address {names[i]} {address}" for i, address in host.addresses()
                      if not address.ip.is_link_local}  # fmt: skip
            found |= {f"route {prefix} {names.get(index)}" for prefix, index in host.routes()
                      if not prefix.is_link_local and not prefix.is_multicast}  # fmt: skip
        nft = Nft(self.host.path)
        try:
            found |= {f"rule {line.strip()}" for line in nft.run("list ruleset").splitlines()}
        finally:
            nft.close()
        return found

    def close(self) -> None:
        """End everything."""
        for place in reversed(self._places):
            place.close()
