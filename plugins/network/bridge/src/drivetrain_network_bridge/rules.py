"""The firewall of all bridges: one nftables table, changed in atomic transactions.

A packet meets the same few rules however many networks and ports there are: maps lead from the
interface to the chains of its bridge, and from a published port to its container. The chain
``user`` belongs to the administrator: it is consulted first and never flushed.

=================  ===============================================================================
chain              what it does
=================  ===============================================================================
``direct``         drops what comes from elsewhere straight to a container's address (nat mode)
                   and is no answer, and what containers send to the host's 127.0.0.0/8; before
                   addresses are translated
``forward``        ``user`` first; then the chains of the bridge that a packet came by or leaves by
``in-BRIDGE``      established; the bridge itself when icc is on, otherwise what was translated;
                   published ports; else drop
``out-BRIDGE``     for an internal network: drop what leaves it
``publish``        leads published ports to containers (from prerouting and output); those on
                   ``::1``, which the kernel never routes elsewhere, are the engine's to carry
``postrouting``    ``post-BRIDGE`` masquerades what leaves a network, and hairpins
=================  ===============================================================================
"""

from __future__ import annotations

from collections.abc import Sequence

from drivetrain.host.nft import Nft, NftError
from drivetrain.network import (
    Address,
    Endpoint,
    Network,
    NetworkState,
    Prefix,
    PublishedPort,
)
from drivetrain_network_bridge.options import BridgeSettings, settings

TABLE = "inet engine"
#: Name and type of what leads from packets to chains or containers; 4 and 6 for the IP versions.
MAPS = {
    "into": "type ifname : verdict",
    "from": "type ifname : verdict",
    "any4": "type inet_proto . inet_service : ipv4_addr . inet_service",
    "any6": "type inet_proto . inet_service : ipv6_addr . inet_service",
    "at4": "type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service",
    "at6": "type ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service",
    "source4": "type ipv4_addr : verdict; flags interval",
    "source6": "type ipv6_addr : verdict; flags interval",
    "direct4": "type ipv4_addr : verdict; flags interval",
    "direct6": "type ipv6_addr : verdict; flags interval",
}
SETS = {
    "open4": "type ipv4_addr . inet_proto . inet_service",
    "open6": "type ipv6_addr . inet_proto . inet_service",
    "bridges": "type ifname",
}
BASE = f"""
add chain {TABLE} user
add chain {TABLE} direct {{ type filter hook prerouting priority mangle; }}
add chain {TABLE} forward {{ type filter hook forward priority filter; }}
add chain {TABLE} prerouting {{ type nat hook prerouting priority dstnat; }}
add chain {TABLE} output {{ type nat hook output priority -100; }}
add chain {TABLE} postrouting {{ type nat hook postrouting priority srcnat; }}
add chain {TABLE} publish
add rule {TABLE} direct iifname @bridges ip daddr 127.0.0.0/8 drop
add rule {TABLE} direct ct state established,related accept
add rule {TABLE} direct ip daddr vmap @direct4
add rule {TABLE} direct ip6 daddr vmap @direct6
add rule {TABLE} forward jump user
add rule {TABLE} forward iifname vmap @from
add rule {TABLE} forward oifname vmap @into
add rule {TABLE} prerouting fib daddr type local jump publish
add rule {TABLE} output ip6 daddr ::1 return
add rule {TABLE} output fib daddr type local jump publish
add rule {TABLE} publish dnat ip to ip daddr . meta l4proto . th dport map @at4
add rule {TABLE} publish meta nfproto ipv4 dnat ip to meta l4proto . th dport map @any4
add rule {TABLE} publish dnat ip6 to ip6 daddr . meta l4proto . th dport map @at6
add rule {TABLE} publish meta nfproto ipv6 dnat ip6 to meta l4proto . th dport map @any6
add rule {TABLE} postrouting oifname @bridges ip saddr 127.0.0.0/8 masquerade
add rule {TABLE} postrouting ip saddr vmap @source4
add rule {TABLE} postrouting ip6 saddr vmap @source6
"""


def gateways_of(network: Network, endpoint: Endpoint) -> tuple[Address, ...]:
    """Return the gateways of the subnets that the endpoint has addresses in."""
    found = []
    for address in endpoint.addresses:
        for subnet in network.subnets:
            other = subnet.auxiliary.get(f"DefaultGatewayIPv{address.version}")
            gateway = other if other is not None and network.default else subnet.gateway
            if address.ip in subnet.prefix and gateway is not None:
                found.append(gateway)
    return tuple(found)


class Rules:
    """The table in the namespace that the driver was opened in.

    Args:
        nft: changes it.
    """

    table = TABLE

    def __init__(self, nft: Nft) -> None:
        self._nft = nft
        #: Names of the bridges that have chains: to ask nftables, it would read all its rules.
        self._bridges: set[str] = set()

    def close(self) -> None:
        """Leave; the rules stay."""
        self._nft.close()

    def rebuild(self, networks: Sequence[NetworkState]) -> None:
        """Replace everything but the user's chain, in one transaction."""
        commands = [f"add table {TABLE}", f"add chain {TABLE} user", *self._forget()]
        # Chains before maps: nft sends elements that lead to a chain together with their map.
        for state in networks:
            commands += chains(settings(state.network).name)
        commands += [f"add map {TABLE} {name} {{ {kind}; }}" for name, kind in MAPS.items()]
        commands += [f"add set {TABLE} {name} {{ {kind}; }}" for name, kind in SETS.items()]
        commands.append(BASE)
        for state in networks:
            commands += network_commands(state.network, settings(state.network))
        opened: set[str] = set()
        for state in networks:
            for endpoint, ports in state.endpoints:
                for port in ports:
                    for command in port_commands(endpoint, port):
                        if command not in opened:
                            opened.add(command)
                            commands.append(command)
        self._nft.run("\n".join(commands))
        self._bridges = {settings(state.network).name for state in networks}

    def _forget(self) -> list[str]:
        try:
            found = self._nft.query(f"list table {TABLE}")
        except NftError:
            return []
        chains = [entry["chain"]["name"] for entry in found if "chain" in entry]
        maps = [entry["map"]["name"] for entry in found if "map" in entry]
        sets = [entry["set"]["name"] for entry in found if "set" in entry]
        ours = [chain for chain in chains if chain != "user"]
        return [
            *(f"flush chain {TABLE} {chain}" for chain in ours),
            *(f"flush map {TABLE} {name}" for name in maps),
            *(f"delete map {TABLE} {name}" for name in maps),
            *(f"delete set {TABLE} {name}" for name in sets),
            *(f"delete chain {TABLE} {chain}" for chain in ours),
        ]

    def add_network(self, network: Network, chosen: BridgeSettings) -> None:
        """Add the chains of a network; what a crash left of it is replaced."""
        self.remove_network(network, chosen)
        self._nft.run("\n".join(network_commands(network, chosen)))
        self._bridges.add(chosen.name)

    def remove_network(self, network: Network, chosen: BridgeSettings) -> None:
        """Remove the chains of a network and what leads to them."""
        name = chosen.name
        if name not in self._bridges:
            return
        commands = [
            f'delete element {TABLE} into {{ "{name}" }}',
            f'delete element {TABLE} from {{ "{name}" }}',
            f'delete element {TABLE} bridges {{ "{name}" }}',
        ]
        for subnet in network.subnets:
            version = subnet.prefix.version
            commands.append(f"delete element {TABLE} source{version} {{ {subnet.prefix} }}")
            if _protected(network, chosen, subnet.prefix):
                commands.append(f"delete element {TABLE} direct{version} {{ {subnet.prefix} }}")
        for chain in ("in", "out", "post", "direct"):
            commands.append(f"flush chain {TABLE} {chain}-{name}")
            commands.append(f"delete chain {TABLE} {chain}-{name}")
        try:
            self._nft.run("\n".join(commands))
        except NftError:
            # Somebody flushed the table: gone is what was wanted.
            if self._nft.exists(f"chain {TABLE} in-{name}"):
                raise
        self._bridges.discard(name)

    def publish(self, endpoint: Endpoint, port: PublishedPort) -> None:
        """Lead a host port to a container."""
        self._nft.run("\n".join(port_commands(endpoint, port)))

    def unpublish(self, endpoint: Endpoint, port: PublishedPort, *, last: bool) -> None:
        """Undo ``publish``; the container's port stays open unless this was the last way in."""
        commands = [
            command.replace("add element", "delete element")
            for command in port_commands(endpoint, port)
            if last or " open" not in command
        ]
        for command in commands:
            try:
                self._nft.run(command)
            except NftError:
                continue  # somebody flushed the table: gone is what was wanted

    def foreign_drop(self) -> str:
        """Say when another firewall of this host drops what we would forward."""
        try:
            found = self._nft.query("list chains")
        except NftError:
            return ""
        for entry in found:
            chain = entry.get("chain", {})
            drops = chain.get("hook") == "forward" and chain.get("policy") == "drop"
            if drops and chain.get("table") != "engine":
                place = f"{chain['family']} {chain['table']} {chain['name']}"
                return f"the chain {place} of another firewall drops forwarded packets"
        return ""


def _protected(network: Network, chosen: BridgeSettings, prefix: Prefix) -> bool:
    mode = chosen.mode4 if prefix.version == 4 else chosen.mode6
    return mode == "nat" or network.internal


def chains(name: str) -> list[str]:
    """Return the commands that add the chains of a bridge."""
    return [f"add chain {TABLE} {chain}-{name}" for chain in ("in", "out", "post", "direct")]


def network_commands(network: Network, chosen: BridgeSettings) -> list[str]:
    """Return the commands that add a network's chains."""
    name = chosen.name
    commands = chains(name)

    def rule(chain: str, text: str) -> None:
        commands.append(f"add rule {TABLE} {chain}-{name} {text}")

    rule("in", "ct state established,related accept")
    if chosen.icc:
        rule("in", f'iifname "{name}" accept')
    else:
        # By the host's address containers reach what others publish, and not past it.
        rule("in", f'iifname "{name}" ct status dnat accept')
        rule("in", f'iifname "{name}" drop')
    if not network.internal:
        for version, family in ((4, "ip"), (6, "ip6")):
            rule("in", f"{family} daddr . meta l4proto . th dport @open{version} accept")
        routed = [p.prefix for p in network.subnets if not _protected(network, chosen, p.prefix)]
        for prefix in routed:
            family = "ip" if prefix.version == 4 else "ip6"
            mode = chosen.mode4 if prefix.version == 4 else chosen.mode6
            if mode == "nat-unprotected":
                rule("in", f"{family} daddr {prefix} accept")
            else:
                rule("in", f"{family} daddr {prefix} meta l4proto {{ icmp, icmpv6 }} accept")
    rule("in", "drop")
    if network.internal:
        rule("out", f'oifname != "{name}" drop')
    for trusted in chosen.trusted:
        rule("direct", f'iifname "{trusted}" return')
    rule("direct", f'iifname {{ "{name}", "lo" }} return')
    rule("direct", "drop")
    _postrouting(network, chosen, rule)
    commands += [
        f'add element {TABLE} into {{ "{name}" : jump in-{name} }}',
        f'add element {TABLE} from {{ "{name}" : jump out-{name} }}',
        f'add element {TABLE} bridges {{ "{name}" }}',
    ]
    for subnet in network.subnets:
        version, prefix = subnet.prefix.version, subnet.prefix
        commands.append(f"add element {TABLE} source{version} {{ {prefix} : jump post-{name} }}")
        if _protected(network, chosen, prefix):
            commands.append(
                f"add element {TABLE} direct{version} {{ {prefix} : jump direct-{name} }}"
            )
    return commands


def _postrouting(network: Network, chosen: BridgeSettings, rule) -> None:  # type: ignore[no-untyped-def]
    name = chosen.name
    # A container that calls a published port of its own network: without a new source address
    # the answer would take the short way over the bridge, past the address translation.
    rule("post", f'oifname "{name}" ct status dnat masquerade')
    if network.internal or not chosen.masquerade:
        return
    for version, family, mode, source in (
        (4, "ip", chosen.mode4, chosen.source4),
        (6, "ip6", chosen.mode6, chosen.source6),
    ):
        if mode != "routed" and any(s.prefix.version == version for s in network.subnets):
            action = f"snat {family} to {source}" if source else "masquerade"
            rule("post", f'meta nfproto ipv{version} oifname != "{name}" {action}')


def port_commands(endpoint: Endpoint, port: PublishedPort) -> list[str]:
    """Return the commands that publish a port; none when the versions do not fit."""
    version = port.host_address.version
    target = next((a.ip for a in endpoint.addresses if a.version == version), None)
    if target is None:
        return []
    value = f"{target} . {port.container_port}"
    key = f"{port.protocol} . {port.host_port}"
    if port.host_address.is_unspecified:
        element = f"any{version} {{ {key} : {value} }}"
    else:
        element = f"at{version} {{ {port.host_address} . {key} : {value} }}"
    if not port.host_port:
        element = ""
    opened = f"open{version} {{ {target} . {port.protocol} . {port.container_port} }}"
    return [f"add element {TABLE} {each}" for each in (element, opened) if each]
