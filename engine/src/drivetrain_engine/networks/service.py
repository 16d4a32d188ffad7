"""The networks of a host: making, showing and removing them, and the containers on them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from ipaddress import ip_interface, ip_network
from pathlib import Path
from typing import Any

from drivetrain.calling import Driver
from drivetrain.errors import (
    AlreadyExists,
    EngineError,
    FailedPrecondition,
    NotFound,
    NotSupported,
    PermissionDenied,
)
from drivetrain.network import Network, NetworkHooks, NetworkState, NetworkTraits
from drivetrain.options import parse_options
from drivetrain.registry import Registry
from drivetrain_engine.networks import creation, ipam, views
from drivetrain_engine.networks.records import (
    EndpointRecord,
    NetworkRecord,
    Records,
    SandboxRecord,
    for_driver,
)
from drivetrain_engine.networks.requests import (
    Attachment,
    NetworkSettings,
    SandboxRequest,
    SandboxResult,
)
from drivetrain_engine.networks.sandboxes import Ports, Sandboxes
from drivetrain_engine.state import Events, State, new_id

log = logging.getLogger("engine.networks")

Json = dict[str, Any]
BRIDGE = "com.docker.network.bridge."
#: Name of the default bridge's link; docker's is docker0.
DEFAULT_LINK = "engine0"
#: Inside the class ``list`` is the method.
Endpoints = list[EndpointRecord]
Documents = list[Json]
Texts = list[str]
Pairs = list[tuple[str, str]]
Pools = list[ipam.Pool]
PREDEFINED = ("bridge", "host", "none")


class Networks:
    """All networks of this engine.

    Args:
        root: drivers keep what must survive a restart below it.
        exec_root: sandboxes are kept below it.
        state: records.
        registry: the installed drivers.
        events: told what happens.
        settings: the daemon's.
    """

    def __init__(
        self,
        *,
        root: Path,
        exec_root: Path,
        state: State,
        registry: Registry,
        events: Events,
        settings: NetworkSettings,
    ) -> None:
        self._root = root
        self._registry = registry
        self._events = events
        self.settings = settings
        self._drivers: dict[str, Driver[NetworkHooks]] = {}
        self._pools: dict[str, Pools] = {}
        self._views: dict[str, Network] = {}
        self.lock = threading.RLock()
        self.records: Records[NetworkRecord] = Records(state, "networks", NetworkRecord)
        self.endpoint_records: Records[EndpointRecord] = Records(state, "endpoints", EndpointRecord)
        sandboxes: Records[SandboxRecord] = Records(state, "sandboxes", SandboxRecord)
        self._sandboxes = Sandboxes(self, exec_root / "netns", sandboxes)

    # Drivers

    def driver(self, name: str) -> Driver[NetworkHooks]:
        """Return a driver, opened."""
        with self.lock:
            if name not in self._drivers:
                loaded = self._registry.network(name)
                root = self._root / name
                root.mkdir(parents=True, exist_ok=True)
                options = parse_options(
                    f"network driver {name}", loaded.call.network_driver_options(), {}
                )
                loaded.call.network_open(root, options)
                self._drivers[name] = loaded
            return self._drivers[name]

    def traits(self, record: NetworkRecord) -> NetworkTraits:
        """Return what kind of driver a network has."""
        return self.driver(record.driver).call.network_traits()

    def view(self, record: NetworkRecord) -> Network:
        """Return a network as the contract has it."""
        found = self._views.get(record.id)
        if found is None:
            found = self._views[record.id] = for_driver(record, self._registry)
        return found

    def pools(self, record: NetworkRecord) -> Pools:
        """Return the address pools of a network."""
        if record.id not in self._pools:
            pools = [ipam.Pool(subnet) for subnet in record.subnets]
            for endpoint in self.endpoints_of(record.id):
                for text in {*endpoint.addresses, *endpoint.wanted}:
                    address = ip_interface(text).ip
                    for pool in pools:
                        if address in pool.prefix:
                            pool.claim(address)
            self._pools[record.id] = pools
        return self._pools[record.id]

    def endpoints_of(self, network_id: str) -> Endpoints:
        """Return the endpoints of a network."""
        return [found for found in self.endpoint_records if found.network == network_id]

    # Beginning

    def open(self) -> None:
        """Make the default networks that are missing, and have drivers restore the others."""
        with self.lock:
            for name in PREDEFINED:
                if name in self._registry.names("network"):
                    self._open_predefined(name)
            self._sync()

    def _open_predefined(self, name: str) -> None:
        existing = next((r for r in self.records if r.name == name), None)
        record = existing or NetworkRecord(
            id=new_id(), name=name, driver=name, created=creation.now(), predefined=True
        )
        if name == "bridge":
            record.default = True
            try:
                self.driver(name).call.network_probe()
                self._plan_default(record)
            except NotSupported as error:
                log.warning("no default network: %s", error)
                return
        self.records.put(record.id, record)

    def _plan_default(self, record: NetworkRecord) -> None:
        """Bring the default bridge's record in line with the daemon's settings."""
        chosen = self.settings
        record.options = {
            f"{BRIDGE}name": DEFAULT_LINK,
            f"{BRIDGE}enable_icc": str(chosen.icc).lower(),
            f"{BRIDGE}enable_ip_masquerade": str(chosen.ip_masq).lower(),
        }
        if chosen.mtu:
            record.options["com.docker.network.driver.mtu"] = str(chosen.mtu)
        config: list[Json] = []
        if chosen.bip:
            own = ip_interface(chosen.bip)
            config.append({"Subnet": str(own.network), "Gateway": str(own.ip)})
        elif record.subnets:
            config = [{"Subnet": s.prefix, "Gateway": s.gateway} for s in record.subnets[:1]]
        elif chosen.fixed_cidr:
            config.append({"Subnet": str(ip_network(chosen.fixed_cidr, strict=False))})
        if config and chosen.fixed_cidr:
            config[0]["IPRange"] = str(ip_network(chosen.fixed_cidr, strict=False))
        if config and chosen.default_gateway:
            config[0]["AuxiliaryAddresses"] = {"DefaultGatewayIPv4": chosen.default_gateway}
        body = {"Name": "bridge", "IPAM": {"Config": config}, "EnableIPv6": chosen.ipv6}
        planned = creation.record_of(
            body, self._registry, self._address_pools(), self._taken(without=record.id)
        )
        record.subnets = planned.subnets
        record.enable_ipv6 = planned.enable_ipv6

    def _address_pools(self) -> list[tuple[str, int]]:
        return list(self.settings.default_address_pools) or ipam.DEFAULT_POOLS

    def _taken(self, without: str = "") -> list[Any]:
        return [
            ip_network(subnet.prefix)
            for record in self.records
            if record.id != without
            for subnet in record.subnets
        ]

    def _sync(self) -> None:
        """Have every driver in use make the host agree with the records."""
        by_driver: dict[str, list[NetworkState]] = {
            name: [] for name in PREDEFINED if name in self._registry.names("network")
        }
        for record in self.records:
            state = NetworkState(self.view(record), self._joined(record))
            by_driver.setdefault(record.driver, []).append(state)
        for name, states in by_driver.items():
            try:
                self.driver(name).call.network_sync(states)
            except EngineError as error:
                log.error("network driver %s cannot restore its networks: %s", name, error)

    def _joined(self, record: NetworkRecord) -> tuple[Any, ...]:
        return tuple(
            (self.endpoint_view(found), tuple(port.for_driver() for port in found.ports))
            for found in self.endpoints_of(record.id)
            if found.joined
        )

    def endpoint_view(self, endpoint: EndpointRecord) -> Any:
        """Return an endpoint as the contract has it."""
        record = self.records.get(endpoint.network)
        assert record is not None
        schema = self.driver(record.driver).call.endpoint_options()
        owner = f"network driver {record.driver}"
        return endpoint.for_driver(parse_options(owner, schema, endpoint.driver_opts))

    # Networks

    def resolve(self, reference: str) -> NetworkRecord:
        """Return a network by id, name, or the unique beginning of an id.

        Raises:
            NotFound: there is none.
            FailedPrecondition: several ids begin so.
        """
        with self.lock:
            reference = "bridge" if reference == "default" else reference
            records = list(self.records)
            for found in records:
                if reference in (found.id, found.name):
                    return found
            candidates = [r for r in records if reference and r.id.startswith(reference)]
            if len(candidates) > 1:
                raise FailedPrecondition(f"network {reference} is ambiguous: give more digits")
            if not candidates:
                raise NotFound(f"network {reference} not found")
            return candidates[0]

    def create(self, body: Mapping[str, Any]) -> tuple[str, str]:
        """Make a network from the body of ``POST /networks/create``; return id and warning.

        Raises:
            AlreadyExists: the name is taken.
            EngineError: of the checks and of the driver; nothing is left then.
        """
        with self.lock:
            name = str(body.get("Name") or "")
            if any(found.name == name for found in self.records):
                raise AlreadyExists(f"network with name {name} already exists")
            if name in ("default", "container"):
                raise PermissionDenied(f"operation is not permitted on predefined {name} network")
            record = creation.record_of(body, self._registry, self._address_pools(), self._taken())
            traits = self.traits(record)
            if traits.single:
                raise PermissionDenied(f'only one instance of "{record.driver}" network is allowed')
            self.records.put(record.id, record)
            try:
                self.driver(record.driver).call.network_create(self.view(record))
            except BaseException:
                self._forget(record)
                raise
        self._emit("create", record)
        return record.id, ""

    def _forget(self, record: NetworkRecord) -> None:
        self.records.delete(record.id)
        self._pools.pop(record.id, None)
        self._views.pop(record.id, None)

    def _emit(self, action: str, record: NetworkRecord, container: str = "") -> None:
        attributes = {"name": record.name, "type": record.driver}
        if container:
            attributes["container"] = container
        self._events.emit("network", action, record.id, attributes)

    def emit_connection(self, action: str, record: NetworkRecord, container: str) -> None:
        """Tell that a container was connected or disconnected."""
        self._emit(action, record, container)

    def inspect(self, reference: str) -> Json:
        """Return a network as the API shows it."""
        with self.lock:
            record = self.resolve(reference)
            scope = self.traits(record).scope
            return views.network(record, self.endpoints_of(record.id), scope)

    def list(self, filters: Mapping[str, Any] | None = None) -> Documents:
        """Return the networks that the filters leave, as the API shows them."""
        with self.lock:
            matches = self._selector(filters or {})
            return [
                views.network(record, self.endpoints_of(record.id), self.traits(record).scope)
                for record in self.records
                if matches(record)
            ]

    def _selector(self, filters: Mapping[str, Any]) -> Any:
        used = {endpoint.network for endpoint in self.endpoint_records}
        return views.selector(filters, lambda r: r.id in used, lambda r: self.traits(r).scope)

    def remove(self, reference: str) -> None:
        """Remove a network that nobody is on.

        Raises:
            PermissionDenied: it is one of the predefined.
            FailedPrecondition: containers are on it.
        """
        with self.lock:
            record = self.resolve(reference)
            if record.predefined:
                raise PermissionDenied(
                    f"{record.name} is a pre-defined network and cannot be removed"
                )
            active = [e for e in self.endpoints_of(record.id) if e.joined]
            if active:
                names = ", ".join(f'"{e.name}"' for e in active[:3])
                raise FailedPrecondition(
                    f"error while removing network: network {record.name} has active endpoints "
                    f"(name:{names}): disconnect or stop them first"
                )
            for endpoint in self.endpoints_of(record.id):
                self.endpoint_records.delete(endpoint.id)
            self.driver(record.driver).call.network_delete(self.view(record))
            self._forget(record)
        self._emit("destroy", record)

    def prune(self, filters: Mapping[str, Any] | None = None) -> Texts:
        """Remove the networks that no container refers to; return their names."""
        removed = []
        with self.lock:
            matches = self._selector(filters or {})
            used = {endpoint.network for endpoint in self.endpoint_records}
            for record in list(self.records):
                if not record.predefined and record.id not in used and matches(record):
                    self.remove(record.id)
                    removed.append(record.name)
        return removed

    # Containers

    def start(self, request: SandboxRequest) -> SandboxResult:
        """Make a container's sandbox and join it to its networks; after an error nothing is left.

        Raises:
            EngineError: of addresses, ports and drivers.
        """
        return self._sandboxes.start(request)

    def stop(self, container_id: str) -> None:
        """Leave all networks and remove the sandbox; unknown containers are fine."""
        self._sandboxes.stop(container_id)

    def release(self, container_id: str) -> None:
        """Forget a container that is removed."""
        self._sandboxes.stop(container_id)
        with self.lock:
            for endpoint in self.of_container(container_id):
                self._sandboxes.forget(endpoint)

    def of_container(self, container_id: str) -> Endpoints:
        """Return the endpoints of a container."""
        return [found for found in self.endpoint_records if found.container == container_id]

    def connect(
        self, container_id: str, attachment: Attachment, *, name: str = "", running: bool = False
    ) -> None:
        """Connect a container to one more network; at once when it is running.

        Raises:
            FailedPrecondition: it is on the network already, or has the host's network.
        """
        self._sandboxes.connect(container_id, attachment, name=name, running=running)

    def disconnect(self, container_id: str, reference: str, force: bool = False) -> None:
        """Disconnect a container from a network.

        Raises:
            FailedPrecondition: it is not on it.
        """
        self._sandboxes.disconnect(container_id, reference, force)

    def endpoints(self, container_id: str) -> dict[str, Json]:
        """Return ``NetworkSettings.Networks`` of a container."""
        with self.lock:
            found: dict[str, Json] = {}
            for endpoint in self.of_container(container_id):
                record = self.records.get(endpoint.network)
                if record is not None:
                    names = self._sandboxes.names_of(endpoint, record)
                    found[record.name] = views.endpoint(endpoint, record.id, names)
            return found

    def ports(self, container_id: str) -> Ports:
        """Return what a container's ports are published on, as the API has it."""
        with self.lock:
            return self._sandboxes.ports(container_id)

    def sandbox(self, container_id: str) -> Path | None:
        """Return the path of a container's namespace, or ``None``."""
        return self._sandboxes.path(container_id)

    def rename(self, container_id: str, name: str) -> None:
        """Follow a container's new name."""
        with self.lock:
            for endpoint in self.of_container(container_id):
                endpoint.name = name
                self.endpoint_records.put(endpoint.id, endpoint)

    # The whole

    def reconcile(self, running: Mapping[str, SandboxRequest], known: set[str]) -> None:
        """Make sandboxes and endpoints agree with the containers.

        Args:
            running: requests of the containers that run.
            known: ids of all containers.
        """
        self._sandboxes.reconcile(set(running), known)
        with self.lock:
            self._sync()

    def status(self) -> Pairs:
        """Return pairs for ``info``."""
        return [pair for driver in self._drivers.values() for pair in driver.call.network_status()]

    def close(self) -> None:
        """Leave; networks and sandboxes stay."""
        self._sandboxes.close()
        for driver in self._drivers.values():
            driver.call.network_close()
