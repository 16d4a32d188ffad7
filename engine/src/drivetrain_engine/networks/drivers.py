"""The network drivers in use: opening them, and having them agree with the records."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable
from pathlib import Path

from drivetrain.calling import Driver
from drivetrain.errors import EngineError
from drivetrain.network import Endpoint, Network, NetworkHooks, NetworkState, NetworkTraits
from drivetrain.options import parse_options
from drivetrain.registry import Registry
from drivetrain_engine.networks.records import (
    EndpointRecord,
    EndpointRecords,
    NetworkRecord,
    Records,
    for_driver,
)

log = logging.getLogger("engine.networks")


class Drivers:
    """The drivers of this engine's networks, and records as their contract has them.

    Args:
        root: each driver keeps what must survive a restart in a directory below it.
        registry: the installed drivers.
        networks: all networks.
        endpoints: all endpoints.
    """

    def __init__(
        self,
        root: Path,
        registry: Registry,
        networks: Records[NetworkRecord],
        endpoints: EndpointRecords,
    ) -> None:
        self.registry = registry
        self._root = root
        self._networks = networks
        self._endpoints = endpoints
        self._opened: dict[str, Driver[NetworkHooks]] = {}
        self._views: dict[str, Network] = {}
        self._lock = threading.RLock()

    def get(self, name: str) -> Driver[NetworkHooks]:
        """Return a driver, opened."""
        with self._lock:
            if name not in self._opened:
                loaded = self.registry.network(name)
                root = self._root / name
                root.mkdir(parents=True, exist_ok=True)
                options = parse_options(
                    f"network driver {name}", loaded.call.network_driver_options(), {}
                )
                loaded.call.network_open(root, options)
                self._opened[name] = loaded
            return self._opened[name]

    def of(self, record: NetworkRecord) -> NetworkHooks:
        """Return the hooks of a network's driver."""
        return self.get(record.driver).call

    def traits(self, record: NetworkRecord) -> NetworkTraits:
        """Return what kind of driver a network has."""
        return self.of(record).network_traits()

    def network(self, record: NetworkRecord) -> Network:
        """Return a network as the contract has it."""
        found = self._views.get(record.id)
        if found is None:
            found = self._views[record.id] = for_driver(record, self.registry)
        return found

    def endpoint(self, record: EndpointRecord, names: Iterable[str] = ()) -> Endpoint:
        """Return an endpoint as the contract has it."""
        network = self._networks.get(record.network)
        assert network is not None
        schema = self.of(network).endpoint_options()
        options = parse_options(
            f"network driver {network.driver}", schema, record.options_for_driver()
        )
        return record.for_driver(options, tuple(names))

    def forget(self, network_id: str) -> None:
        """Forget what was remembered of a network that is changed or removed."""
        self._views.pop(network_id, None)

    def sync(self, more: Iterable[str] = ()) -> None:
        """Have every driver in use, and those named, make the host agree with the records."""
        by_driver: dict[str, list[NetworkState]] = {name: [] for name in more}
        for record in self._networks:
            by_driver.setdefault(record.driver, [])
        for name in by_driver:
            self.sync_one(name)

    def sync_one(self, name: str) -> None:
        """Have one driver make the host agree with the records; a failure is logged."""
        try:
            states = [self._state(r) for r in self._networks if r.driver == name]
            self.get(name).call.network_sync(states)
        except EngineError as error:
            log.error("network driver %s cannot restore its networks: %s", name, error)

    def _state(self, record: NetworkRecord) -> NetworkState:
        joined = tuple(
            (self.endpoint(found), tuple(port.for_driver() for port in found.ports))
            for found in self._endpoints.of_network(record.id)
            if found.joined
        )
        return NetworkState(self.network(record), joined)

    def status(self) -> list[tuple[str, str]]:
        """Return pairs for ``info``."""
        return [pair for driver in self._in_use() for pair in driver.call.network_status()]

    def _in_use(self) -> list[Driver[NetworkHooks]]:
        with self._lock:
            return list(self._opened.values())

    def close(self) -> None:
        """Leave; networks stay."""
        for driver in self._in_use():
            driver.call.network_close()
