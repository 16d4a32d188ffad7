"""The firewall of overlays: a table of the host, and a small one in each segment.

On the host, table ``inet engine-overlay`` (the links to segments are called ``ov-…``):

===============  =================================================================================
chain            what it does
===============  =================================================================================
``user``         belongs to the administrator: consulted first, never flushed
``raw``          drops what containers send to the host's 127.0.0.0/8
``forward``      ``user``; into a segment only answers and published ports; out of it everything
``publish``      leads published ports to the segment (from prerouting and output); those on
                 ``::1``, which the kernel never routes elsewhere, are the engine's to carry
``postrouting``  what leaves a segment gets the host's address; so does what a container sends to a
                 port that its own network publishes
===============  =================================================================================

In a segment, table ``inet engine``: what leaves by the uplink gets the uplink's address, and a
port of the uplink's address leads to a container. The client's address stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from drivetrain.host.nft import Nft, NftError
from drivetrain.network import Address, PublishedPort

TABLE = "inet engine-overlay"
_MAPS = {
    "any4": "type inet_proto . inet_service : ipv4_addr . inet_service",
    "any6": "type inet_proto . inet_service : ipv6_addr . inet_service",
    "at4": "type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service",
    "at6": "type ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service",
}
_CHAINS = {
    "raw": "type filter hook prerouting priority raw;",
    "forward": "type filter hook forward priority filter;",
    "prerouting": "type nat hook prerouting priority dstnat;",
    "output": "type nat hook output priority -100;",
    "postrouting": "type nat hook postrouting priority srcnat;",
    "publish": "",
}
_RULES = """
add rule {t} raw iifname "ov-*" ip daddr 127.0.0.0/8 drop
add rule {t} forward jump user
add rule {t} forward oifname "ov-*" ct state established,related accept
add rule {t} forward oifname "ov-*" ct status dnat accept
add rule {t} forward oifname "ov-*" drop
add rule {t} forward iifname "ov-*" accept
add rule {t} prerouting fib daddr type local jump publish
add rule {t} output ip6 daddr ::1 return
add rule {t} output fib daddr type local jump publish
add rule {t} publish dnat ip to ip daddr . meta l4proto . th dport map @at4
add rule {t} publish meta nfproto ipv4 dnat ip to meta l4proto . th dport map @any4
add rule {t} publish dnat ip6 to ip6 daddr . meta l4proto . th dport map @at6
add rule {t} publish meta nfproto ipv6 dnat ip6 to meta l4proto . th dport map @any6
add rule {t} postrouting oifname "ov-*" ip saddr 127.0.0.0/8 masquerade
add rule {t} postrouting ip saddr {uplinks4} masquerade
add rule {t} postrouting ip6 saddr {uplinks6} masquerade
"""
_INNER = "inet engine"
_INNER_RULES = """
add chain {t} prerouting {{ type nat hook prerouting priority dstnat; }}
add chain {t} postrouting {{ type nat hook postrouting priority srcnat; }}
add map {t} to4 {{ type inet_proto . inet_service : ipv4_addr . inet_service; }}
add map {t} to6 {{ type inet_proto . inet_service : ipv6_addr . inet_service; }}
add rule {t} prerouting iifname "up0" meta nfproto ipv4 dnat ip to meta l4proto . th dport map @to4
add rule {t} prerouting iifname "up0" meta nfproto ipv6 dnat ip6 to meta l4proto . th dport map @to6
add rule {t} postrouting oifname "up0" masquerade
"""


@dataclass(frozen=True, slots=True)
class Published:
    """A published port on its way.

    Attributes:
        port: what was asked.
        uplink: the segment's address that the host leads it to.
        inner: the port there.
        container: the container's address.
    """

    port: PublishedPort
    uplink: Address
    inner: int
    container: Address

    def outside(self) -> str:
        """Return the element of the host's map."""
        port = self.port
        key = f"{port.protocol} . {port.host_port}"
        value = f"{self.uplink} . {self.inner}"
        version = port.host_address.version
        if port.host_address.is_unspecified:
            return f"any{version} {{ {key} : {value} }}"
        return f"at{version} {{ {port.host_address} . {key} : {value} }}"

    def inside(self) -> str:
        """Return the element of the segment's map."""
        port = self.port
        value = f"{self.container} . {port.container_port}"
        return f"to{self.container.version} {{ {port.protocol} . {self.inner} : {value} }}"


class OuterRules:
    """The table in the namespace that it was made in.

    Args:
        uplinks: the prefixes of all uplinks, IPv4 and IPv6.
    """

    def __init__(self, uplinks: tuple[str, str]) -> None:
        self._nft = Nft()
        self._uplinks = uplinks

    def close(self) -> None:
        """Leave; the rules stay."""
        self._nft.close()

    def present(self) -> bool:
        """Whether the table is there."""
        return self._nft.exists(f"map {TABLE} any4")

    def rebuild(self, published: Iterable[Published]) -> None:
        """Replace everything but the user's chain, in one transaction."""
        commands = [f"add table {TABLE}", f"add chain {TABLE} user"]
        for name, hook in _CHAINS.items():
            body = f"{{ {hook} }}" if hook else ""
            commands += [f"add chain {TABLE} {name} {body}", f"flush chain {TABLE} {name}"]
        for name, kind in _MAPS.items():
            commands += [f"add map {TABLE} {name} {{ {kind}; }}", f"flush map {TABLE} {name}"]
        four, six = self._uplinks
        commands.append(_RULES.format(t=TABLE, uplinks4=four, uplinks6=six))
        commands += [f"add element {TABLE} {each.outside()}" for each in published]
        self._nft.run("\n".join(commands))

    def publish(self, published: Published) -> None:
        """Lead a port of the host to a segment."""
        self._nft.run(f"add element {TABLE} {published.outside()}")

    def unpublish(self, published: Published) -> None:
        """Undo ``publish``; what is gone is fine."""
        _quietly(self._nft, f"delete element {TABLE} {published.outside()}")

    def remove(self) -> None:
        """Remove the table, unless the administrator has rules in it."""
        if not self._nft.exists(f"table {TABLE}"):
            return
        found = self._nft.query(f"list table {TABLE}")
        if not any("rule" in each and each["rule"]["chain"] == "user" for each in found):
            self._nft.run(f"delete table {TABLE}")


class InnerRules:
    """The table of a segment.

    Args:
        namespace: the segment's.
    """

    def __init__(self, namespace: Path) -> None:
        self._nft = Nft(namespace)

    def close(self) -> None:
        """Leave; the rules stay."""
        self._nft.close()

    def rebuild(self, *, has_uplink: bool) -> None:
        """Make the table anew, without any port."""
        commands = f"add table {_INNER}\ndelete table {_INNER}\nadd table {_INNER}"
        self._nft.run(commands + (_INNER_RULES.format(t=_INNER) if has_uplink else ""))

    def publish(self, published: Published) -> None:
        """Lead a port of the uplink to a container; once more is fine."""
        self._nft.run(f"add element {_INNER} {published.inside()}")

    def unpublish(self, published: Published) -> None:
        """Undo ``publish``; what is gone is fine."""
        _quietly(self._nft, f"delete element {_INNER} {published.inside()}")


def _quietly(nft: Nft, command: str) -> None:
    try:
        nft.run(command)
    except NftError:
        return
