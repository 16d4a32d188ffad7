"""A host in its cluster: the networks there are, and the ones that its containers are on."""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from drivetrain.errors import EngineError, Exhausted, NotFound, Unavailable
from drivetrain.network import Endpoint, Network, Peer, Subnet
from drivetrain_network_overlay.documents import (
    EndpointDocument,
    HostDocument,
    NetworkDocument,
    last_part,
)
from drivetrain_network_overlay.domain import Domain, peer_of
from drivetrain_network_overlay.etcd import Etcd
from drivetrain_network_overlay.following import Follower
from drivetrain_network_overlay.forwarding import Forwarding
from drivetrain_network_overlay.kv import Item
from drivetrain_network_overlay.membership import Membership
from drivetrain_network_overlay.options import ClusterSettings, mtu
from drivetrain_network_overlay.segment import MAX_SEGMENTS, Segment, Tunnel, Uplink
from drivetrain_network_overlay.store import Allocator, Store, bounds

log = logging.getLogger("engine.network.overlay")
#: Seconds that a container's start waits for the list of its neighbours.
_PATIENCE = 5.0
#: Seconds that the start of the daemon waits for the list of networks.
_START_PATIENCE = 3.0


class Cluster:
    """Everything of this host that has to do with other hosts.

    Args:
        root: keeps what has to survive a restart.
        settings: of the driver.
    """

    def __init__(self, root: Path, settings: ClusterSettings) -> None:
        self.settings = settings
        self.local = settings.local_address()
        self.store = Store(Etcd(settings.access), settings.path)
        self._root = root
        self._segments = root / "segments"
        self._segments.mkdir(exist_ok=True)
        self._uplinks_file = root / "uplinks.json"
        self._uplinks: dict[str, int] = _read(self._uplinks_file)
        self._host = Forwarding()
        self._lock = threading.Lock()
        self._documents: dict[str, NetworkDocument] = {}
        self._allocators: dict[tuple[str, str], Allocator] = {}
        self.domains: dict[str, Domain] = {}
        host = HostDocument(_host_id(root), socket.gethostname(), str(self.local))
        self.membership = Membership(
            self.store, host, settings.terms, root / "lease.json", self._fenced, self._reached
        )
        self._follower = Follower(
            self.store.etcd, self.store.keys.networks, self._told, "overlay-networks"
        )
        self.moved: Callable[[], None] = lambda: None

    def start(self) -> None:
        """Begin; etcd may be away."""
        self.membership.start()
        self._follower.start()
        self._follower.wait(_START_PATIENCE if self.membership.connected else 0.1)

    def close(self) -> None:
        """Leave; containers go on, and the leases end in their own time."""
        self._follower.close()
        for domain in list(self.domains.values()):
            domain.close()
        self.membership.close()
        self._host.close()

    # Networks

    def _told(self, changed: Sequence[Item], gone: Sequence[Item]) -> None:
        with self._lock:
            for item in changed:
                try:
                    self._documents[last_part(item.key)] = NetworkDocument.decode(item.value)
                except ValueError as error:
                    log.error("the cluster has a broken network %s: %s", item.key, error)
            for item in gone:
                self._documents.pop(last_part(item.key), None)

    def networks(self) -> list[NetworkDocument] | None:
        """Return the networks of the cluster; ``None`` when they are not known yet."""
        if not self._follower.wait(0):
            return None
        with self._lock:
            return list(self._documents.values())

    def create(self, document: NetworkDocument, numbers: Sequence[int]) -> None:
        """Make a network known to all hosts."""
        self.membership.lease()
        made = self.store.create_network(document, numbers)
        with self._lock:
            self._documents[made.id] = made

    def delete(self, network: str) -> None:
        """Remove a network from all hosts.

        Raises:
            FailedPrecondition: endpoints are on it.
        """
        self.store.delete_network(network, self.membership.host.id)
        self._remove_domain(network)
        with self._lock:
            self._documents.pop(network, None)
            for key in [key for key in self._allocators if key[0] == network]:
                del self._allocators[key]

    def document(self, network: str) -> NetworkDocument:
        """Return a network.

        Raises:
            NotFound: it is gone.
        """
        with self._lock:
            known = self._documents.get(network)
        found = known or self.store.network(network)
        if found is None:
            raise NotFound(f"network {network[:12]} was removed from the cluster")
        return found

    # Addresses

    def allocator(self, network: Network, subnet: Subnet) -> Allocator:
        """Return what chooses addresses of a subnet."""
        key = (network.id, str(subnet.prefix))
        with self._lock:
            if key not in self._allocators:
                first, last = bounds(subnet.prefix, subnet.range)
                reserved = set(subnet.auxiliary.values())
                if subnet.gateway is not None:
                    reserved.add(subnet.gateway)
                self._allocators[key] = Allocator(
                    self.store, network.id, self.membership.host.id, first, last, reserved
                )
            return self._allocators[key]

    # Endpoints

    def domain(self, network: Network) -> Domain:
        """Return this host's part of a network, made when it is missing.

        Raises:
            NotFound: the network is gone.
            Exhausted: this host is on too many.
        """
        found = self.domains.get(network.id)
        if found is not None:
            return found
        document = self.document(network.id)
        segment = self._segment(network)
        segment.make(self._tunnel(network, document))
        return self._take_up(network, document, segment)

    def adopt(self, network: Network) -> Domain:
        """Return this host's part of a network, taken up after a restart.

        Raises:
            NotFound: the network is gone.
        """
        found = self.domains.get(network.id)
        if found is not None:
            return found
        number = self._numbers().get(network.id)
        document = (
            NetworkDocument(network.id, network.name, number)
            if number is not None
            else self.document(network.id)
        )
        segment = self._segment(network)
        tunnel = self._tunnel(network, document)
        if not segment.exists():
            segment.make(tunnel)
        elif segment.local() != self.local:
            segment.tunnel_anew(tunnel)
        segment.open()
        return self._take_up(network, document, segment)

    def _take_up(self, network: Network, document: NetworkDocument, segment: Segment) -> Domain:
        host = self.membership.host.id
        made = Domain(network, document, segment, host, lambda: self.moved())
        self.domains[network.id] = made
        self._keep_number(network.id, document.number)
        made.follow(self.store, _PATIENCE if self.membership.connected else 0)
        return made

    def register(self, network: Network, endpoint: Endpoint) -> EndpointDocument:
        """Have the other hosts know an endpoint.

        Raises:
            Unavailable: etcd does not answer.
        """
        document = self.describe(network, endpoint)
        self.membership.register(document)
        return document

    def rename(self, network: Network, endpoint: Endpoint) -> None:
        """Have the other hosts know the new names of an endpoint, now or when etcd answers."""
        self.membership.replace(self.describe(network, endpoint))

    def describe(self, network: Network, endpoint: Endpoint) -> EndpointDocument:
        """Return an endpoint as the other hosts see it."""
        return EndpointDocument(
            id=endpoint.id,
            network=network.id,
            container=endpoint.container,
            addresses=[str(address) for address in endpoint.addresses],
            mac=endpoint.mac,
            host=self.membership.host.id,
            tunnel=str(self.local),
            names=list(endpoint.names),
        )

    def leave(self, network: str, endpoint: str) -> None:
        """Take an endpoint away, and the segment with the last one."""
        try:
            self.membership.unregister(network, endpoint)
        except EngineError as error:
            log.warning("endpoint %s is forgotten when its lease ends: %s", endpoint[:12], error)
        domain = self.domains.get(network)
        if domain is None:
            return
        domain.local.discard(endpoint)
        if domain.local:
            domain.segment.leave(endpoint)
        else:
            self._remove_domain(network)

    def _remove_domain(self, network: str) -> None:
        domain = self.domains.pop(network, None)
        if domain is None:
            return
        domain.close()
        domain.segment.remove()
        with self._lock:
            self._uplinks.pop(network, None)
            self._write()
        self.moved()

    def remove_others(self, wanted: set[str]) -> None:
        """Remove the segments of networks that no container of this host is on."""
        for network in [name for name in self.domains if name not in wanted]:
            self._remove_domain(network)
        for path in self._segments.iterdir():
            if path.name not in wanted:
                Segment(
                    Network(path.name, path.name), path, Uplink.of(path.name, 0), self._host
                ).remove()
        with self._lock:
            self._uplinks = {k: v for k, v in self._uplinks.items() if k in wanted}
            self._write()

    def peers(self, network: str) -> list[Peer]:
        """Return the endpoints of a network on other hosts."""
        domain = self.domains.get(network)
        if domain is not None:
            return domain.peers()
        try:
            items, _ = self.store.etcd.range(self.store.keys.endpoints(network))
        except Unavailable:
            return []
        found = [EndpointDocument.decode(item.value) for item in items]
        return [peer_of(each) for each in found if each.host != self.membership.host.id]

    # Interruptions

    def _reached(self) -> None:
        log.info("the cluster answers")
        self._follower.disturb()
        for domain in list(self.domains.values()):
            domain.segment.uncut()
            domain.disturb()

    def _fenced(self, endpoint: str | None) -> None:
        for domain in list(self.domains.values()):
            if endpoint is None:
                domain.segment.cut()
            elif endpoint in domain.local:
                domain.segment.leave(endpoint)

    # Segments

    def _tunnel(self, network: Network, document: NetworkDocument) -> Tunnel:
        port = self.settings.port + network.options.boolean("encrypted")
        return Tunnel(document.number, self.local, port, mtu(network, self.local))

    def _segment(self, network: Network) -> Segment:
        uplink = None if network.internal else Uplink.of(network.id, self._uplink(network.id))
        return Segment(network, self._segments / network.id, uplink, self._host)

    def _uplink(self, network: str) -> int:
        with self._lock:
            if network not in self._uplinks:
                taken = set(self._uplinks.values())
                free = next((n for n in range(MAX_SEGMENTS) if n not in taken), None)
                if free is None:
                    raise Exhausted(f"this host is on {MAX_SEGMENTS} overlay networks already")
                self._uplinks[network] = free
                self._write()
            return self._uplinks[network]

    def _numbers(self) -> dict[str, int]:
        return _read(self._root / "numbers.json")

    def _keep_number(self, network: str, number: int) -> None:
        """Remember an identifier, for a restart while etcd is away."""
        with self._lock:
            known = {k: v for k, v in self._numbers().items() if k in self.domains}
            known[network] = number
            (self._root / "numbers.json").write_text(json.dumps(known))

    def _write(self) -> None:
        fresh = self._uplinks_file.with_suffix(".new")
        fresh.write_text(json.dumps(self._uplinks))
        os.replace(fresh, self._uplinks_file)


def _read(path: Path) -> dict[str, int]:
    try:
        found: dict[str, int] = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found


def _host_id(root: Path) -> str:
    """Return this host's id, made at the first start with this data root."""
    path = root / "host-id"
    if not path.exists():
        path.write_text(os.urandom(16).hex())
    return path.read_text().strip()
