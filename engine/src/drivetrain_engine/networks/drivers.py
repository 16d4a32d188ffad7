"""The network drivers in use: opening them, and having them agree with the records."""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from drivetrain.calling import Driver
from drivetrain.errors import EngineError, InvalidArgument, NotSupported
from drivetrain.network import Endpoint, Network, NetworkHooks, NetworkState, NetworkTraits
from drivetrain.options import Options, parse_options
from drivetrain.registry import Registry
from drivetrain_engine.networks.locks import Gate
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
        cluster: options for drivers of global scope, by name.
    """

    def __init__(
        self,
        root: Path,
        registry: Registry,
        networks: Records[NetworkRecord],
        endpoints: EndpointRecords,
        cluster: Mapping[str, str] | None = None,
    ) -> None:
        self.registry = registry
        self._root = root
        self._networks = networks
        self._endpoints = endpoints
        self._cluster = dict(cluster or {})
        #: What others call an endpoint; set by who knows names.
        self.names_of: Callable[[EndpointRecord], Iterable[str]] = lambda _: ()
        self._opened: dict[str, Driver[NetworkHooks]] = {}
        self._traits: dict[str, NetworkTraits] = {}
        self._probed: set[str] = set()
        self._views: dict[str, Network] = {}
        self._lock = threading.RLock()
        self._gates: defaultdict[str, Gate] = defaultdict(Gate)

    def get(self, name: str) -> Driver[NetworkHooks]:
        """Return a driver, opened."""
        with self._lock:
            if name not in self._opened:
                loaded = self.registry.network(name)
                root = self._root / name
                root.mkdir(parents=True, exist_ok=True)
                loaded.call.network_open(root, self._options(loaded))
                self._opened[name] = loaded
            return self._opened[name]

    def probed(self, name: str) -> NetworkHooks:
        """Return the hooks of a driver that was found to work on this host, once, by trying it.

        Raises:
            NotSupported: it does not.
        """
        with self._lock:
            if name not in self._probed:
                self.registry.network(name).call.network_probe()
                self._probed.add(name)
        return self.get(name).call

    def gate(self, name: str) -> Gate:
        """Return what calls for single networks of a driver pass, and a sync alone."""
        with self._lock:
            return self._gates[name]

    def _options(self, driver: Driver[NetworkHooks]) -> Options:
        """Return the driver's options: what it declares of the cluster's settings.

        Raises:
            InvalidArgument: a key that a driver of global scope does not know.
        """
        schema = driver.call.network_driver_options()
        names = {option.name for option in schema}
        everything = driver.call.network_traits().scope == "global"
        given = {k: v for k, v in self._cluster.items() if everything or k in names}
        return parse_options(f"network driver {driver.name}", schema, given)

    def open_global(self) -> None:
        """Open the drivers of global scope when this host is in a cluster.

        Raises:
            EngineError: the cluster's settings are wrong.
        """
        if not self._cluster:
            return
        for name in self.registry.names("network"):
            try:
                found = self.registry.network(name)
                if found.call.network_traits().scope != "global":
                    continue
                found.call.network_probe()
            except NotSupported as error:
                log.warning("network driver %s is left out: %s", name, error)
                continue
            self.get(name)

    def global_networks(self) -> dict[str, Sequence[Network]]:
        """Return the networks of all hosts by driver, of the drivers that know them now."""
        found = {}
        for driver in self._in_use():
            if driver.call.network_traits().scope == "global":
                listed = driver.call.network_list()
                if listed is not None:
                    found[driver.name] = listed
        return found

    def opened_global(self) -> list[str]:
        """Return the names of the drivers of global scope that are open."""
        return [d.name for d in self._in_use() if d.call.network_traits().scope == "global"]

    def address_manager(self, driver: str, asked: str = "default") -> NetworkHooks | None:
        """Return the hooks that choose subnets and addresses; ``None``: that is left to us.

        Args:
            driver: of the network.
            asked: the user's ``--ipam-driver``: ``default``, or the name of a network driver.

        Raises:
            InvalidArgument: the driver asked for manages no addresses.
        """
        found = self.get(driver if asked in ("default", "null") else asked)
        if found.implements("address_take"):
            return found.call
        if found.name == asked:
            raise InvalidArgument(
                f"the network driver {asked} manages no addresses: use --ipam-driver default"
            )
        return None

    def of(self, record: NetworkRecord) -> NetworkHooks:
        """Return the hooks of a network's driver."""
        return self.get(record.driver).call

    def traits(self, record: NetworkRecord) -> NetworkTraits:
        """Return what kind of driver a network has."""
        found = self._traits.get(record.driver)
        if found is None:
            found = self._traits[record.driver] = self.of(record).network_traits()
        return found

    def network(self, record: NetworkRecord) -> Network:
        """Return a network as the contract has it."""
        found = self._views.get(record.id)
        if found is None:
            schema = self.of(record).network_options()
            found = self._views[record.id] = for_driver(record, schema)
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
            if record.config_only:
                continue
            by_driver.setdefault(record.driver, [])
        for name in by_driver:
            self.sync_one(name)

    def keepers(self, tables: set[str]) -> list[str]:
        """Return the open drivers that keep one of these nftables tables; of any, when empty."""
        found = []
        for driver in self._in_use():
            kept = set(driver.call.network_traits().tables)
            if kept & tables if tables else kept:
                found.append(driver.name)
        return found

    def sync_one(self, name: str) -> None:
        """Have one driver make the host agree with the records; a failure is logged."""
        try:
            call = self.get(name).call
            with self.gate(name).alone():
                call.network_sync([self._state(r) for r in self._networks if r.driver == name])
        except EngineError as error:
            log.error("network driver %s cannot restore its networks: %s", name, error)

    def _state(self, record: NetworkRecord) -> NetworkState:
        joined = tuple(
            (
                self.endpoint(found, self.names_of(found)),
                tuple(port.for_driver() for port in found.ports),
            )
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
