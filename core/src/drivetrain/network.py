"""The contract of network drivers.

The life of a network and of an endpoint
========================================

A *network* joins containers; an *endpoint* is one container's place on it; a *sandbox* is the
network namespace of a container. The engine owns addresses (IPAM), sandboxes, the setting of
addresses and routes, names (DNS) and the choice of host ports. A driver makes links, and the
rules on the host that go with them, and says what it made.

1. ``network_probe`` and ``network_open``, as for every family. ``network_sync`` follows, once,
   with everything that should exist: the driver makes the host agree.
2. ``network_create(network)`` makes what the network needs on this host (a bridge, its address,
   its firewall rules).
3. ``endpoint_create(network, endpoint)`` may prepare or refuse; addresses are chosen by then.
4. ``endpoint_join(network, endpoint, sandbox)`` when the container starts: makes the link with
   one end in the sandbox, and returns a :class:`Link`. The engine then sets addresses, routes and
   state inside. ``port_publish`` follows for each published port, and ``endpoint_rename`` whenever
   the container gets another name.
5. ``port_unpublish``, ``endpoint_leave`` when it stops; it may join again, with the same address.
   The sandbox may be gone by then.
6. ``endpoint_delete``, ``network_delete``: nothing is left, not a rule.

A driver of *global* scope has networks that several hosts share. It tells the engine about other
hosts when asked, from memory: ``network_list`` has the networks of all hosts, and the engine shows
and uses those that were made elsewhere as its own (without ``network_create``: ``endpoint_join``
makes what is missing); ``peer_list`` and ``peer_find`` have the endpoints on other hosts, for
``network inspect`` and for names. It implements the four hooks of address management, so that no
address is given twice. The daemon's settings for the cluster arrive as driver options:
``cluster-store``, ``cluster-advertise``, ``data-path-addr``, ``data-path-port`` and the keys of
``cluster-store-opts``, those of them that ``network_driver_options`` declares.

A whole driver, for containers that only talk to themselves::

    class Nothing:
        @hookimpl
        def network_traits(self):
            return NetworkTraits(addresses=False)

        @hookimpl
        def network_create(self, network):
            return True

        @hookimpl
        def network_delete(self, network):
            return True

        @hookimpl
        def endpoint_join(self, network, endpoint, sandbox):
            return Link()

Rules for all hooks
===================

One at a time for the same network, at once for different ones, from worker threads;
``network_sync`` beside none of them. Questions (``network_list``, ``peer_list``, ``peer_find``,
``network_status``) come at any time. May be repeated after a crash; deleting what is gone is fine.
A hook has 30 s. Hooks with nothing to say return ``True``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
)
from pathlib import Path
from typing import Literal

from drivetrain.markers import hookspec
from drivetrain.options import Option, Options

Address = IPv4Address | IPv6Address
Interface = IPv4Interface | IPv6Interface
Prefix = IPv4Network | IPv6Network
Protocol = Literal["tcp", "udp", "sctp"]


@dataclass(frozen=True, slots=True)
class NetworkTraits:
    """What kind of driver it is.

    Attributes:
        sandbox: ``own``: containers get a namespace of their own; ``host``: the host's.
        addresses: networks have subnets and endpoints have addresses.
        single: there is exactly one network of this driver, made by the engine, never removed.
        ports: published ports have an effect.
        names: containers on a user's network find each other by name.
        tables: nftables tables that it keeps; ``network_sync`` follows when others changed them.
        scope: ``local`` to this host, or ``global``: one network over several hosts.
    """

    sandbox: Literal["own", "host"] = "own"
    addresses: bool = True
    single: bool = False
    ports: bool = False
    names: bool = True
    tables: tuple[str, ...] = ()
    scope: Literal["local", "global"] = "local"


@dataclass(frozen=True, slots=True)
class Subnet:
    """One address range of a network.

    Attributes:
        prefix: the subnet.
        gateway: the address of the gateway inside it, or ``None`` where it has none.
        auxiliary: addresses that containers must not get, by the name the user gave.
        range: the part of the subnet that containers get addresses from; ``None``: all of it.
    """

    prefix: Prefix
    gateway: Address | None = None
    auxiliary: Mapping[str, Address] = field(default_factory=dict)
    range: Prefix | None = None


@dataclass(frozen=True, slots=True)
class Network:
    """A network, as the driver sees it.

    Attributes:
        id: 64 hexadecimal digits; unique over all hosts.
        name: the user's name for it.
        subnets: IPv4 and IPv6 ranges; empty when ``traits.addresses`` is false.
        options: values for what ``network_options`` declares.
        internal: no way in or out but among its own containers.
        default: the network that containers get who ask for none (``bridge``, ``engine0``).
        labels: the user's.
        attachable: as the user said; every network is.
        created: RFC 3339.
    """

    id: str
    name: str
    subnets: tuple[Subnet, ...] = ()
    options: Options = field(default_factory=Options)
    internal: bool = False
    default: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    attachable: bool = False
    created: str = ""

    def gateways(self, endpoint: Endpoint) -> tuple[Address, ...]:
        """Return the gateways of the subnets that the endpoint has addresses in."""
        return tuple(
            subnet.gateway
            for address in endpoint.addresses
            for subnet in self.subnets
            if subnet.gateway is not None and address.ip in subnet.prefix
        )


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One container's place on a network.

    Attributes:
        id: 64 hexadecimal digits.
        container: the container's id.
        addresses: with the prefix length of the subnet; at most one per IP version.
        mac: ``02:42:ac:11:00:02``; always set when the network has addresses.
        interface: the name wanted inside the sandbox, such as ``eth0``.
        options: values for what ``endpoint_options`` declares.
        names: what others on the network call it: the container's name, aliases, short id; a
            global driver tells them to the other hosts.
        gateway_for: the IP versions whose default route the engine sets by this endpoint's
            gateways: of several networks of a container one has it for each version.
    """

    id: str
    container: str
    addresses: tuple[Interface, ...] = ()
    mac: str = ""
    interface: str = "eth0"
    options: Options = field(default_factory=Options)
    names: tuple[str, ...] = ()
    gateway_for: tuple[int, ...] = (4, 6)


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A container's network namespace.

    Attributes:
        path: a file to open for setns(2).
    """

    path: Path


@dataclass(frozen=True, slots=True)
class Route:
    """A route inside the sandbox. ``gateway`` ``None``: on the link itself."""

    destination: Prefix
    gateway: Address | None = None


@dataclass(frozen=True, slots=True)
class Link:
    """What ``endpoint_join`` made.

    Attributes:
        name: the interface's name now, or the empty string when there is none.
        in_sandbox: it was born in the sandbox under the name that was wanted (one netlink
            message, far quicker than moving it); otherwise the engine moves and renames it.
        gateways: the default gateways, at most one per IP version.
        default_route_on_link: a default route without a gateway (ipvlan l3).
        routes: further routes.
        mtu: in bytes; 0: leave it.
        mac: of the link, where the driver cannot give it the endpoint's (ipvlan: the parent's).
        addresses: that the driver got by itself for an endpoint that had none (DHCP); the engine
            sets and shows them, and asks nobody for others.
        sysctls: to set in the sandbox for this link, ``net.ipv6.conf.IFNAME.accept_ra`` with the
            word IFNAME; the user's come after them.
    """

    name: str = ""
    in_sandbox: bool = True
    gateways: tuple[Address, ...] = ()
    default_route_on_link: bool = False
    routes: tuple[Route, ...] = ()
    mtu: int = 0
    mac: str = ""
    addresses: tuple[Interface, ...] = ()
    sysctls: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PublishedPort:
    """A port of the host that leads to a port of a container.

    Attributes:
        protocol: ``tcp``, ``udp`` or ``sctp``.
        container_port: 1 to 65535.
        host_address: the host's address to publish on; ``0.0.0.0`` and ``::`` mean all.
        host_port: 1 to 65535; chosen and reserved by the engine before the call. 0 where
            ``port_policy`` says that the IP version is not translated.
    """

    protocol: Protocol
    container_port: int
    host_address: Address
    host_port: int


@dataclass(frozen=True, slots=True)
class PortPolicy:
    """How a network publishes ports.

    Attributes:
        translated: the IP versions for which a port of the host leads to the container; for
            others no port of the host is taken, and publishing opens the container's own port.
        host_address: where ports are published when the user names no address; ``None``: on all.
        direct: programs on the host reach containers by their own addresses. Where they do not,
            connections to ``::1``, which the kernel leads nowhere, take the way of ``127.0.0.1``.
    """

    translated: tuple[int, ...] = (4, 6)
    host_address: Address | None = None
    direct: bool = True


@dataclass(frozen=True, slots=True)
class Peer:
    """An endpoint on another host of a global network.

    Attributes:
        endpoint: its id.
        addresses: inside the network.
        mac: of its interface.
        host: the address of its host on the data plane.
        names: what others on the network call it.
    """

    endpoint: str
    addresses: tuple[Interface, ...]
    mac: str
    host: Address
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SubnetRequest:
    """What a driver with address management of its own is asked to choose.

    Attributes:
        network: the id of the network to be.
        name: the user's name for it.
        versions: IP versions that it should have: 4, 6 or both.
        asked: subnets that the user gave, whole: they are to be kept or refused.
        taken: subnets of this engine's other networks and routes of this host.
        options: the user's ``--ipam-opt`` pairs.
    """

    network: str
    name: str
    versions: tuple[int, ...] = (4,)
    asked: tuple[Subnet, ...] = ()
    taken: tuple[Prefix, ...] = ()
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NetworkState:
    """A network with what is joined to it now, for ``network_sync``."""

    network: Network
    endpoints: tuple[tuple[Endpoint, tuple[PublishedPort, ...]], ...] = ()


class NetworkHooks:
    """What a network driver may implement; create, delete and join must be."""

    @hookspec(firstresult=True)
    def network_probe(self) -> bool | None:
        """Find out whether this host can carry the driver, by trying it for real.

        Raises:
            NotSupported: it cannot; the message says what is missing and how to get it.
        """

    @hookspec(firstresult=True)
    def network_traits(self) -> NetworkTraits:
        """Optional: what kind of driver it is; the same at every call."""

    @hookspec(firstresult=True)
    def network_driver_options(self) -> Sequence[Option]:
        """Optional: options of the driver, which the daemon takes (``network-opt`` keys)."""

    @hookspec(firstresult=True)
    def network_options(self) -> Sequence[Option]:
        """Optional: options of a network (``network create --opt``)."""

    @hookspec(firstresult=True)
    def endpoint_options(self) -> Sequence[Option]:
        """Optional: options of an endpoint (``network connect --driver-opt``)."""

    @hookspec(firstresult=True)
    def network_open(self, root: Path, options: Options) -> bool | None:
        """Start work.

        Args:
            root: an existing directory for what has to survive a restart.
            options: values for what ``network_driver_options`` declares.
        """

    @hookspec(firstresult=True)
    def network_sync(self, networks: Sequence[NetworkState]) -> bool | None:
        """Optional: make the host agree with ``networks`` and remove what of ours is not in it.

        Called once after ``network_open``, and when the firewall was flushed by somebody else.
        Links of running containers exist already and must keep working throughout.
        """

    @hookspec(firstresult=True)
    def network_create(self, network: Network) -> bool | None:
        """Make what the network needs on this host.

        Guaranteed before: unique id and name; subnets that do not overlap those of other
        networks of this engine.

        Raises:
            InvalidArgument: options that contradict each other.
            InUse: a link or address that it would need belongs to something else.
        """

    @hookspec(firstresult=True)
    def network_delete(self, network: Network) -> bool | None:
        """Remove everything that was made for it; a parent or bridge of the user's stays.

        Guaranteed before: no endpoints.
        """

    @hookspec(firstresult=True)
    def endpoint_create(self, network: Network, endpoint: Endpoint) -> bool | None:
        """Optional: prepare or refuse an endpoint."""

    @hookspec(firstresult=True)
    def endpoint_join(self, network: Network, endpoint: Endpoint, sandbox: Sandbox) -> Link:
        """Make the link into the sandbox. After an error nothing of it is left.

        Returns:
            What was made; the engine sets addresses, routes and state from it.
        """

    @hookspec(firstresult=True)
    def endpoint_leave(self, network: Network, endpoint: Endpoint) -> bool | None:
        """Optional: undo the join; the link and the sandbox may be gone already."""

    @hookspec(firstresult=True)
    def endpoint_rename(self, network: Network, endpoint: Endpoint) -> bool | None:
        """Optional: a joined endpoint has other ``names`` now; for drivers that tell them to hosts.

        The names that are no longer among them are nobody's.
        """

    @hookspec(firstresult=True)
    def endpoint_delete(self, network: Network, endpoint: Endpoint) -> bool | None:
        """Optional: forget the endpoint."""

    @hookspec(firstresult=True)
    def port_policy(self, network: Network) -> PortPolicy:
        """Optional: how the network publishes ports; by default on all addresses of the host."""

    @hookspec(firstresult=True)
    def port_publish(
        self, network: Network, endpoint: Endpoint, port: PublishedPort
    ) -> bool | None:
        """Optional: lead a host port to the container. Undone by leave at the latest."""

    @hookspec(firstresult=True)
    def port_unpublish(
        self, network: Network, endpoint: Endpoint, port: PublishedPort
    ) -> bool | None:
        """Optional: undo ``port_publish``; unknown ports are fine."""

    @hookspec(firstresult=True)
    def subnets_choose(self, request: SubnetRequest) -> Sequence[Subnet] | None:
        """Optional: address management of one's own (IPAM); the engine's own serves otherwise.

        A driver that implements the four hooks ``subnets_choose``, ``subnets_release``,
        ``address_take`` and ``address_release`` manages the addresses of its networks, and of
        other drivers' networks that users make with ``--ipam-driver`` and its name.

        Returns:
            At least one subnet of each version asked for; ``None``: leave it to the engine.

        Raises:
            FailedPrecondition: what the user asked for overlaps something.
            Exhausted: there is nothing left to choose from.
        """

    @hookspec(firstresult=True)
    def subnets_release(self, network: Network) -> bool | None:
        """Optional: the network is gone; its subnets may be given to others."""

    @hookspec(firstresult=True)
    def address_take(
        self, network: Network, endpoint: str, subnet: Subnet, wanted: Address | None
    ) -> Address | None:
        """Optional: choose an address for an endpoint; the same one when it is asked again.

        Args:
            network: whose.
            endpoint: the id of the endpoint.
            subnet: of the network; the address is inside its ``range``.
            wanted: the one that the user chose, or ``None``.

        Raises:
            InUse: the wanted one is another endpoint's.
            Exhausted: all of them are taken.
        """

    @hookspec(firstresult=True)
    def address_release(self, network: Network, endpoint: str, address: Address) -> bool | None:
        """Optional: give an address back; one that is free is fine."""

    @hookspec(firstresult=True)
    def network_list(self) -> Sequence[Network] | None:
        """Optional: the networks of all hosts, for a driver of global scope.

        Called often, and at every look-up of a network: answer from memory.

        Returns:
            What exists; ``None``: not known now, the engine keeps to what it knew.
        """

    @hookspec(firstresult=True)
    def peer_list(self, network: Network) -> Sequence[Peer]:
        """Optional: the endpoints of a global network on other hosts."""

    @hookspec(firstresult=True)
    def peer_find(self, network: Network, name: str) -> Sequence[Peer]:
        """Optional: those of ``peer_list`` with a name or address; answer from memory.

        Args:
            network: one that an endpoint of this host is on.
            name: in lower case, or an address as ``ipaddress`` writes it.
        """

    @hookspec(firstresult=True)
    def network_status(self) -> Sequence[tuple[str, str]]:
        """Optional: pairs for ``engine info`` and ``engine driver inspect``."""

    @hookspec(firstresult=True)
    def network_close(self) -> bool | None:
        """Optional: the process ends. Networks and links stay. May be called twice."""
