"""A network that containers of this host are on: its segment, and its endpoints on other hosts."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from ipaddress import ip_address, ip_interface

from drivetrain.network import Address, Endpoint, Network, Peer, PublishedPort
from drivetrain_network_overlay.documents import EndpointDocument, NetworkDocument
from drivetrain_network_overlay.following import Follower
from drivetrain_network_overlay.forwarding import Remote
from drivetrain_network_overlay.kv import Item
from drivetrain_network_overlay.options import MULTICAST
from drivetrain_network_overlay.rules import Published
from drivetrain_network_overlay.segment import Segment
from drivetrain_network_overlay.store import Store

log = logging.getLogger("engine.network.overlay")


class Domain:
    """What this host knows of a network that it takes part in.

    Args:
        network: which.
        document: of it.
        segment: its part on this host, open.
        host: id of this host.
        moved: called when the hosts that it reaches change.
    """

    def __init__(
        self, network: Network, document: NetworkDocument, segment: Segment, host: str,
        moved: Callable[[], None],
    ) -> None:  # fmt: skip
        self.network = network
        self.document = document
        self.segment = segment
        self.local: set[str] = set()
        self.published: dict[tuple[str, PublishedPort], Published] = {}
        self._host = host
        self._moved = moved
        self._lock = threading.Lock()
        self._remote: dict[str, EndpointDocument] = {}
        self._names: dict[str, set[str]] = {}
        self._tunnels: Counter[Address] = Counter()
        self._follower: Follower | None = None
        self._begun = False

    # Other hosts

    def follow(self, store: Store, patience: float) -> None:
        """Begin to follow the endpoints; waits ``patience`` seconds for the first list."""
        prefix = store.keys.endpoints(self.network.id)
        name = f"overlay-{self.network.id[:8]}"
        self._follower = Follower(store.etcd, prefix, self._told, name).start()
        self._follower.wait(patience)

    def disturb(self) -> None:
        """The connection is thought to be dead."""
        if self._follower is not None:
            self._follower.disturb()

    def close(self) -> None:
        """Leave; what the kernel has stays."""
        if self._follower is not None:
            self._follower.close()
            self._follower = None
        with self._lock:
            self.segment.close()

    def _told(self, changed: Sequence[Item], gone: Sequence[Item]) -> None:
        with self._lock:
            before = set(self._tunnels)
            fresh = self._learn(changed)
            lost = [name for item in gone if (name := self._forget(item))]
            self._program(fresh, lost)
            moved = set(self._tunnels) != before
        if moved:
            self._moved()

    def _program(self, fresh: list[EndpointDocument], lost: list[str]) -> None:
        everyone = set(self._tunnels) if self.network.options.boolean(MULTICAST) else set()
        try:
            if self._begun:
                self.segment.change(lost, {each.id: _remote(each) for each in fresh})
                self.segment.flood(everyone)
                return
            self._begun = True
        except OSError as error:
            log.warning("network %s: entries are made anew: %s", self.network.name, error)
            self.segment.relearn()
        whole = {each.id: _remote(each) for each in self._remote.values()}
        self.segment.update(whole, everyone)

    def _learn(self, changed: Iterable[Item]) -> list[EndpointDocument]:
        fresh = []
        for item in changed:
            try:
                document = EndpointDocument.decode(item.value)
                ip_address(document.tunnel)
            except ValueError as error:
                log.error("the cluster has a broken endpoint %s: %s", item.key, error)
                continue
            if document.host == self._host:
                continue
            if document.id in self._remote:
                self._drop(document.id)
            self._remote[document.id] = document
            self._tunnels[ip_address(document.tunnel)] += 1
            for name in _index(document):
                self._names.setdefault(name, set()).add(document.id)
            fresh.append(document)
        return fresh

    def _forget(self, item: Item) -> str:
        name = item.key.rpartition(b"/")[2].decode()
        if name not in self._remote:
            return ""
        self._drop(name)
        return name

    def _drop(self, name: str) -> None:
        document = self._remote.pop(name)
        tunnel = ip_address(document.tunnel)
        self._tunnels[tunnel] -= 1
        if self._tunnels[tunnel] <= 0:
            del self._tunnels[tunnel]
        for each in _index(document):
            owners = self._names[each]
            owners.discard(name)
            if not owners:
                del self._names[each]

    def tunnels(self) -> set[Address]:
        """Return the hosts that it reaches."""
        with self._lock:
            return set(self._tunnels)

    def peers(self) -> list[Peer]:
        """Return the endpoints on other hosts."""
        with self._lock:
            return [peer_of(document) for document in self._remote.values()]

    def find(self, name: str) -> list[Peer]:
        """Return the endpoints with a name or an address."""
        with self._lock:
            found = sorted(self._names.get(name.lower(), ()))
            return [peer_of(self._remote[each]) for each in found]

    # Ports

    def publish(self, endpoint: Endpoint, port: PublishedPort) -> Published | None:
        """Lead a port of the uplink to a container; ``None`` when there is no way."""
        key = (endpoint.id, port)
        if key in self.published:
            return self.published[key]
        version = port.host_address.version
        target = next((a.ip for a in endpoint.addresses if a.version == version), None)
        uplink = self.segment.uplink
        if target is None or uplink is None or self.segment.rules is None:
            return None
        taken = {
            each.inner
            for each in self.published.values()
            if (each.port.protocol, each.container.version) == (port.protocol, version)
        }
        # The host's own number where it is free, which is easier to read in traces.
        numbers = (port.host_port, *range(1, 65536))
        inner = next(number for number in numbers if number not in taken)
        made = Published(port, uplink.address(version), inner, target)
        self.segment.rules.publish(made)
        self.published[key] = made
        return made

    def unpublish(self, endpoint: str, port: PublishedPort) -> Published | None:
        """Undo :meth:`publish`; ``None`` when it was not published."""
        made = self.published.pop((endpoint, port), None)
        if made is not None and self.segment.rules is not None:
            self.segment.rules.unpublish(made)
        return made


def peer_of(document: EndpointDocument) -> Peer:
    """Return an endpoint as the contract has it."""
    return Peer(
        endpoint=document.id,
        addresses=tuple(ip_interface(text) for text in document.addresses),
        mac=document.mac,
        host=ip_address(document.tunnel),
        names=tuple(document.names),
    )


def _remote(document: EndpointDocument) -> Remote:
    return Remote(document.mac, tuple(document.plain_addresses()), ip_address(document.tunnel))


def _index(document: EndpointDocument) -> set[str]:
    return {name.lower() for name in document.names} | {
        str(address) for address in document.plain_addresses()
    }
