"""Links, addresses and routes, by netlink, without a process and without moving a link.

pyroute2 encodes and decodes the messages; the socket is ours, because one ``sendmsg`` then carries
a whole batch and no event loop stands between a thread and the kernel. ``import pyroute2`` costs
170 ms and 33 MB, so it is imported at the first use: the daemon pays for it, nobody else.

A :class:`Netlink` belongs to the network namespace in which it was opened, whatever thread uses it
later::

    with Netlink() as host, Netlink(sandbox.path) as inside:
        host.veth("veth12ab", "eth0", namespace=sandbox.path, master=host.index("engine0"))
        inside.configure("eth0", addresses=[ip_interface("172.17.0.2/16")])
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from ipaddress import IPv4Interface, IPv6Interface, ip_interface, ip_network
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from drivetrain.host import namespaces

if TYPE_CHECKING:
    from drivetrain.network import Address, Interface, Prefix

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_SETLINK = 16, 17, 18, 19
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
_NLM_REQUEST, _NLM_ACK, _NLM_DUMP = 1, 4, 0x300
_NLM_REPLACE, _NLM_EXCL, _NLM_CREATE = 0x100, 0x200, 0x400
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_IFF_UP = 1
_IFA_F_NODAD = 2
_RT_TABLE_MAIN, _RT_TABLE_LOCAL = 254, 255
_ALL_ROUTES, _SCOPE_LINK, _PROTO_STATIC, _UNICAST = 0, 253, 4, 1
_HEADER = struct.Struct("=IHHII")
_SIOCGIFINDEX = 0x8933
#: struct ifreq with an index.
_IFREQ = struct.Struct("16si20x")


@dataclass(frozen=True, slots=True)
class LinkInfo:
    """A link as the kernel shows it.

    Attributes:
        index: in its namespace.
        name: such as ``eth0``.
        kind: ``bridge``, ``veth``, …; empty for a device of the hardware.
        alias: the free text that ``ip link set alias`` writes.
        master: index of the bridge it is a port of; 0: none.
        parent: index of the link it is stacked on (VLAN, macvlan, ipvlan), or of a veth's other
            end; 0: none, or in another namespace.
        mac: lower case with colons.
        mtu: in bytes.
        up: it is administratively up.
    """

    index: int
    name: str
    kind: str
    alias: str
    master: int
    mac: str
    mtu: int
    up: bool
    parent: int = 0


def _attributes(message: Any) -> dict[str, Any]:
    return dict(message["attrs"])


def _family(address: Any) -> int:
    return socket.AF_INET if address.version == 4 else socket.AF_INET6


class Netlink:
    """A NETLINK_ROUTE socket in one network namespace; every method may be called by any thread.

    Args:
        namespace: the namespace to open it in; ``None``: that of the calling thread.
    """

    def __init__(self, namespace: Path | None = None) -> None:
        if namespace is None:
            self._socket = self._open()
        else:
            self._socket = namespaces.run_in(namespace, self._open)
        self._lock = threading.Lock()
        self._sequence = 0

    @staticmethod
    def _open() -> socket.socket:
        opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        opened.bind((0, 0))
        return opened

    def close(self) -> None:
        """Close the socket; may be called twice."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _encode(self, message: Any, kind: int, flags: int) -> bytes:
        self._sequence += 1
        message["header"]["type"] = kind
        message["header"]["flags"] = _NLM_REQUEST | flags
        message["header"]["sequence_number"] = self._sequence
        message.encode()
        return bytes(message.data)

    def _send(self, messages: Sequence[tuple[Any, int, int]], ignore: Sequence[int] = ()) -> None:
        """Send a batch in one call and wait for all answers; raise the first error."""
        if not messages:
            return
        with self._lock:
            batch = b"".join(self._encode(m, kind, flags | _NLM_ACK) for m, kind, flags in messages)
            self._socket.sendto(batch, (0, 0))
            failed = 0
            waiting = len(messages)
            while waiting:
                data = self._socket.recv(65536)
                offset = 0
                while offset < len(data):
                    length, kind, _, _, _ = _HEADER.unpack_from(data, offset)
                    if kind == _NLMSG_ERROR:
                        waiting -= 1
                        code = -struct.unpack_from("=i", data, offset + _HEADER.size)[0]
                        if code and code not in ignore:
                            failed = failed or code
                    offset += (length + 3) & ~3
        if failed:
            raise OSError(failed, os.strerror(failed))

    def _dump(self, request: Any, kind: int, answer: Callable[[bytes], Any]) -> list[Any]:
        found: list[Any] = []
        with self._lock:
            self._socket.sendto(self._encode(request, kind, _NLM_DUMP), (0, 0))
            while True:
                data = self._socket.recv(1 << 20)
                offset = 0
                while offset < len(data):
                    length, received, _, _, _ = _HEADER.unpack_from(data, offset)
                    if received == _NLMSG_DONE:
                        return found
                    if received == _NLMSG_ERROR:
                        code = -struct.unpack_from("=i", data, offset + _HEADER.size)[0]
                        raise OSError(code, os.strerror(code))
                    message = answer(data[offset : offset + length])
                    message.decode()
                    found.append(message)
                    offset += (length + 3) & ~3

    # Links ----------------------------------------------------------------------------------

    def links(self) -> list[LinkInfo]:
        """Return every link of the namespace."""
        from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

        return [_link(message) for message in self._dump(ifinfmsg(), RTM_GETLINK, ifinfmsg)]

    def link(self, name: str) -> LinkInfo | None:
        """Return the link of that name, or ``None``."""
        from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

        request = ifinfmsg()
        request["attrs"] = [("IFLA_IFNAME", name)]
        with self._lock:
            self._socket.sendto(self._encode(request, RTM_GETLINK, 0), (0, 0))
            data = self._socket.recv(1 << 20)
        _, kind, _, _, _ = _HEADER.unpack_from(data)
        if kind == _NLMSG_ERROR:
            code = -struct.unpack_from("=i", data, _HEADER.size)[0]
            if code == errno.ENODEV:
                return None
            raise OSError(code, f"{os.strerror(code)}: {name}")
        message = ifinfmsg(data)
        message.decode()
        return _link(message)

    def index(self, name: str) -> int:
        """Return the index of a link.

        Raises:
            OSError: ``ENODEV``, there is no such link.
        """
        # By ioctl: it waits for nobody, while netlink waits for the teardown of other namespaces.
        request = _IFREQ.pack(name.encode(), 0)
        try:
            return int(_IFREQ.unpack(fcntl.ioctl(self._socket, _SIOCGIFINDEX, request))[1])
        except (OSError, struct.error) as error:
            raise OSError(errno.ENODEV, f"no link {name}") from error

    def bridge(self, name: str, *, alias: str = "", mtu: int = 0, mac: str = "") -> None:
        """Make a bridge and set it up.

        Raises:
            OSError: ``EEXIST``, the name is taken.
        """
        from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

        made, changed = ifinfmsg(), ifinfmsg()
        made["attrs"] = [
            ("IFLA_IFNAME", name),
            ("IFLA_LINKINFO", {"attrs": [("IFLA_INFO_KIND", "bridge")]}),
        ]
        if mac:
            made["attrs"].append(("IFLA_ADDRESS", mac))
        changed["flags"] = changed["change"] = _IFF_UP
        changed["attrs"] = [("IFLA_IFNAME", name)]
        if alias:
            changed["attrs"].append(("IFLA_IFALIAS", alias))
        if mtu:
            changed["attrs"].append(("IFLA_MTU", mtu))
        self._send([(made, RTM_NEWLINK, _NLM_CREATE | _NLM_EXCL)])
        self._send([(changed, RTM_NEWLINK, 0)])

    def veth(
        self,
        name: str,
        peer: str,
        *,
        namespace: Path | None = None,
        master: int = 0,
        mac: str = "",
        mtu: int = 0,
        isolated: bool = False,
        hairpin: bool = False,
        peer_up: bool = False,
    ) -> None:
        """Make a veth pair whose other end is born in ``namespace``; this end is up.

        Args:
            name: of this end.
            peer: name of the other end.
            namespace: where the other end lives; ``None``: here.
            master: index of the bridge that this end becomes a port of.
            mac: of the other end.
            mtu: of both ends.
            isolated: the port may not talk to other isolated ports of its bridge.
            hairpin: the port may send a frame back to where it came from.
            peer_up: set the other end up as well.

        Raises:
            OSError: ``EEXIST``, one of the names is taken.
        """
        from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

        other: dict[str, Any] = {"attrs": [("IFLA_IFNAME", peer)]}
        mine = ifinfmsg()
        mine["flags"] = mine["change"] = _IFF_UP
        mine["attrs"] = [("IFLA_IFNAME", name)]
        if master:
            mine["attrs"].append(("IFLA_MASTER", master))
        if mac:
            other["attrs"].append(("IFLA_ADDRESS", mac))
        if mtu:
            other["attrs"].append(("IFLA_MTU", mtu))
            mine["attrs"].append(("IFLA_MTU", mtu))
        handle = -1
        try:
            if namespace is not None:
                handle = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
                other["attrs"].append(("IFLA_NET_NS_FD", handle))
            info = {"attrs": [("VETH_INFO_PEER", other)]}
            mine["attrs"].append(
                ("IFLA_LINKINFO", {"attrs": [("IFLA_INFO_KIND", "veth"), ("IFLA_INFO_DATA", info)]})
            )
            self._send([(mine, RTM_NEWLINK, _NLM_CREATE | _NLM_EXCL)])
        finally:
            if handle >= 0:
                os.close(handle)
        if isolated or hairpin:
            self.bridge_port(name, isolated=isolated, hairpin=hairpin)
        if peer_up:
            # Not with the first message: the kernel opens the other end before they are a pair.
            with Netlink(namespace) if namespace is not None else nullcontext(self) as there:
                there.set_link(peer, attributes={}, up=True)

    def stack(
        self,
        name: str,
        kind: str,
        parent: int,
        *,
        data: Mapping[str, Any],
        namespace: Path | None = None,
        mac: str = "",
        mtu: int = 0,
    ) -> None:
        """Make a link on top of another one, born in ``namespace``, and set it up.

        Args:
            name: of the new link.
            kind: ``vlan``, ``macvlan`` or ``ipvlan``.
            parent: index of the link below, in the namespace of this socket.
            data: pyroute2's ``IFLA_…`` names of the kind.
            namespace: where it lives; ``None``: here.
            mac: empty: the kernel's choice.
            mtu: in bytes; 0: the parent's.

        Raises:
            OSError: ``EEXIST``, the name is taken; ``EOPNOTSUPP``, the kernel lacks the kind;
                ``EBUSY`` or ``EINVAL``, the parent does not take it; ``EADDRINUSE``, another link
                on the parent has the MAC.
        """
        if namespace is None:
            self._new_stacked(name, kind, parent, data, mac, mtu, _IFF_UP, -1)
            return
        passing = f"new{secrets.token_hex(5)}"
        handle = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
        try:
            try:
                self._new_stacked(name, kind, parent, data, mac, mtu, _IFF_UP, handle)
                return
            except OSError as error:
                if error.errno != errno.EEXIST:
                    raise
            # Kernels before 6.14 look for the name here, where an eth0 is likely, and not there.
            # Naming it inside costs 15 ms, so it is the second choice.
            self._new_stacked(passing, kind, parent, data, mac, mtu, 0, handle)
        finally:
            os.close(handle)
        with Netlink(namespace) as there:
            try:
                there.set_link(passing, attributes={"IFLA_IFNAME": name}, up=True)
            except OSError:
                if not there.delete_link(passing):
                    there.delete_link(name)
                raise

    def _new_stacked(
        self, name: str, kind: str, parent: int, data: Mapping[str, Any], mac: str, mtu: int,
        flags: int, namespace: int,
    ) -> None:  # fmt: skip
        from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

        _complete_kinds()
        info = {"attrs": list(data.items())}
        message = ifinfmsg()
        message["flags"] = message["change"] = flags
        message["attrs"] = [
            ("IFLA_IFNAME", name),
            ("IFLA_LINK", parent),
            ("IFLA_LINKINFO", {"attrs": [("IFLA_INFO_KIND", kind), ("IFLA_INFO_DATA", info)]}),
        ]
        if mac:
            message["attrs"].append(("IFLA_ADDRESS", mac))
        if mtu:
            message["attrs"].append(("IFLA_MTU", mtu))
        if namespace >= 0:
            message["attrs"].append(("IFLA_NET_NS_FD", namespace))
        self._send([(message, RTM_NEWLINK, _NLM_CREATE | _NLM_EXCL)])

    def bridge_port(self, name: str, *, isolated: bool = False, hairpin: bool = False) -> None:
        """Say what a port of a bridge may do.

        Args:
            name: of the link that is a port.
            isolated: it may not talk to the bridge's other isolated ports.
            hairpin: it may send a frame back to where it came from.
        """
        from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

        message = ifinfmsg()
        message["family"] = socket.AF_BRIDGE
        message["index"] = self.index(name)
        flags = [("IFLA_BRPORT_ISOLATED", int(isolated)), ("IFLA_BRPORT_MODE", int(hairpin))]
        message["attrs"] = [("IFLA_PROTINFO", {"attrs": flags}, 0x8000)]
        self._send([(message, RTM_SETLINK, 0)])

    def set_link(self, name: str, *, attributes: Mapping[str, Any], up: bool | None = None) -> None:
        """Change attributes (pyroute2's ``IFLA_…`` names) and the state of a link.

        Raises:
            OSError: ``ENODEV``, there is no such link.
        """
        self._send([self._change(name, attributes, up)])

    def _change(
        self, name: str, attributes: Mapping[str, Any], up: bool | None
    ) -> tuple[Any, int, int]:
        from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

        message = ifinfmsg()
        if "IFLA_IFNAME" in attributes:
            message["index"] = self.index(name)
            message["attrs"] = list(attributes.items())
        else:
            message["attrs"] = [("IFLA_IFNAME", name), *attributes.items()]
        if up is not None:
            message["change"] = _IFF_UP
            message["flags"] = _IFF_UP if up else 0
        return message, RTM_NEWLINK, 0

    def delete_link(self, name: str) -> bool:
        """Delete a link; deleting what is gone is fine.

        Returns:
            Whether it existed.
        """
        from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

        message = ifinfmsg()
        message["attrs"] = [("IFLA_IFNAME", name)]
        try:
            self._send([(message, RTM_DELLINK, 0)])
        except OSError as error:
            if error.errno in (errno.ENODEV, errno.EINVAL):
                return False
            raise
        return True

    # Addresses and routes -------------------------------------------------------------------

    def addresses(self, index: int = 0) -> list[tuple[int, Interface]]:
        """Return pairs of link index and address, of one link or of all."""
        from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg

        found: list[tuple[int, Interface]] = []
        for message in self._dump(ifaddrmsg(), RTM_GETADDR, ifaddrmsg):
            attributes = _attributes(message)
            text = attributes.get("IFA_LOCAL") or attributes.get("IFA_ADDRESS")
            if text and index in (0, message["index"]):
                found.append((message["index"], ip_interface(f"{text}/{message['prefixlen']}")))
        return found

    def add_addresses(self, index: int, addresses: Iterable[Interface]) -> None:
        """Give addresses to a link; one that it has already is fine."""
        self._send([_address(index, one) for one in addresses], ignore=(errno.EEXIST,))

    def delete_address(self, index: int, address: Interface) -> None:
        """Take an address away; one that it does not have is fine."""
        message, _, _ = _address(index, address)
        self._send([(message, RTM_DELADDR, 0)], ignore=(errno.EADDRNOTAVAIL, errno.ENODEV))

    def routes(self) -> list[tuple[Prefix, int]]:
        """Return destinations and link indexes of the main table, default routes left out."""
        from pyroute2.netlink.rtnl.rtmsg import rtmsg

        found: list[tuple[Prefix, int]] = []
        for message in self._dump(rtmsg(), RTM_GETROUTE, rtmsg):
            attributes = _attributes(message)
            text = attributes.get("RTA_DST")
            if text and attributes.get("RTA_TABLE", message["table"]) == _RT_TABLE_MAIN:
                prefix = ip_network(f"{text}/{message['dst_len']}", strict=False)
                found.append((prefix, attributes.get("RTA_OIF", 0)))
        return found

    def add_route(
        self,
        index: int,
        destination: Prefix | None,
        gateway: Address | None,
        *,
        version: int = 4,
        source: Address | None = None,
    ) -> None:
        """Add or replace a route; ``None`` as destination means the default route.

        ``source`` is the address that the host prefers for what it sends by it.
        """
        message, kind, flags = _route(index, destination, gateway, version)
        if source is not None:
            message["attrs"].append(("RTA_PREFSRC", str(source)))
        self._send([(message, kind, flags)])

    def delete_route(
        self, index: int, destination: Prefix | None, gateway: Address | None, *, version: int = 4
    ) -> None:
        """Delete a route; one that is gone is fine."""
        message, _, _ = _route(index, destination, gateway, version)
        self._send([(message, RTM_DELROUTE, 0)], ignore=(errno.ESRCH, errno.ENODEV))

    def configure(
        self,
        name: str,
        *,
        addresses: Sequence[Interface] = (),
        gateways: Sequence[Address] = (),
        routes: Sequence[tuple[Prefix, Address | None]] = (),
        default_on_link: bool = False,
        loopback: bool = False,
    ) -> int:
        """Set a link up with its addresses and routes, in one batch.

        Args:
            name: of the link.
            addresses: to add.
            gateways: default gateways.
            routes: further destinations with their gateways (``None``: on the link).
            default_on_link: default routes through the link itself, for the versions it has.
            loopback: set ``lo`` up as well.

        Returns:
            The index of the link.
        """
        index = self.index(name)
        batch = [self._change("lo", {}, True)] if loopback else []
        batch.append(self._change(name, {}, True))
        batch += [_address(index, address) for address in addresses]
        batch += [_route(index, to, gateway, to.version) for to, gateway in routes]
        batch += [_route(index, None, gateway, gateway.version) for gateway in gateways]
        if default_on_link:
            batch += [_route(index, None, None, one.version) for one in addresses]
        self._send(batch, ignore=(errno.EEXIST,))
        return index


@cache
def _complete_kinds() -> None:
    """Teach pyroute2 the flags of ipvlan links (Linux 4.15), which it does not know."""
    from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
    from pyroute2.netlink.rtnl.ifinfmsg.plugins.ipvlan import ipvlan as known

    class ipvlan(known):  # type: ignore[misc]  # noqa: N801
        nla_map = (*known.nla_map, ("IFLA_IPVLAN_FLAGS", "uint16"))

    ifinfmsg.ifinfo.register_link_kind(module={"ipvlan": ipvlan})


def _link(message: Any) -> LinkInfo:
    attributes = _attributes(message)
    info = attributes.get("IFLA_LINKINFO")
    kind = _attributes(info).get("IFLA_INFO_KIND", "") if info else ""
    return LinkInfo(
        index=message["index"],
        name=attributes["IFLA_IFNAME"],
        kind=kind,
        alias=attributes.get("IFLA_IFALIAS", ""),
        master=attributes.get("IFLA_MASTER", 0) or 0,
        mac=attributes.get("IFLA_ADDRESS", ""),
        mtu=attributes.get("IFLA_MTU", 0),
        up=bool(message["flags"] & _IFF_UP),
        parent=0 if "IFLA_LINK_NETNSID" in attributes else attributes.get("IFLA_LINK", 0) or 0,
    )


def _address(index: int, address: IPv4Interface | IPv6Interface) -> tuple[Any, int, int]:
    from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg

    message = ifaddrmsg()
    message["index"] = index
    message["family"] = _family(address)
    message["prefixlen"] = address.network.prefixlen
    message["attrs"] = [("IFA_LOCAL", str(address.ip)), ("IFA_ADDRESS", str(address.ip))]
    if address.version == 4:
        broadcast = address.network.broadcast_address
        if address.network.prefixlen < 31:
            message["attrs"].append(("IFA_BROADCAST", str(broadcast)))
    else:
        # The engine hands out each address once: detecting duplicates would cost a second.
        message["flags"] = _IFA_F_NODAD
    return message, RTM_NEWADDR, _NLM_CREATE | _NLM_EXCL


def _route(
    index: int, destination: Prefix | None, gateway: Address | None, version: int
) -> tuple[Any, int, int]:
    from pyroute2.netlink.rtnl.rtmsg import rtmsg

    message = rtmsg()
    message["family"] = socket.AF_INET if version == 4 else socket.AF_INET6
    message["table"] = _RT_TABLE_MAIN
    message["proto"] = _PROTO_STATIC
    message["type"] = _UNICAST
    message["scope"] = _ALL_ROUTES if gateway is not None or version == 6 else _SCOPE_LINK
    message["attrs"] = [("RTA_OIF", index)]
    if destination is not None:
        message["dst_len"] = destination.prefixlen
        message["attrs"].append(("RTA_DST", str(destination.network_address)))
    if gateway is not None:
        message["attrs"].append(("RTA_GATEWAY", str(gateway)))
    return message, RTM_NEWROUTE, _NLM_CREATE | _NLM_REPLACE
