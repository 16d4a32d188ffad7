"""Links, addresses and routes, by netlink, without a process and without moving a link.

A :class:`Netlink` belongs to the network namespace in which it was opened, whatever thread uses it
later::

    with Netlink() as host, Netlink(sandbox.path) as inside:
        host.veth("veth12ab", "eth0", namespace=sandbox.path, master=host.index("engine0"))
        inside.configure("eth0", addresses=[ip_interface("172.17.0.2/16")])
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from ipaddress import ip_interface
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drivetrain.host.rtmessages import (
    CREATE,
    EXCL,
    IFF_UP,
    ROUTES,
    RTM_NEWLINK,
    address_message,
    deletion_message,
    main_route_of,
    port_message,
    route_message,
    state_message,
    veth_message,
)
from drivetrain.host.rtnetlink import (
    RTM_DELADDR,
    RTM_DELROUTE,
    RTM_GETADDR,
    RTM_GETLINK,
    RTM_GETROUTE,
    Connection,
    LinkInfo,
    attributes_of,
    complete_kinds,
    link_of,
)

if TYPE_CHECKING:
    from drivetrain.network import Address, Interface, Prefix

#: With it the kernel minds what a question for many answers is limited to (Linux 4.20).
_SOL_NETLINK, _GET_STRICT_CHK = 270, 12

__all__ = ["LinkInfo", "Netlink"]


class Netlink(Connection):
    """Links, addresses and routes of one network namespace; any thread may call any method."""

    def links(self) -> list[LinkInfo]:
        """Return every link of the namespace."""
        from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

        return [link_of(message) for message in self._dump(ifinfmsg(), RTM_GETLINK, ifinfmsg)]

    def link(self, name: str) -> LinkInfo | None:
        """Return the link of that name, or ``None``."""
        from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

        request = ifinfmsg()
        request["attrs"] = [("IFLA_IFNAME", name)]
        try:
            return link_of(self._get(request, RTM_GETLINK, ifinfmsg))
        except OSError as error:
            if error.errno == errno.ENODEV:
                return None
            raise OSError(error.errno, f"{error.strerror}: {name}") from None

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
        changed["flags"] = changed["change"] = IFF_UP
        changed["attrs"] = [("IFLA_IFNAME", name)]
        if alias:
            changed["attrs"].append(("IFLA_IFALIAS", alias))
        if mtu:
            changed["attrs"].append(("IFLA_MTU", mtu))
        self._send([(made, RTM_NEWLINK, CREATE | EXCL)])
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
        handle = -1
        try:
            if namespace is not None:
                handle = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
            batch = [veth_message(name, peer, namespace=handle, master=master, mac=mac, mtu=mtu)]
            if isolated or hairpin:
                batch.append(port_message(name, isolated=isolated, hairpin=hairpin))
            self._send(batch)
        finally:
            if handle >= 0:
                os.close(handle)
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
            self._new_stacked(name, kind, parent, data, mac, mtu, IFF_UP, -1)
            return
        passing = f"new{secrets.token_hex(5)}"
        handle = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
        try:
            try:
                self._new_stacked(name, kind, parent, data, mac, mtu, IFF_UP, handle)
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

        complete_kinds()
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
        self._send([(message, RTM_NEWLINK, CREATE | EXCL)])

    def set_link(self, name: str, *, attributes: Mapping[str, Any], up: bool | None = None) -> None:
        """Change attributes (pyroute2's ``IFLA_…`` names) and the state of a link.

        Raises:
            OSError: ``ENODEV``, there is no such link.
        """
        self._send([self._change(name, attributes, up)])

    def _change(
        self, name: str, attributes: Mapping[str, Any], up: bool | None
    ) -> tuple[Any, int, int]:
        if not attributes and up is not None:
            return state_message(name, up)
        from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

        message = ifinfmsg()
        if "IFLA_IFNAME" in attributes:
            message["index"] = self.index(name)
            message["attrs"] = list(attributes.items())
        else:
            message["attrs"] = [("IFLA_IFNAME", name), *attributes.items()]
        if up is not None:
            message["change"] = IFF_UP
            message["flags"] = IFF_UP if up else 0
        return message, RTM_NEWLINK, 0

    def delete_link(self, name: str) -> bool:
        """Delete a link; deleting what is gone is fine.

        Returns:
            Whether it existed.
        """
        try:
            self._send([deletion_message(name)])
        except OSError as error:
            if error.errno in (errno.ENODEV, errno.EINVAL):
                return False
            raise
        return True

    # Addresses and routes

    def addresses(self, index: int = 0) -> list[tuple[int, Interface]]:
        """Return pairs of link index and address, of one link or of all."""
        from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg

        found: list[tuple[int, Interface]] = []
        for message in self._dump(ifaddrmsg(), RTM_GETADDR, ifaddrmsg):
            attributes = attributes_of(message)
            text = attributes.get("IFA_LOCAL") or attributes.get("IFA_ADDRESS")
            if text and index in (0, message["index"]):
                found.append((message["index"], ip_interface(f"{text}/{message['prefixlen']}")))
        return found

    def add_addresses(self, index: int, addresses: Iterable[Interface]) -> None:
        """Give addresses to a link; one that it has already is fine."""
        self._send([address_message(index, one) for one in addresses], ignore=(errno.EEXIST,))

    def delete_address(self, index: int, address: Interface) -> None:
        """Take an address away; one that it does not have is fine."""
        message, _, _ = address_message(index, address)
        self._send([(message, RTM_DELADDR, 0)], ignore=(errno.EADDRNOTAVAIL, errno.ENODEV))

    def routes(self) -> list[tuple[Prefix, int]]:
        """Return destinations and link indexes of the main table, default routes left out."""
        with contextlib.suppress(OSError):
            self._socket.setsockopt(_SOL_NETLINK, _GET_STRICT_CHK, 1)
        found = map(main_route_of, self._dump_packed(ROUTES, RTM_GETROUTE))
        return [route for route in found if route is not None]

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
        self._send([route_message(index, destination, gateway, version, source)])

    def delete_route(
        self, index: int, destination: Prefix | None, gateway: Address | None, *, version: int = 4
    ) -> None:
        """Delete a route; one that is gone is fine."""
        message, _, _ = route_message(index, destination, gateway, version)
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
        batch += [address_message(index, address) for address in addresses]
        batch += [route_message(index, to, gateway, to.version) for to, gateway in routes]
        batch += [route_message(index, None, gateway, gateway.version) for gateway in gateways]
        if default_on_link:
            batch += [route_message(index, None, None, one.version) for one in addresses]
        self._send(batch, ignore=(errno.EEXIST,))
        return index
