"""The bridge network driver: a Linux bridge for each network, and nftables for what may pass.

Each container gets a veth pair whose host side is a port of the bridge. What the rules are is in
:mod:`drivetrain_network_bridge.rules`.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Sequence
from pathlib import Path

from drivetrain import hookimpl
from drivetrain.errors import InUse, InvalidArgument, NotSupported
from drivetrain.host.netlink import Netlink
from drivetrain.host.nft import Nft
from drivetrain.network import (
    Endpoint,
    Interface,
    Link,
    Network,
    NetworkState,
    NetworkTraits,
    PortPolicy,
    PublishedPort,
    Sandbox,
)
from drivetrain.options import Option, Options
from drivetrain_network_bridge.options import NETWORK_OPTIONS, BridgeSettings, settings
from drivetrain_network_bridge.rules import Rules, gateways_of

Key = tuple[str, PublishedPort]


class Bridge:
    """Bridges of this host."""

    @hookimpl
    def network_traits(self) -> NetworkTraits:
        return NetworkTraits(ports=True, tables=("engine",))

    @hookimpl
    def network_options(self) -> Sequence[Option]:
        return NETWORK_OPTIONS

    @hookimpl
    def network_probe(self) -> bool:
        """Make a bridge for real and remove it again, and load libnftables."""
        name = f"probe{secrets.token_hex(4)}"
        try:
            with Netlink() as netlink:
                netlink.bridge(name)
                netlink.delete_link(name)
            Nft().close()
        except OSError as error:
            raise NotSupported(
                f"this host cannot make bridges: {error}; modprobe bridge, and run as root"
            ) from error
        return True

    @hookimpl
    def network_open(self, root: Path, options: Options) -> bool:
        self._root = root
        self._netlink = Netlink()
        self._rules = Rules(Nft())
        self._published: dict[str, set[PublishedPort]] = {}
        #: Name of each bridge, and the network whose it is.
        self._owners: dict[str, str] = {}
        self._lock = threading.Lock()
        return True

    def _users_mark(self, network: Network) -> Path:
        """A file that says: this bridge was there before, and stays after the network."""
        return self._root / f"{network.id}.users-bridge"

    @hookimpl
    def network_sync(self, networks: Sequence[NetworkState]) -> bool:
        wanted = {settings(state.network).name for state in networks}
        for state in networks:
            self._make_bridge(state.network)
        for link in self._netlink.links():
            if link.kind == "bridge" and link.alias == self._alias() and link.name not in wanted:
                self._netlink.delete_link(link.name)
        known = {state.network.id for state in networks}
        for mark in self._root.glob("*.users-bridge"):
            if mark.name.partition(".")[0] not in known:
                mark.unlink()
        with self._lock:
            self._owners = {settings(state.network).name: state.network.id for state in networks}
            self._published = {
                endpoint.id: set(ports)
                for state in networks
                for endpoint, ports in state.endpoints
                if ports
            }
            self._rules.rebuild(networks)
        return True

    def _alias(self) -> str:
        """Marks the links of this engine, apart from those of another one on the same host."""
        return f"engine:{self._root}"

    @hookimpl
    def network_create(self, network: Network) -> bool:
        chosen = settings(network)
        if not network.subnets:
            raise InvalidArgument(f"network {network.name}: a bridge needs a subnet")
        with self._lock:
            owner = self._owners.setdefault(chosen.name, network.id)
            if owner != network.id:
                raise InUse(
                    f"network {network.name}: the bridge {chosen.name} is that of network "
                    f"{owner[:12]}: choose another com.docker.network.bridge.name"
                )
        made = False
        try:
            made = self._make_bridge(network)
            with self._lock:
                self._rules.add_network(network, chosen)
        except BaseException:
            with self._lock:
                del self._owners[chosen.name]
            if made:
                self._netlink.delete_link(chosen.name)
            raise
        return True

    def _make_bridge(self, network: Network) -> bool:
        """Make the bridge, or take the one that is there; true when it was made."""
        chosen = settings(network)
        found = self._netlink.link(chosen.name)
        if found is not None and found.kind != "bridge":
            raise InUse(
                f"network {network.name}: {chosen.name} exists and is no bridge: choose another"
                " com.docker.network.bridge.name"
            )
        if found is None:
            self._users_mark(network).unlink(missing_ok=True)
            mac = "02:42:" + ":".join(f"{secrets.randbelow(256):02x}" for _ in range(4))
            self._netlink.bridge(chosen.name, alias=self._alias(), mtu=chosen.mtu, mac=mac)
        elif found.alias != self._alias():
            self._users_mark(network).touch()
        _sysctls(chosen.name, network)
        index, own = self._netlink.index(chosen.name), _own_addresses(network, chosen)
        self._netlink.add_addresses(index, own)
        if network.default and not self._users_mark(network).exists():
            # The daemon's settings may have changed: they alone change a network's addresses.
            for found, address in self._netlink.addresses(index):
                if found == index and not address.ip.is_link_local and address not in own:
                    self._netlink.delete_address(index, address)
        self._netlink.set_link(chosen.name, attributes={}, up=True)
        return found is None

    @hookimpl
    def network_delete(self, network: Network) -> bool:
        chosen = settings(network)
        with self._lock:
            if self._owners.get(chosen.name, network.id) != network.id:
                return True
            self._rules.remove_network(network, chosen)
            self._owners.pop(chosen.name, None)
        mark = self._users_mark(network)
        if mark.exists():
            found = self._netlink.link(chosen.name)
            if found is not None:
                for address in _own_addresses(network, chosen):
                    self._netlink.delete_address(found.index, address)
            mark.unlink()
        else:
            self._netlink.delete_link(chosen.name)
        return True

    @hookimpl
    def endpoint_join(self, network: Network, endpoint: Endpoint, sandbox: Sandbox) -> Link:
        chosen = settings(network)
        self._netlink.veth(
            f"veth{secrets.token_hex(5)}",
            endpoint.interface,
            namespace=sandbox.path,
            master=self._netlink.index(chosen.name),
            mac=endpoint.mac,
            mtu=chosen.mtu,
            isolated=not chosen.icc and not _bridged_packets_meet_rules(),
            # A container that calls a port which it published itself: with br_netfilter the
            # translated packet is not routed, and has to go back through the port it came by.
            hairpin=True,
        )
        gateways = () if network.internal else gateways_of(network, endpoint)
        return Link(name=endpoint.interface, gateways=gateways, mtu=chosen.mtu)

    @hookimpl
    def endpoint_leave(self, network: Network, endpoint: Endpoint) -> bool:
        with self._lock:
            for port in self._published.pop(endpoint.id, set()):
                self._rules.unpublish(endpoint, port, last=True)
        return True

    @hookimpl
    def port_policy(self, network: Network) -> PortPolicy:
        chosen = settings(network)
        modes = ((4, chosen.mode4), (6, chosen.mode6))
        translated = tuple(version for version, mode in modes if mode != "routed")
        return PortPolicy(translated, chosen.binding)

    @hookimpl
    def port_publish(self, network: Network, endpoint: Endpoint, port: PublishedPort) -> bool:
        with self._lock:
            self._rules.publish(endpoint, port)
            self._published.setdefault(endpoint.id, set()).add(port)
        return True

    @hookimpl
    def port_unpublish(self, network: Network, endpoint: Endpoint, port: PublishedPort) -> bool:
        with self._lock:
            ports = self._published.get(endpoint.id, set())
            if port in ports:
                ports.discard(port)
                others = {(each.protocol, each.container_port) for each in ports}
                last = (port.protocol, port.container_port) not in others
                self._rules.unpublish(endpoint, port, last=last)
        return True

    @hookimpl
    def network_status(self) -> Sequence[tuple[str, str]]:
        pairs = [("Firewall", "nftables"), ("Table", self._rules.table)]
        if other := self._rules.foreign_drop():
            pairs.append(("Warning", other))
        return pairs

    @hookimpl
    def network_close(self) -> bool:
        self._netlink.close()
        self._rules.close()
        return True


def _own_addresses(network: Network, chosen: BridgeSettings) -> list[Interface]:
    """The bridge's own addresses: the gateways."""
    from ipaddress import ip_interface

    return [
        ip_interface(f"{subnet.gateway}/{subnet.prefix.prefixlen}")
        for subnet in network.subnets
        if subnet.gateway is not None
        and not (subnet.prefix.version == 4 and chosen.inhibit_ipv4)
        and (chosen.mode4 if subnet.prefix.version == 4 else chosen.mode6) != "isolated"
    ]


def _bridged_packets_meet_rules() -> bool:
    """Tell whether br_netfilter is at work: then the rules themselves keep containers apart.

    An isolated port would keep them from the ports that others published as well.
    """
    try:
        return Path("/proc/sys/net/bridge/bridge-nf-call-iptables").read_text().strip() == "1"
    except OSError:
        return False


def _sysctls(bridge: str, network: Network) -> None:
    """Set what routing needs; a read-only /proc/sys is another's decision, and stays."""
    values = {
        "ipv4/ip_forward": "1",
        # Ports published on 127.0.0.1 leave by the bridge with a loopback source at first.
        f"ipv4/conf/{bridge}/route_localnet": "1",
        f"ipv6/conf/{bridge}/accept_ra": "0",
    }
    if any(subnet.prefix.version == 6 for subnet in network.subnets):
        values |= {"ipv6/conf/all/forwarding": "1", f"ipv6/conf/{bridge}/disable_ipv6": "0"}
    for name, value in values.items():
        path = Path("/proc/sys/net") / name
        try:
            if path.read_text().strip() != value:
                path.write_text(value)
        except OSError:
            continue
