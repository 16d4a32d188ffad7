"""A local network for tests: a host with an interface, and another machine on the other side.

Both are network namespaces, joined by a veth pair: ``eth0`` on the host is what networks get as
their parent; ``far`` is the other machine's end. Containers are namespaces too, which are set up
from a driver's :class:`~drivetrain.network.Link` as the engine does it; tests of the whole engine
use the lan alone.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
import socket
import struct
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from drivetrain.calling import Driver
from drivetrain.host import namespaces
from drivetrain.host.netlink import Netlink
from drivetrain.network import Endpoint, Link, Network, NetworkState, Sandbox, Subnet
from drivetrain.options import parse_options
from drivetrain.registry import Registry

T = TypeVar("T")
SOL_PACKET, PACKET_AUXDATA = 263, 8


def in_namespace(
    netns: Path, *command: str, check: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run a command in a network namespace."""
    done = subprocess.run(
        ["nsenter", f"--net={netns}", *command], capture_output=True, text=True, timeout=60
    )
    assert not check or done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
    return done


def pings(netns: Path, target: str, tries: int = 3) -> bool:
    """Whether ``target`` answers; a second of patience a try."""
    command = ("busybox", "ping", "-c", "1", "-W", "1", target)
    return any(in_namespace(netns, *command, check=False).returncode == 0 for _ in range(tries))


class Lan:
    """The two machines; leaving the context removes them.

    Args:
        host: the namespace of the host; ``None``: a new one.
        gateway: what the other machine has as addresses.
    """

    def __init__(self, host: Path | None = None, *gateway: str) -> None:
        token = secrets.token_hex(4)
        self.root = Path(tempfile.mkdtemp(prefix="lan-", dir="/tmp"))
        self._own: list[Path] = []
        self.host = host or self.namespace(f"host-{token}")
        self.other = self.namespace(f"other-{token}")
        with Netlink(self.host) as near, Netlink(self.other) as far:
            near.veth("eth0", "far", namespace=self.other, peer_up=True)
            far.set_link("lo", attributes={}, up=True)
            near.set_link("lo", attributes={}, up=True)
            far.add_addresses(far.index("far"), [ip_interface(text) for text in gateway])

    def namespace(self, name: str) -> Path:
        """Make a namespace that goes with the lan."""
        path = self.root / name
        namespaces.new_network_namespace(path)
        self._own.append(path)
        return path

    def __enter__(self) -> Lan:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for path in self._own:
            namespaces.remove_network_namespace(path)
        shutil.rmtree(self.root)

    def sniff(self) -> socket.socket:
        """Return a socket that gets every frame which the other machine sees."""

        def work() -> socket.socket:
            opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
            opened.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
            opened.bind(("far", 0))
            opened.settimeout(10)
            return opened

        return namespaces.run_in(self.other, work)


def vlan(lan: Lan, number: int, *addresses: str) -> None:
    """Give the other machine a VLAN."""
    with Netlink(lan.other) as far:
        name = f"far.{number}"
        far.stack(name, "vlan", far.index("far"), data={"IFLA_VLAN_ID": number})
        far.add_addresses(far.index(name), [ip_interface(text) for text in addresses])


def vlan_of_next(sniffer: socket.socket, needle: bytes) -> int:
    """Return the VLAN id of the next frame that contains ``needle``; 0: it is untagged."""
    while True:
        frame, ancillary, _, _ = sniffer.recvmsg(4096, 256)
        if needle in frame:
            for level, kind, data in ancillary:
                if (level, kind) == (SOL_PACKET, PACKET_AUXDATA):
                    # struct tpacket_auxdata: the tag is the ninth field, 16 bits.
                    return int(struct.unpack_from("=IIIHHHH", data)[5]) & 0xFFF
            return 0


@dataclass(frozen=True)
class Container:
    """A namespace that joined a network."""

    netns: Path
    network: Network
    endpoint: Endpoint
    link: Link

    @property
    def ip(self) -> str:
        """Its first address."""
        return str((self.link.addresses or self.endpoint.addresses)[0].ip)


class Rig:
    """A driver at work on the host of a lan, called as the engine calls it."""

    def __init__(self, lan: Lan, driver: str) -> None:
        self.lan = lan
        self.root = lan.root / driver
        self.root.mkdir(exist_ok=True)
        self.name = driver
        self.driver: Driver[Any] = Registry().network(driver)
        self.call("network_open", self.root, parse_options("driver", (), {}))

    def call(self, hook: str, *arguments: object) -> Any:
        """Call a hook in the host's namespace."""
        names = {
            "network_open": ("root", "options"),
            "network_sync": ("networks",),
            "endpoint_join": ("network", "endpoint", "sandbox"),
            "endpoint_leave": ("network", "endpoint"),
        }.get(hook, ("network",)[: len(arguments)])
        given = dict(zip(names, arguments, strict=True))
        return self.inside(lambda: getattr(self.driver.call, hook)(**given))

    def inside(self, work: Callable[[], T]) -> T:
        """Call ``work`` in the host's namespace."""
        return namespaces.run_in(self.lan.host, work)

    def restarted(self) -> Rig:
        """Return the driver as after a crash: a new instance that knows nothing."""
        return Rig(self.lan, self.name)

    def plan(
        self, *subnets: Subnet, internal: bool = False, network_id: str = "", **options: str
    ) -> Network:
        """Return a network as the engine would hand it over."""
        schema = self.driver.call.network_options()
        identity = network_id or secrets.token_hex(32)
        parsed = parse_options(f"network driver {self.name}", schema, options)
        return Network(identity, f"net-{identity[:4]}", subnets, parsed, internal)

    def create(self, *subnets: Subnet, internal: bool = False, **options: str) -> Network:
        """Plan and make a network."""
        network = self.plan(*subnets, internal=internal, **options)
        self.call("network_create", network)
        return network

    def join(self, network: Network, *addresses: str, mac: str = "") -> Container:
        """Make a container on a network, with addresses, routes and sysctls as the driver says."""
        interfaces = tuple(ip_interface(text) for text in addresses)
        if not mac and interfaces:
            packed = interfaces[0].ip.packed[-4:]
            mac = "02:42:" + ":".join(f"{byte:02x}" for byte in packed)
        identity = secrets.token_hex(32)
        endpoint = Endpoint(identity, secrets.token_hex(32), interfaces, mac)
        return self.join_again(network, endpoint)

    def join_again(self, network: Network, endpoint: Endpoint) -> Container:
        """Have an endpoint join with a new namespace."""
        netns = self.lan.namespace(f"c-{secrets.token_hex(4)}")
        link = self.call("endpoint_join", network, endpoint, Sandbox(netns))
        for name, value in link.sysctls.items():
            place = name.replace("IFNAME", endpoint.interface).replace(".", "/")
            namespaces.run_in(netns, lambda p=place, v=value: _sysctl(p, v))
        with Netlink(netns) as inside:
            inside.configure(
                endpoint.interface,
                addresses=[*endpoint.addresses, *link.addresses],
                gateways=link.gateways,
                routes=[(route.destination, route.gateway) for route in link.routes],
                default_on_link=link.default_route_on_link,
                loopback=True,
            )
        return Container(netns, network, endpoint, link)

    def leave(self, container: Container) -> None:
        """Stop a container: its namespace goes first, as in the engine."""
        namespaces.remove_network_namespace(container.netns)
        self.call("endpoint_leave", container.network, container.endpoint)

    def sync(self, *states: NetworkState) -> None:
        """Call ``network_sync``."""
        self.call("network_sync", states)

    def links(self) -> set[str]:
        """Return the names of the host's links, without its loopback."""
        with Netlink(self.lan.host) as netlink:
            return {link.name for link in netlink.links()} - {"lo"}


def _sysctl(place: str, value: str) -> None:
    path = Path("/proc/sys", place)
    if path.exists():
        path.write_text(value)


def subnet(prefix: str, gateway: str = "", aux: Mapping[str, str] | None = None) -> Subnet:
    """Return a subnet."""
    auxiliary = {name: ip_address(text) for name, text in (aux or {}).items()}
    return Subnet(ip_network(prefix), ip_address(gateway) if gateway else None, auxiliary)


def multicast_heard(sender: Container, *listeners: Container) -> list[bool]:
    """Send to a group from one container, and tell which of the others heard it."""
    group, port = "239.1.2.3", 5007

    def listen() -> socket.socket:
        opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        opened.bind(("", port))
        request = socket.inet_aton(group) + socket.inet_aton("0.0.0.0") + struct.pack("=I", 2)
        # ip_mreqn with the index: a namespace of a container has eth0 as its second link.
        index = socket.if_nametoindex("eth0")
        request = request[:8] + struct.pack("=I", index)
        opened.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, request)
        opened.settimeout(0.1)
        return opened

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
            index = struct.pack("=I", socket.if_nametoindex("eth0"))
            opened.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, b"\0" * 8 + index)
            opened.sendto(b"hello", (group, port))

    opened = [namespaces.run_in(listener.netns, listen) for listener in listeners]
    heard = [False] * len(opened)
    with contextlib.ExitStack() as stack:
        for each in opened:
            stack.enter_context(each)
        for _ in range(10):
            namespaces.run_in(sender.netns, send)
            for number, each in enumerate(opened):
                with contextlib.suppress(TimeoutError):
                    heard[number] = each.recv(16) == b"hello" or heard[number]
            if all(heard):
                break
    return heard
