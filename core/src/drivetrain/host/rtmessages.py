"""Messages of rtnetlink(7) that every start of a container sends, packed by hand.

pyroute2 takes 0.5 to 1 ms of processor time to encode one of them, the kernel less to do what it
says. Numbers are those of the kernel's ``if_link.h``, ``if_addr.h`` and ``rtnetlink.h``.
"""

from __future__ import annotations

import socket
import struct
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from drivetrain.network import Address, Interface, Prefix

#: The body of a message, its type and its flags.
Packed = tuple[bytes, int, int]

RTM_NEWLINK, RTM_DELLINK, RTM_NEWADDR, RTM_NEWROUTE = 16, 17, 20, 24
REPLACE, EXCL, CREATE = 0x100, 0x200, 0x400
IFF_UP = 1
TABLE_MAIN, _TABLE_LOCAL = 254, 255
_ALL_ROUTES, _SCOPE_LINK, _PROTO_STATIC, _UNICAST = 0, 253, 4, 1
_IFA_F_NODAD = 2

#: Bytes of the head that every message has.
_HEAD = 16
_LINK = struct.Struct("=BxHiII")
_ADDRESS = struct.Struct("=BBBBi")
_ROUTE = struct.Struct("=8BI")
_ATTRIBUTE = struct.Struct("=HH")

_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_MASTER = 1, 3, 4, 10
_IFLA_LINKINFO, _IFLA_NET_NS_FD = 18, 28
_KIND, _DATA, _SLAVE_KIND, _SLAVE_DATA = 1, 2, 4, 5
_VETH_PEER = 1
_BRIDGE_MODE, _BRIDGE_ISOLATED = 4, 33
_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST = 1, 2, 4
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PREFSRC, _RTA_TABLE = 1, 4, 5, 7, 15


def attribute(kind: int, value: bytes) -> bytes:
    """Return an attribute: its length, its type, its value, and what fills up four bytes."""
    return _ATTRIBUTE.pack(4 + len(value), kind) + value + bytes(-len(value) % 4)


def _number(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("=I", value))


def _named(name: str, *, mac: str = "", mtu: int = 0) -> bytes:
    found = attribute(_IFLA_IFNAME, name.encode() + b"\0")
    if mac:
        found += attribute(_IFLA_ADDRESS, bytes.fromhex(mac.replace(":", "")))
    if mtu:
        found += _number(_IFLA_MTU, mtu)
    return found


def _link(flags: int) -> bytes:
    return _LINK.pack(socket.AF_UNSPEC, 0, 0, flags, flags)


def veth_message(
    name: str, peer: str, *, namespace: int, master: int, mac: str, mtu: int
) -> Packed:
    """Return what makes a veth pair whose first end is up.

    Args:
        name: of the first end.
        peer: of the other one.
        namespace: an open file of the other end's; negative: the same.
        master: index of the bridge that the first end becomes a port of; 0: none.
        mac: of the other end.
        mtu: of both; 0: the kernel's.
    """
    other = _link(0) + _named(peer, mac=mac, mtu=mtu)
    if namespace >= 0:
        other += _number(_IFLA_NET_NS_FD, namespace)
    info = attribute(_KIND, b"veth") + attribute(_DATA, attribute(_VETH_PEER, other))
    body = _link(IFF_UP) + _named(name, mtu=mtu)
    if master:
        body += _number(_IFLA_MASTER, master)
    return body + attribute(_IFLA_LINKINFO, info), RTM_NEWLINK, CREATE | EXCL


def port_message(name: str, *, isolated: bool, hairpin: bool) -> Packed:
    """Return what says how a port of a bridge behaves."""
    flags = attribute(_BRIDGE_MODE, bytes([hairpin]))
    flags += attribute(_BRIDGE_ISOLATED, bytes([isolated]))
    info = attribute(_SLAVE_KIND, b"bridge") + attribute(_SLAVE_DATA, flags)
    return _link(0) + _named(name) + attribute(_IFLA_LINKINFO, info), RTM_NEWLINK, 0


def state_message(name: str, up: bool) -> Packed:
    """Return what sets a link up or down."""
    head = _LINK.pack(socket.AF_UNSPEC, 0, 0, IFF_UP if up else 0, IFF_UP)
    return head + _named(name), RTM_NEWLINK, 0


def deletion_message(name: str) -> Packed:
    """Return what deletes a link."""
    return _link(0) + _named(name), RTM_DELLINK, 0


def address_message(index: int, address: Interface) -> Packed:
    """Return what gives a link an address."""
    length = address.network.prefixlen
    body = attribute(_IFA_LOCAL, address.packed) + attribute(_IFA_ADDRESS, address.packed)
    # The engine hands out each address once: detecting duplicates would cost a second.
    flags = _IFA_F_NODAD if address.version == 6 else 0
    if address.version == 4 and length < 31:
        body += attribute(_IFA_BROADCAST, address.network.broadcast_address.packed)
    head = _ADDRESS.pack(_family(address), length, flags, 0, index)
    return head + body, RTM_NEWADDR, CREATE | EXCL


def route_message(
    index: int, destination: Prefix | None, gateway: Address | None, version: int,
    source: Address | None = None,
) -> Packed:  # fmt: skip
    """Return what adds or replaces a route; ``None`` as destination means the default route."""
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    scope = _ALL_ROUTES if gateway is not None or version == 6 else _SCOPE_LINK
    length = destination.prefixlen if destination is not None else 0
    body = _ROUTE.pack(family, length, 0, 0, TABLE_MAIN, _PROTO_STATIC, scope, _UNICAST, 0)
    if destination is not None:
        body += attribute(_RTA_DST, destination.network_address.packed)
    body += _number(_RTA_OIF, index)
    if gateway is not None:
        body += attribute(_RTA_GATEWAY, gateway.packed)
    if source is not None:
        body += attribute(_RTA_PREFSRC, source.packed)
    return body, RTM_NEWROUTE, CREATE | REPLACE


#: The body of a question for the routes of the main table; older kernels tell those of all tables.
ROUTES = _ROUTE.pack(0, 0, 0, 0, TABLE_MAIN, 0, 0, 0, 0)


def main_route_of(message: bytes) -> tuple[Prefix, int] | None:
    """Return destination and link of a route; ``None``: a default route, or of another table.

    A host with a thousand bridges has six thousand, which pyroute2 takes 0.1 ms each to decode.
    """
    family, length, _, _, table, _, _, _, _ = _ROUTE.unpack_from(message, _HEAD)
    if table == _TABLE_LOCAL:
        return None
    found: dict[int, bytes] = {}
    offset = _HEAD + _ROUTE.size
    while offset + _ATTRIBUTE.size <= len(message):
        size, kind = _ATTRIBUTE.unpack_from(message, offset)
        found[kind] = message[offset + _ATTRIBUTE.size : offset + size]
        offset += (size + 3) & ~3
    if _RTA_TABLE in found:
        table = struct.unpack("=I", found[_RTA_TABLE])[0]
    if _RTA_DST not in found or table != TABLE_MAIN:
        return None
    link = struct.unpack("=I", found[_RTA_OIF])[0] if _RTA_OIF in found else 0
    return _prefix(family, found[_RTA_DST], length), link


@lru_cache(8192)
def _prefix(family: int, address: bytes, length: int) -> Prefix:
    kind = IPv4Network if family == socket.AF_INET else IPv6Network
    return kind((address, length), strict=False)


def _family(address: Interface) -> int:
    return socket.AF_INET if address.version == 4 else socket.AF_INET6
