"""VXLAN links, neighbours and forwarding entries, by netlink."""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from drivetrain.host.netlink import Netlink
from drivetrain.host.rtmessages import Packed, attribute
from drivetrain.network import Address

_NEWLINK, _GETLINK, _SETLINK, _NEWNEIGH, _DELNEIGH, _GETNEIGH = 16, 18, 19, 28, 29, 30
_REPLACE, _EXCL, _CREATE, _APPEND = 0x100, 0x200, 0x400, 0x800
_SELF, _MASTER = 2, 4
_NOARP, _PERMANENT = 0x40, 0x80
_NESTED = 0x8000
_EVERYONE = "00:00:00:00:00:00"
_DST, _LLADDR = 1, 2
_BODY = struct.Struct("=BxxxiHBB")
#: Messages sent at once: their answers have to fit into the socket's buffer.
_BATCH = 200


@dataclass(frozen=True, slots=True)
class Remote:
    """An endpoint on another host.

    Attributes:
        tunnel: where its host is on the data plane.
    """

    mac: str
    addresses: tuple[Address, ...]
    tunnel: Address


class Forwarding(Netlink):
    """Netlink with what an overlay needs besides; of one namespace, like its base."""

    def vxlan(
        self, name: str, number: int, *, local: Address, port: int, namespace: Path | None,
        mtu: int,
    ) -> None:  # fmt: skip
        """Make a VXLAN link in ``namespace`` whose packets leave from the socket's own one.

        Raises:
            OSError: ``EEXIST``: this host has that number already.
        """
        from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

        data: list[tuple[str, Any]] = [
            ("IFLA_VXLAN_ID", number),
            ("IFLA_VXLAN_PORT", port),
            ("IFLA_VXLAN_LEARNING", 0),
            ("IFLA_VXLAN_LOCAL" if local.version == 4 else "IFLA_VXLAN_LOCAL6", str(local)),
        ]
        own = Path("/proc/thread-self/ns/net")
        handle = os.open(namespace or own, os.O_RDONLY | os.O_CLOEXEC)
        try:
            message = ifinfmsg()
            message["attrs"] = [
                ("IFLA_IFNAME", name),
                ("IFLA_MTU", mtu),
                ("IFLA_NET_NS_FD", handle),
                (
                    "IFLA_LINKINFO",
                    {
                        "attrs": [
                            ("IFLA_INFO_KIND", "vxlan"),
                            ("IFLA_INFO_DATA", {"attrs": data}),
                        ]
                    },
                ),
            ]
            self._send([(message, _NEWLINK, _CREATE | _EXCL)])
        finally:
            os.close(handle)

    def local_of(self, name: str) -> Address | None:
        """Return the address that a VXLAN link sends from."""
        from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

        for message in self._dump(ifinfmsg(), _GETLINK, ifinfmsg):
            if message.get_attr("IFLA_IFNAME") == name:
                for kind in ("IFLA_VXLAN_LOCAL", "IFLA_VXLAN_LOCAL6"):
                    text = message.get_nested("IFLA_LINKINFO", "IFLA_INFO_DATA", kind)
                    if text:
                        return ip_address(text)
        return None

    def join_bridge(self, name: str, bridge: int) -> None:
        """Make a VXLAN link a port that learns nothing and answers ARP and ND from neighbours."""
        from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

        self.set_link(name, attributes={"IFLA_MASTER": bridge}, up=True)
        message = ifinfmsg()
        message["family"] = socket.AF_BRIDGE
        message["index"] = self.index(name)
        flags = [("IFLA_BRPORT_LEARNING", 0), ("IFLA_BRPORT_NEIGH_SUPPRESS", 1)]
        message["attrs"] = [("IFLA_PROTINFO", {"attrs": flags}, _NESTED)]
        self._send([(message, _SETLINK, 0)])

    def flood_multicast(self, bridge: str) -> None:
        """Have a bridge send multicast to all ports, rather than to those that subscribed."""
        info = {"attrs": [("IFLA_BR_MCAST_SNOOPING", 0)]}
        kind = {"attrs": [("IFLA_INFO_KIND", "bridge"), ("IFLA_INFO_DATA", info)]}
        self.set_link(bridge, attributes={"IFLA_LINKINFO": kind})

    def reach(self, bridge: int, vxlan: int, remotes: Iterable[Remote]) -> None:
        """Add what leads to endpoints on other hosts; what is there is replaced."""
        messages: list[Packed] = []
        for remote in remotes:
            messages.append(_fdb(vxlan, remote.mac, _SELF, _NEWNEIGH, remote.tunnel))
            messages.append(_fdb(vxlan, remote.mac, _MASTER, _NEWNEIGH))
            messages += [_neighbour(bridge, a, remote.mac, _NEWNEIGH) for a in remote.addresses]
        self._send_all(messages)

    def unreach(self, bridge: int, vxlan: int, remotes: Iterable[Remote]) -> None:
        """Remove what leads to endpoints; what is gone is fine."""
        messages: list[Packed] = []
        for remote in remotes:
            messages.append(_fdb(vxlan, remote.mac, _SELF, _DELNEIGH, remote.tunnel))
            messages.append(_fdb(vxlan, remote.mac, _MASTER, _DELNEIGH))
            messages += [_neighbour(bridge, a, remote.mac, _DELNEIGH) for a in remote.addresses]
        self._send_all(messages)

    def flood(self, vxlan: int, tunnels: Iterable[Address], *, add: bool) -> None:
        """Add or remove hosts that get a copy of what goes to everyone (head-end replication)."""
        kind = _NEWNEIGH if add else _DELNEIGH
        messages = []
        for tunnel in tunnels:
            message, _, _ = _fdb(vxlan, _EVERYONE, _SELF, kind, tunnel)
            messages.append((message, kind, _CREATE | _APPEND if add else 0))
        self._send_all(messages)

    def reached(self, bridge: int, vxlan: int) -> tuple[set[Remote], set[Address]]:
        """Return what leads to other hosts now: to endpoints, and what goes to everyone."""
        from pyroute2.netlink.rtnl.ndmsg import ndmsg

        request = ndmsg()
        request["family"] = socket.AF_BRIDGE
        tunnels: dict[str, Address] = {}
        everyone: set[Address] = set()
        for message in self._dump(request, _GETNEIGH, ndmsg):
            found = dict(message["attrs"])
            if message["ifindex"] != vxlan or "NDA_DST" not in found:
                continue
            tunnel = ip_address(found["NDA_DST"])
            if found["NDA_LLADDR"] == _EVERYONE:
                everyone.add(tunnel)
            else:
                tunnels[found["NDA_LLADDR"]] = tunnel
        addresses: dict[str, list[Address]] = {}
        for message in self._dump(ndmsg(), _GETNEIGH, ndmsg):
            found = dict(message["attrs"])
            if message["ifindex"] == bridge and message["state"] & _PERMANENT:
                mac = found["NDA_LLADDR"]
                addresses.setdefault(mac, []).append(ip_address(found["NDA_DST"]))
        remotes = {
            Remote(mac, tuple(sorted(addresses.get(mac, ()), key=str)), tunnel)
            for mac, tunnel in tunnels.items()
        }
        return remotes, everyone

    def _send_all(self, messages: list[Packed]) -> None:
        gone = (errno.ENOENT, errno.ESRCH, errno.EEXIST)
        for start in range(0, len(messages), _BATCH):
            self._send(messages[start : start + _BATCH], ignore=gone)


def _entry(
    family: int, link: int, state: int, flags: int, mac: str, address: Address | None
) -> bytes:
    """Return a neighbour or forwarding entry, packed by hand: pyroute2 takes 0.15 ms for each."""
    body = _BODY.pack(family, link, state, flags, 0)
    body += attribute(_LLADDR, bytes.fromhex(mac.replace(":", "")))
    return body if address is None else body + attribute(_DST, address.packed)


def _fdb(
    link: int, mac: str, flag: int, kind: int, tunnel: Address | None = None
) -> Packed:
    # NOARP on the bridge is what `bridge fdb` calls static; PERMANENT would mean the port itself.
    state = _NOARP | (_PERMANENT if flag == _SELF else 0)
    entry = _entry(socket.AF_BRIDGE, link, state, flag, mac, tunnel)
    return entry, kind, _CREATE | _REPLACE if kind == _NEWNEIGH else 0


def _neighbour(link: int, address: Address, mac: str, kind: int) -> Packed:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    entry = _entry(family, link, _PERMANENT, 0, mac, address)
    return entry, kind, _CREATE | _REPLACE if kind == _NEWNEIGH else 0
