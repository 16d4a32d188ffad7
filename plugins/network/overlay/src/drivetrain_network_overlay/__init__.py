"""The overlay network driver: networks over several hosts, by VXLAN, with the state in etcd.

What is in etcd is told in :mod:`.documents`, when it ends in :mod:`.membership`, and how packets
go in :mod:`.segment`.
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Sequence
from ipaddress import IPv4Address, ip_address, ip_network
from pathlib import Path

from drivetrain import hookimpl
from drivetrain.errors import EngineError, FailedPrecondition, InvalidArgument, NotSupported
from drivetrain.host.nft import Nft
from drivetrain.network import (
    Address,
    Endpoint,
    Link,
    Network,
    NetworkState,
    NetworkTraits,
    Peer,
    PortPolicy,
    PublishedPort,
    Sandbox,
    Subnet,
    SubnetRequest,
)
from drivetrain.options import Option, Options, parse_options
from drivetrain_network_overlay.cluster import Cluster
from drivetrain_network_overlay.documents import NetworkDocument, SubnetDocument
from drivetrain_network_overlay.encryption import Encryption
from drivetrain_network_overlay.forwarding import Forwarding
from drivetrain_network_overlay.options import (
    DRIVER_OPTIONS,
    NETWORK_OPTIONS,
    cluster_settings,
    mtu,
    numbers,
)
from drivetrain_network_overlay.rules import OuterRules, Published
from drivetrain_network_overlay.segment import UPLINKS4, UPLINKS6
from drivetrain_network_overlay.subnets import Subnets

log = logging.getLogger("engine.network.overlay")


class Overlay:
    """The overlays that this host takes part in."""

    def __init__(self) -> None:
        self._cluster: Cluster | None = None
        self._lock = threading.Lock()

    @hookimpl
    def network_traits(self) -> NetworkTraits:
        return NetworkTraits(ports=True, scope="global")

    @hookimpl
    def network_driver_options(self) -> Sequence[Option]:
        return DRIVER_OPTIONS

    @hookimpl
    def network_options(self) -> Sequence[Option]:
        return NETWORK_OPTIONS

    @hookimpl
    def network_probe(self) -> bool:
        """Make a VXLAN link for real and remove it again, and load libnftables."""
        name = f"probe{secrets.token_hex(4)}"
        try:
            with Forwarding() as host:
                local = IPv4Address("127.0.0.1")
                host.vxlan(name, 1, local=local, port=4789, namespace=None, mtu=1450)
                host.delete_link(name)
            Nft().close()
        except OSError as error:
            raise NotSupported(
                f"this host cannot make VXLAN links: {error}; modprobe vxlan, and run as root"
            ) from error
        return True

    @hookimpl
    def network_open(self, root: Path, options: Options) -> bool:
        settings = cluster_settings(options)
        if settings is None:
            return True
        self._rules = OuterRules((str(UPLINKS4), str(UPLINKS6)))
        cluster = Cluster(root, settings)
        self._subnets = Subnets(cluster.store)
        self._encryption = Encryption(root, cluster)
        cluster.moved = self._encryption.update
        cluster.start()
        self._cluster = cluster
        return True

    def _joined(self) -> Cluster:
        if self._cluster is None:
            raise FailedPrecondition(
                "this daemon is in no cluster: start it with --cluster-store etcd://host:port"
            )
        return self._cluster

    @hookimpl
    def network_sync(self, networks: Sequence[NetworkState]) -> bool:
        cluster = self._cluster
        if cluster is None:
            return True
        used = [state for state in networks if state.endpoints]
        for state in used:
            try:
                self._restore(cluster, state)
            except (EngineError, OSError) as error:
                log.error("network %s is not restored: %s", state.network.name, error)
        cluster.remove_others({state.network.id for state in used})
        with self._lock:
            if cluster.domains:
                self._rules.rebuild(_published(cluster))
            else:
                self._rules.remove()
        self._encryption.update()
        return True

    def _restore(self, cluster: Cluster, state: NetworkState) -> None:
        domain = cluster.adopt(state.network)
        for endpoint, ports in state.endpoints:
            if endpoint.id not in domain.local:
                domain.local.add(endpoint.id)
                cluster.membership.adopt(cluster.describe(state.network, endpoint))
            for port in ports:
                domain.publish(endpoint, port)

    @hookimpl
    def network_create(self, network: Network) -> bool:
        cluster = self._joined()
        if not network.subnets:
            raise InvalidArgument(f"network {network.name}: an overlay needs a subnet")
        mtu(network, cluster.local)
        if network.options.boolean("encrypted"):
            self._encryption.probe()
        cluster.create(document_of(network), numbers(network))
        self._subnets.settled(network)
        return True

    @hookimpl
    def network_delete(self, network: Network) -> bool:
        self._joined().delete(network.id)
        return True

    @hookimpl
    def network_list(self) -> Sequence[Network] | None:
        if self._cluster is None:
            return None
        found = self._cluster.networks()
        return None if found is None else [network_of(document) for document in found]

    @hookimpl
    def endpoint_join(self, network: Network, endpoint: Endpoint, sandbox: Sandbox) -> Link:
        cluster = self._joined()
        if network.options.boolean("encrypted"):
            self._encryption.probe()
        size = mtu(network, cluster.local)
        domain = cluster.domain(network)
        domain.local.add(endpoint.id)
        try:
            self._use_rules(cluster)
            domain.segment.join(endpoint, sandbox, size)
            cluster.register(network, endpoint)
            self._encryption.update()
        except BaseException:
            cluster.leave(network.id, endpoint.id)
            self._use_rules(cluster)
            raise
        gateways = () if network.internal else _gateways(network, endpoint)
        return Link(name=endpoint.interface, gateways=gateways, mtu=size)

    @hookimpl
    def endpoint_leave(self, network: Network, endpoint: Endpoint) -> bool:
        cluster = self._joined()
        domain = cluster.domains.get(network.id)
        for owner, port in list(domain.published) if domain is not None else ():
            if owner == endpoint.id:
                self._unpublish(network, endpoint.id, port)
        cluster.leave(network.id, endpoint.id)
        self._use_rules(cluster)
        return True

    @hookimpl
    def endpoint_rename(self, network: Network, endpoint: Endpoint) -> bool:
        self._joined().rename(network, endpoint)
        return True

    def _use_rules(self, cluster: Cluster) -> None:
        """Have the host's table while there are segments, and only then."""
        with self._lock:
            if not cluster.domains:
                self._rules.remove()
            elif not self._rules.present():
                self._rules.rebuild(_published(cluster))

    @hookimpl
    def port_policy(self, network: Network) -> PortPolicy:
        # The host has an uplink to a segment, and no route to its containers.
        return PortPolicy(direct=False)

    @hookimpl
    def port_publish(self, network: Network, endpoint: Endpoint, port: PublishedPort) -> bool:
        domain = self._joined().domain(network)
        made: Published | None = domain.publish(endpoint, port)
        if made is not None:
            self._rules.publish(made)
        return True

    @hookimpl
    def port_unpublish(self, network: Network, endpoint: Endpoint, port: PublishedPort) -> bool:
        self._unpublish(network, endpoint.id, port)
        return True

    def _unpublish(self, network: Network, endpoint: str, port: PublishedPort) -> None:
        domain = self._joined().domains.get(network.id)
        made = domain.unpublish(endpoint, port) if domain is not None else None
        if made is not None:
            self._rules.unpublish(made)

    # Addresses

    @hookimpl
    def subnets_choose(self, request: SubnetRequest) -> Sequence[Subnet]:
        self._joined()
        return self._subnets.choose(request)

    @hookimpl
    def subnets_release(self, network: Network) -> bool:
        self._joined()
        self._subnets.settled(network)
        return True

    @hookimpl
    def address_take(
        self, network: Network, endpoint: str, subnet: Subnet, wanted: Address | None
    ) -> Address:
        cluster = self._joined()
        lease = cluster.membership.lease()
        allocator = cluster.allocator(network, subnet)
        if wanted is None:
            return allocator.take(endpoint, lease)
        return allocator.take_wanted(wanted, endpoint, lease)

    @hookimpl
    def address_release(self, network: Network, endpoint: str, address: Address) -> bool:
        cluster = self._joined()
        subnet = next((each for each in network.subnets if address in each.prefix), None)
        if subnet is not None:
            cluster.membership.give_back(cluster.allocator(network, subnet), address, endpoint)
        return True

    # Other hosts

    @hookimpl
    def peer_list(self, network: Network) -> Sequence[Peer]:
        return self._cluster.peers(network.id) if self._cluster is not None else ()

    @hookimpl
    def peer_find(self, network: Network, name: str) -> Sequence[Peer]:
        domain = self._cluster.domains.get(network.id) if self._cluster is not None else None
        return domain.find(name) if domain is not None else ()

    @hookimpl
    def network_status(self) -> Sequence[tuple[str, str]]:
        cluster = self._cluster
        if cluster is None:
            return ()
        store = ",".join(cluster.settings.access.endpoints) + cluster.settings.path
        pairs = [
            ("Cluster Store", store),
            ("Cluster Advertise", str(cluster.local)),
            ("Overlay Networks", str(len(cluster.domains))),
        ]
        if cluster.membership.failure:
            pairs.append(("Warning", f"the cluster is not reached: {cluster.membership.failure}"))
        return pairs

    @hookimpl
    def network_close(self) -> bool:
        if self._cluster is not None:
            self._encryption.close()
            self._cluster.close()
            self._rules.close()
            self._cluster = None
        return True


def _published(cluster: Cluster) -> list[Published]:
    domains = list(cluster.domains.values())
    return [each for domain in domains for each in list(domain.published.values())]


def document_of(network: Network) -> NetworkDocument:
    """Return a network as etcd has it."""
    subnets = [
        {
            "prefix": str(subnet.prefix),
            "gateway": str(subnet.gateway or ""),
            "range": str(subnet.range or ""),
            "auxiliary": {name: str(address) for name, address in subnet.auxiliary.items()},
        }
        for subnet in network.subnets
    ]
    return NetworkDocument(
        id=network.id, name=network.name, created=network.created, internal=network.internal,
        attachable=network.attachable, subnets=subnets, options=dict(network.options.given),
        labels=dict(network.labels),
    )  # fmt: skip


def network_of(document: NetworkDocument) -> Network:
    """Return a network as the contract has it."""
    return Network(
        id=document.id, name=document.name,
        subnets=tuple(_subnet(each) for each in document.ranges()),
        options=parse_options("network driver overlay", NETWORK_OPTIONS, document.options),
        internal=document.internal, labels=document.labels, attachable=document.attachable,
        created=document.created,
    )  # fmt: skip


def _subnet(document: SubnetDocument) -> Subnet:
    return Subnet(
        ip_network(document.prefix),
        ip_address(document.gateway) if document.gateway else None,
        {name: ip_address(text) for name, text in document.auxiliary.items()},
        ip_network(document.range) if document.range else None,
    )


def _gateways(network: Network, endpoint: Endpoint) -> tuple[Address, ...]:
    return tuple(
        subnet.gateway
        for subnet in network.subnets
        if subnet.gateway is not None
        and any(address.ip in subnet.prefix for address in endpoint.addresses)
    )
