"""Reaching the containers of a macvlan network from their own host, and the host from them.

The kernel passes nothing between an interface and the macvlan links on it. So the host gets a
macvlan link too, and for each container a route over that link::

    mh-0123456789ab     on the parent, in bridge mode
    192.168.1.77        dev mh-0123456789ab  src the host's address

Without an auxiliary address of the name ``host``, the host speaks with the address that it has on
the parent anyway. Then two links of the host hear the questions of the whole network for that
address. ``arp_filter`` keeps the second one silent, but towards the containers, whose routes lead
over it. IPv6 has no such switch: there the link needs an address of its own (``host6``).
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from ipaddress import ip_network
from pathlib import Path

from drivetrain.host.netlink import LinkInfo, Netlink
from drivetrain.network import Address, Interface, Prefix
from drivetrain_network_macvlan.options import MacvlanSettings


class HostAccess:
    """The host's own links on macvlan networks.

    Args:
        netlink: in the namespace of the host.
        alias: marks the links.
    """

    def __init__(self, netlink: Netlink, alias: str) -> None:
        self._netlink = netlink
        self._alias = alias

    def ensure(self, chosen: MacvlanSettings, parent: LinkInfo) -> None:
        """Make the host's link on the parent, where it is missing."""
        name = chosen.host_link
        found = self._netlink.link(name)
        if found is not None and found.parent != parent.index:
            self._netlink.delete_link(name)
            found = None
        if found is None:
            data = {"IFLA_MACVLAN_MODE": "bridge"}
            self._netlink.stack(name, "macvlan", parent.index, data=data)
        self._netlink.set_link(name, attributes={"IFLA_IFALIAS": self._alias}, up=True)
        for switch, value in (("ipv4/conf", "arp_filter=1"), ("ipv6/conf", "accept_ra=0")):
            key, _, text = value.partition("=")
            path = Path("/proc/sys/net", switch, name, key)
            if path.exists():
                path.write_text(text)
        self._netlink.add_addresses(self._netlink.index(name), chosen.host_addresses)

    def add(
        self, chosen: MacvlanSettings, parent: LinkInfo, addresses: Iterable[Interface]
    ) -> None:
        """Lead the host to a container's addresses over its link."""
        index = self._netlink.index(chosen.host_link)
        for address in addresses:
            self._netlink.add_route(
                index,
                _single(address),
                None,
                version=address.version,
                source=self._source(chosen, parent, address),
            )

    def _source(
        self, chosen: MacvlanSettings, parent: LinkInfo, target: Interface
    ) -> Address | None:
        """Return what the host's address towards a container is; ``None``: the kernel chooses."""
        for own in chosen.host_addresses:
            if own.version == target.version:
                return own.ip
        for _, own in self._netlink.addresses(parent.index):
            if own.version == target.version and target.ip in own.network:
                return own.ip
        return None

    def remove(self, chosen: MacvlanSettings, addresses: Iterable[Interface]) -> None:
        """Undo :meth:`add`; routes that are gone are fine."""
        link = self._netlink.link(chosen.host_link)
        if link is None:
            return
        for address in addresses:
            try:
                self._netlink.delete_route(
                    link.index, _single(address), None, version=address.version
                )
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise


def _single(address: Interface) -> Prefix:
    return ip_network(f"{address.ip}/{address.max_prefixlen}")
