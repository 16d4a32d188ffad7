"""What the rooms of the network service share: records, drivers, addresses, and locks."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from drivetrain.errors import FailedPrecondition, NotFound
from drivetrain.network import NetworkTraits
from drivetrain.registry import Registry
from drivetrain_engine.networks.addresses import Addresses
from drivetrain_engine.networks.drivers import Drivers
from drivetrain_engine.networks.locks import Locks
from drivetrain_engine.networks.records import (
    EndpointRecord,
    EndpointRecords,
    NetworkRecord,
    Records,
    SandboxRecord,
    from_driver,
)
from drivetrain_engine.networks.requests import NetworkSettings
from drivetrain_engine.state import Events, State

#: An endpoint with the network that it is on.
Pair = tuple[EndpointRecord, NetworkRecord]


class Inventory:
    """Everything that is known of networks, endpoints and sandboxes.

    Args:
        root: drivers keep what must survive a restart below it.
        state: keeps the records.
        registry: the installed drivers.
        events: told what happens.
        settings: the daemon's.
    """

    def __init__(
        self, root: Path, state: State, registry: Registry, events: Events,
        settings: NetworkSettings,
    ) -> None:  # fmt: skip
        self.settings = settings
        self._refreshing = threading.Lock()
        self._held = Locks()
        self.networks: Records[NetworkRecord] = Records(state, "networks", NetworkRecord)
        self.endpoints = EndpointRecords(state)
        self.sandboxes: Records[SandboxRecord] = Records(state, "sandboxes", SandboxRecord)
        self.drivers = Drivers(root, registry, self.networks, self.endpoints, settings.cluster)
        self.addresses = Addresses(self.endpoints, self.drivers)
        self._events = events

    def refresh(self) -> None:
        """Take up networks that other hosts made, and forget those that they removed."""
        found = self.drivers.global_networks()
        if not found:
            return
        with self._refreshing:
            for driver, networks in found.items():
                for network in networks:
                    if self.networks.get(network.id) is None:
                        self.networks.put(network.id, from_driver(network, driver))
                existing = {network.id for network in networks}
                for record in list(self.networks):
                    if record.driver == driver and record.id not in existing:
                        self._forget_gone(record)

    def _forget_gone(self, record: NetworkRecord) -> None:
        # One that is held is being made, removed or joined here: there is another time.
        with self._held.hold_if_free(record.id) as free:
            if free and not any(e.joined for e in self.endpoints.of_network(record.id)):
                self.forget(record)

    @contextmanager
    def holding(self, record: NetworkRecord) -> Iterator[None]:
        """Be the only one who has to do with a network and the endpoints on it; see ``locks``."""
        with self.drivers.gate(record.driver).passing(), self._held.hold(record.id):
            yield

    @contextmanager
    def using(self, record: NetworkRecord) -> Iterator[None]:
        """Hold a network that exists.

        Raises:
            NotFound: it was removed.
        """
        with self.holding(record):
            if self.networks.get(record.id) is None:
                raise NotFound(f"network {record.name} not found")
            yield

    def forget(self, record: NetworkRecord) -> None:
        """Forget a network and what is remembered of it."""
        self.networks.delete(record.id)
        self.addresses.forget(record.id)
        self.drivers.forget(record.id)

    def resolve(self, reference: str) -> NetworkRecord:
        """Return a network by id, name, or the unique beginning of an id.

        Raises:
            NotFound: there is none.
            FailedPrecondition: several ids begin so.
        """
        self.refresh()
        reference = "bridge" if reference == "default" else reference
        records = list(self.networks)
        for found in records:
            if reference in (found.id, found.name):
                return found
        candidates = [r for r in records if reference and r.id.startswith(reference)]
        if len(candidates) > 1:
            raise FailedPrecondition(f"network {reference} is ambiguous: give more digits")
        if not candidates:
            raise NotFound(f"network {reference} not found")
        return candidates[0]

    def traits(self, record: NetworkRecord) -> NetworkTraits:
        """Return what kind of driver a network has."""
        return NetworkTraits() if record.config_only else self.drivers.traits(record)

    def pairs(self, container_id: str) -> list[Pair]:
        """Return the endpoints of a container with their networks, in the order of their making."""
        found = [
            (e, self.networks.get(e.network)) for e in self.endpoints.of_container(container_id)
        ]
        return [(endpoint, net) for endpoint, net in found if net is not None]

    def put(self, endpoint: EndpointRecord) -> None:
        """Write an endpoint's record."""
        self.endpoints.put(endpoint.id, endpoint)

    def emit(self, action: str, record: NetworkRecord, container: str = "") -> None:
        """Tell what happened to a network, or to a container on it."""
        attributes = {"name": record.name, "type": record.driver}
        if container:
            attributes["container"] = container
        self._events.emit("network", action, record.id, attributes)
