"""The options of a macvlan network."""

from __future__ import annotations

from dataclasses import dataclass

from drivetrain.errors import InvalidArgument
from drivetrain.host import stacking
from drivetrain.network import Interface, Network
from drivetrain.options import Option

MODES = ("bridge", "private", "vepa", "passthru")
#: The auxiliary addresses that are the host's own on a network with ``host_access``.
HOST_NAMES = ("host", "host6")

NETWORK_OPTIONS = (
    stacking.PARENT,
    Option("macvlan_mode", "choice", default="bridge", choices=MODES,
           help="whom containers reach: all (bridge), not each other (private), each other by the "
                "switch (vepa); passthru: one container has the parent for itself"),
    Option("host_access", "boolean", default=False,
           help="the host and the containers reach each other"),
    Option("dhcp", "boolean", default=False,
           help="addresses from the DHCP server of the parent's network; with --ipam-driver null"),
    Option("dhcp_timeout", "duration", default=15.0,
           help="how long a container waits for its first address"),
    *stacking.OPTIONS,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class MacvlanSettings:
    """The options of one network, ready to use.

    Attributes:
        parent: name of the parent; the closed one's for a network without.
        closed: it has no parent of the host's.
        mode: ``bridge``, ``private``, ``vepa`` or ``passthru``.
        host_access: the host has a link and routes to the containers.
        host_link: name of that link.
        host_addresses: of that link, at most one per IP version.
        dhcp: addresses come from a DHCP server.
        dhcp_timeout: seconds to wait for the first one.
        mtu: 0: the parent's.
    """

    parent: str
    closed: bool
    mode: str
    host_access: bool
    host_link: str
    host_addresses: tuple[Interface, ...]
    dhcp: bool
    dhcp_timeout: float
    mtu: int


def settings(network: Network) -> MacvlanSettings:
    """Read a network's options.

    Raises:
        InvalidArgument: options that contradict each other.
    """
    options = network.options
    parent = options.string("parent")
    chosen = MacvlanSettings(
        parent=parent or f"mc-{network.id[:12]}",
        closed=not parent,
        mode=options.string("macvlan_mode"),
        host_access=options.boolean("host_access"),
        host_link=f"mh-{network.id[:12]}",
        host_addresses=_host_addresses(network),
        dhcp=options.boolean("dhcp"),
        dhcp_timeout=options.number("dhcp_timeout"),
        mtu=options.integer(stacking.MTU),
    )
    _check(network, chosen)
    return chosen


def _host_addresses(network: Network) -> tuple[Interface, ...]:
    from ipaddress import ip_interface

    return tuple(
        ip_interface(f"{address}/{address.max_prefixlen}")
        for subnet in network.subnets
        for name, address in subnet.auxiliary.items()
        if name in HOST_NAMES
    )


def _check(network: Network, chosen: MacvlanSettings) -> None:
    faults = stacking.faults(network, "" if chosen.closed else chosen.parent)
    if chosen.closed and (chosen.host_access or chosen.dhcp):
        faults.append("host_access and dhcp need a parent: -o parent=eth0")
    if chosen.host_access and chosen.mode != "bridge":
        faults.append(f"host_access needs macvlan_mode=bridge, and not {chosen.mode}")
    if chosen.dhcp and network.subnets:
        faults.append("dhcp brings the addresses: give --ipam-driver null and no --subnet")
    if not 1 <= chosen.dhcp_timeout <= 25:
        faults.append(f"option dhcp_timeout={chosen.dhcp_timeout:g}s: 1s to 25s is needed")
    if not chosen.dhcp and not network.subnets:
        faults.append("it needs a subnet, or -o dhcp=true")
    versions = {address.version for address in chosen.host_addresses}
    if chosen.host_access and 6 not in versions and _versions(network) & {6}:
        faults.append(
            "host_access over IPv6 needs an address for the host: --aux-address host6=ADDRESS"
        )
    if faults:
        raise InvalidArgument(f"network {network.name}: " + "; ".join(faults))


def _versions(network: Network) -> set[int]:
    return {subnet.prefix.version for subnet in network.subnets}
