"""A network's part on this host: a namespace with a bridge, the VXLAN link and the way out.

::

    container eth0 ── veth ─┐                           ┌─ veth ── container eth0
                          bridge br0 (the gateway) ── vx0 ══ UDP of the host ══ other hosts
                            │
                          up0 ── veth ── ov-NETWORK in the host's namespace ── the world

The namespace keeps the network's subnet apart from the host's own routes, so that a network which
was made on one host is good on all of them. It exists while containers of this host are on the
network. The gateway has the same address and hardware address on every host: each host answers
for it alone, as ARP for addresses of the bridge itself never goes into the tunnel.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import (
    IPv4Interface,
    IPv6Interface,
    ip_interface,
    ip_network,
)
from pathlib import Path

from drivetrain.host import namespaces
from drivetrain.host.netlink import Netlink
from drivetrain.network import Address, Endpoint, Interface, Network, Sandbox
from drivetrain_network_overlay.forwarding import Forwarding, Remote
from drivetrain_network_overlay.rules import InnerRules

BRIDGE, VXLAN, UPLINK = "br0", "vx0", "up0"
#: Where the links between segments and the host have their addresses from: pairs of addresses.
UPLINKS4 = ip_network("169.254.64.0/18")
UPLINKS6 = ip_network("fd64:6f76:6c00::/48")
MAX_SEGMENTS = UPLINKS4.num_addresses // 2


@dataclass(frozen=True, slots=True)
class Uplink:
    """The link between a segment and its host.

    Attributes:
        outside: its name in the host's namespace.
        hosts: the host's addresses on it.
        own: the segment's.
    """

    outside: str
    hosts: tuple[Interface, ...]
    own: tuple[Interface, ...]

    @classmethod
    def of(cls, network: str, number: int) -> Uplink:
        """Return the uplink of a network that has ``number`` on this host."""
        first4 = int(UPLINKS4.network_address) + 2 * number
        first6 = int(UPLINKS6.network_address) + 2 * number
        return cls(
            f"ov-{network[:12]}",
            (IPv4Interface((first4, 31)), IPv6Interface((first6, 127))),
            (IPv4Interface((first4 + 1, 31)), IPv6Interface((first6 + 1, 127))),
        )

    def address(self, version: int) -> Address:
        """Return the segment's own address."""
        return next(one.ip for one in self.own if one.version == version)


@dataclass(frozen=True, slots=True)
class Tunnel:
    """How a segment reaches other hosts.

    Attributes:
        number: the VXLAN network identifier.
        local: this host on the data plane.
        port: of UDP.
        mtu: of everything in the segment, in bytes.
    """

    number: int
    local: Address
    port: int
    mtu: int


class Segment:
    """One network on this host.

    Args:
        network: which.
        path: the file that keeps the namespace.
        uplink: the way out; ``None`` for an internal network.
        host: opened in the host's namespace.
    """

    def __init__(
        self, network: Network, path: Path, uplink: Uplink | None, host: Forwarding
    ) -> None:
        self.network = network
        self.path = path
        self.uplink = uplink
        self._host = host
        self._inside: Forwarding | None = None
        self.rules: InnerRules | None = None
        self._bridge = self._vxlan = 0
        self._remotes: dict[str, Remote] = {}
        self._everyone: set[Address] = set()

    # The namespace

    def exists(self) -> bool:
        """Whether the namespace is there, with all that belongs in it."""
        if not namespaces.is_namespace(self.path):
            return False
        with Netlink(self.path) as inside:
            wanted = {BRIDGE, VXLAN} | ({UPLINK} if self.uplink else set())
            return wanted <= {link.name for link in inside.links() if link.up}

    def local(self) -> Address | None:
        """Return this host's address on the data plane, as the VXLAN link has it."""
        with Forwarding(self.path) as inside:
            return inside.local_of(VXLAN)

    def make(self, tunnel: Tunnel) -> None:
        """Make it; what is left of an earlier one is removed.

        Raises:
            OSError: the kernel refuses; nothing is left then.
        """
        self.remove()
        try:
            namespaces.new_network_namespace(self.path)
            self._host.vxlan(
                VXLAN, tunnel.number, local=tunnel.local, port=tunnel.port,
                namespace=self.path, mtu=tunnel.mtu,
            )  # fmt: skip
            self._furnish(tunnel.mtu)
            self.open()
        except BaseException:
            self.remove()
            raise

    def tunnel_anew(self, tunnel: Tunnel) -> None:
        """Make the VXLAN link again: this host has another address or port than before."""
        with Forwarding(self.path) as inside:
            inside.delete_link(VXLAN)
            self._host.vxlan(
                VXLAN, tunnel.number, local=tunnel.local, port=tunnel.port,
                namespace=self.path, mtu=tunnel.mtu,
            )  # fmt: skip
            inside.join_bridge(VXLAN, inside.index(BRIDGE))

    def _furnish(self, mtu: int) -> None:
        if any(subnet.prefix.version == 6 for subnet in self.network.subnets) or self.uplink:
            namespaces.run_in(self.path, _prepare)
        with Forwarding(self.path) as inside:
            inside.set_link("lo", attributes={}, up=True)
            inside.bridge(BRIDGE, mtu=mtu, mac=_gateway_mac(self.network.id))
            inside.flood_multicast(BRIDGE)
            bridge = inside.index(BRIDGE)
            inside.join_bridge(VXLAN, bridge)
            inside.add_addresses(bridge, self._gateways())
            if self.uplink is not None:
                self._connect(inside, self.uplink)

    def _connect(self, inside: Forwarding, uplink: Uplink) -> None:
        self._host.delete_link(uplink.outside)
        self._host.veth(uplink.outside, UPLINK, namespace=self.path)
        _outside_sysctls(uplink.outside)
        index = self._host.index(uplink.outside)
        self._host.add_addresses(index, uplink.hosts)
        gateways = [one.ip for one in uplink.hosts]
        inside.configure(UPLINK, addresses=uplink.own, gateways=gateways)

    def _gateways(self) -> list[Interface]:
        return [
            ip_interface(f"{subnet.gateway}/{subnet.prefix.prefixlen}")
            for subnet in self.network.subnets
            if subnet.gateway is not None
        ]

    def open(self) -> None:
        """Take up a namespace that exists, and learn what it reaches."""
        self.close()
        self._inside = Forwarding(self.path)
        self._bridge, self._vxlan = self._inside.index(BRIDGE), self._inside.index(VXLAN)
        self.rules = InnerRules(self.path)
        self.rules.rebuild(has_uplink=self.uplink is not None)
        self.relearn()

    def relearn(self) -> None:
        """Look what the kernel reaches."""
        assert self._inside is not None
        remotes, self._everyone = self._inside.reached(self._bridge, self._vxlan)
        self._remotes = {f"?{remote.mac}": remote for remote in remotes}

    def close(self) -> None:
        """Leave; the namespace stays."""
        if self._inside is not None:
            self._inside.close()
            self._inside = None
        if self.rules is not None:
            self.rules.close()
            self.rules = None

    def remove(self) -> None:
        """Remove the namespace with all that is in it; one that is gone is fine."""
        if namespaces.is_namespace(self.path):
            # At once: the number must be free for a new segment, and the kernel takes namespaces
            # down in its own time.
            with Netlink(self.path) as inside:
                inside.delete_link(VXLAN)
        self.close()
        if self.uplink is not None:
            self._host.delete_link(self.uplink.outside)
        namespaces.remove_network_namespace(self.path)

    # Containers of this host

    def join(self, endpoint: Endpoint, sandbox: Sandbox, mtu: int) -> None:
        """Make a link between the bridge and a container."""
        assert self._inside is not None
        # A name that can be found again; what an earlier join left is still being taken down.
        self._inside.delete_link(_port(endpoint.id))
        self._inside.veth(
            _port(endpoint.id),
            endpoint.interface,
            namespace=sandbox.path,
            master=self._bridge,
            mac=endpoint.mac,
            mtu=mtu,
        )

    def leave(self, endpoint: str) -> None:
        """Remove a container's link; one that is gone is fine."""
        if self._inside is not None:
            self._inside.delete_link(_port(endpoint))

    def cut(self) -> None:
        """Send nothing to other hosts any more, and take nothing from them."""
        if self._inside is not None:
            self._inside.set_link(VXLAN, attributes={}, up=False)

    def uncut(self) -> None:
        """Undo :meth:`cut`."""
        if self._inside is not None:
            self._inside.set_link(VXLAN, attributes={}, up=True)

    # Endpoints of other hosts

    def update(self, wanted: dict[str, Remote], everyone: set[Address]) -> None:
        """Make the kernel reach these endpoints and no others.

        Args:
            wanted: by endpoint.
            everyone: hosts that get what goes to all; empty without multicast.
        """
        if self._inside is None:
            return
        old, new = set(self._remotes.values()), set(wanted.values())
        # First what goes: an address or hardware address may move from one endpoint to another.
        self._inside.unreach(self._bridge, self._vxlan, old - new)
        self._inside.reach(self._bridge, self._vxlan, new - old)
        self._remotes = dict(wanted)
        self.flood(everyone)

    def flood(self, everyone: set[Address]) -> None:
        """Have these hosts, and no others, get a copy of what goes to everyone."""
        if self._inside is None or everyone == self._everyone:
            return
        self._inside.flood(self._vxlan, self._everyone - everyone, add=False)
        self._inside.flood(self._vxlan, everyone - self._everyone, add=True)
        self._everyone = set(everyone)

    def change(self, gone: Iterable[str], changed: dict[str, Remote]) -> None:
        """Make the kernel follow a few changes, without looking at all the others."""
        if self._inside is None:
            return
        gone = list(gone)
        old = {self._remotes[name] for name in (*gone, *changed) if name in self._remotes}
        new = set(changed.values())
        self._inside.unreach(self._bridge, self._vxlan, old - new)
        self._inside.reach(self._bridge, self._vxlan, new - old)
        for name in gone:
            self._remotes.pop(name, None)
        self._remotes.update(changed)


def _port(endpoint: str) -> str:
    return f"veth{endpoint[:11]}"


def _gateway_mac(network: str) -> str:
    digest = hashlib.sha256(f"gateway {network}".encode()).digest()
    return "0e:" + ":".join(f"{byte:02x}" for byte in digest[:5])


def _prepare() -> None:
    """Have the namespace of the calling thread route."""
    for name in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
        _write(name, "1")
    for name in ("default", "all"):
        _write(f"ipv6/conf/{name}/accept_ra", "0")
        _write(f"ipv6/conf/{name}/disable_ipv6", "0")
    _write("ipv6/conf/default/accept_dad", "0")


def _outside_sysctls(link: str) -> None:
    _write("ipv4/ip_forward", "1")
    _write("ipv6/conf/all/forwarding", "1")
    _write(f"ipv6/conf/{link}/accept_ra", "0")
    # Ports published on 127.0.0.1 enter the segment with a loopback source at first.
    _write(f"ipv4/conf/{link}/route_localnet", "1")


def _write(name: str, value: str) -> None:
    """Set a sysctl; a read-only /proc/sys is another's decision, and stays."""
    path = Path("/proc/sys/net") / name
    try:
        if path.read_text().strip() != value:
            path.write_text(value)
    except OSError:
        return
