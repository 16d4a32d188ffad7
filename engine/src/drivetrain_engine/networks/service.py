"""The networks of a host: making, showing and removing them, and the containers on them."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from drivetrain.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
)
from drivetrain.host.nftwatch import NftWatcher
from drivetrain.network import SubnetRequest
from drivetrain.registry import Registry
from drivetrain_engine.networks import creation, ipam, predefined, views
from drivetrain_engine.networks.inventory import Inventory
from drivetrain_engine.networks.publishing import Ports
from drivetrain_engine.networks.records import NetworkRecord
from drivetrain_engine.networks.requests import (
    Attachment,
    NetworkSettings,
    SandboxRequest,
    SandboxResult,
)
from drivetrain_engine.networks.sandboxes import Sandboxes
from drivetrain_engine.state import Events, State

log = logging.getLogger("engine.networks")

Json = dict[str, Any]
#: Inside the class ``list`` is the method.
Documents = list[Json]
Texts = list[str]
Pairs = list[tuple[str, str]]
Prefixes = list[Any]
Pools = list[tuple[str, int]]


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
        self._inventory = Inventory(root, state, registry, events, settings)
        #: One network at a time is planned: names are unique, and subnets do not overlap.
        self._planning = threading.Lock()
        self._records = self._inventory.networks
        self._drivers = self._inventory.drivers
        self._sandboxes = Sandboxes(self._inventory, exec_root / "netns")
        self._watcher: NftWatcher | None = None

    def open(self) -> None:
        """Make the default networks that are missing, and have drivers restore the others."""
        self._drivers.open_global()
        self._inventory.refresh()
        names = predefined.make(
            self._records, self._drivers, self._inventory.settings, self._address_pools()
        )
        self._drivers.sync([*names, *self._drivers.opened_global()])
        if self._watcher is None:
            self._watcher = NftWatcher(self._restore_rules)

    def _restore_rules(self, tables: set[str]) -> None:
        """Have the drivers restore their rules after somebody else flushed or changed them."""
        for name in self._drivers.keepers(tables):
            log.warning("rules of network driver %s were changed: restoring them", name)
            self._drivers.sync_one(name)

    def _address_pools(self) -> Pools:
        return list(self._inventory.settings.default_address_pools) or ipam.DEFAULT_POOLS

    def _taken(self) -> Prefixes:
        return [
            subnet.prefix
            for record in self._records
            if not record.config_only
            for subnet in self._drivers.network(record).subnets
        ]

    # Networks

    def resolve(self, reference: str) -> NetworkRecord:
        """Return a network by id, name, or the unique beginning of an id.

        Raises:
            NotFound: there is none.
            FailedPrecondition: several ids begin so.
        """
        return self._inventory.resolve(reference)

    def create(self, body: Mapping[str, Any]) -> tuple[str, str]:
        """Make a network from the body of ``POST /networks/create``; return id and warning.

        Raises:
            AlreadyExists: the name is taken.
            EngineError: of the checks and of the driver; nothing is left then.
        """
        with contextlib.ExitStack() as held:
            with self._planning:
                record = self._planned(body)
                if not record.config_only:
                    # From here on: others see the record, and wait until the driver is done.
                    held.enter_context(self._inventory.holding(record))
                self._records.put(record.id, record)
            if record.config_only:
                return record.id, ""
            try:
                self._drivers.of(record).network_create(self._drivers.network(record))
            except BaseException:
                self._release_subnets(record)
                self._inventory.forget(record)
                raise
        self._inventory.emit("create", record)
        return record.id, ""

    def _planned(self, body: Mapping[str, Any]) -> NetworkRecord:
        """Return the record of a network to be, with everything chosen that the user left open."""
        self._inventory.refresh()
        name = str(body.get("Name") or "")
        if any(found.name == name for found in self._records):
            raise AlreadyExists(f"network with name {name} already exists")
        if name in ("default", "container"):
            raise PermissionDenied(f"operation is not permitted on predefined {name} network")
        if body.get("ConfigOnly"):
            return creation.configuration_of(body)
        body, source = self._completed(body)
        record = creation.record_of(
            body, self._drivers.probed, self._address_pools(), self._taken(), self._choose
        )
        record.config_from = source
        if self._inventory.traits(record).single:
            raise PermissionDenied(f'only one instance of "{record.driver}" network is allowed')
        return record

    def _completed(self, body: Mapping[str, Any]) -> tuple[Mapping[str, Any], str]:
        """Return the body with what ``--config-from`` names in it, and that name."""
        name = str((body.get("ConfigFrom") or {}).get("Network") or "")
        if not name:
            return body, ""
        source = self.resolve(name)
        if not source.config_only:
            raise InvalidArgument(f"network {name} is no configuration: --config-only makes one")
        return creation.completed(body, source), source.name

    def _choose(self, record: NetworkRecord, request: SubnetRequest) -> Any:
        """Have a driver choose subnets; ``None``: it leaves that to us."""
        call = self._drivers.address_manager(record.driver, record.ipam_driver)
        return None if call is None else call.subnets_choose(request)

    def _release_subnets(self, record: NetworkRecord) -> None:
        call = self._drivers.address_manager(record.driver, record.ipam_driver)
        if call is not None:
            call.subnets_release(self._drivers.network(record))

    def _view(self, record: NetworkRecord) -> Json:
        endpoints = self._inventory.endpoints.of_network(record.id)
        return views.network(record, endpoints, self._inventory.traits(record).scope)

    def inspect(self, reference: str) -> Json:
        """Return a network as the API shows it."""
        record = self.resolve(reference)
        shown = self._view(record)
        if shown["Scope"] == "global":
            call = self._drivers.of(record)
            views.add_peers(shown, call.peer_list(self._drivers.network(record)))
        return shown

    def list(self, filters: Mapping[str, Any] | None = None) -> Documents:
        """Return the networks that the filters leave, without what only other hosts can tell."""
        self._inventory.refresh()
        matches = self._selector(filters or {})
        return [self._view(record) for record in self._records if matches(record)]

    def _selector(self, filters: Mapping[str, Any]) -> Any:
        return views.selector(
            filters,
            lambda record: bool(self._inventory.endpoints.of_network(record.id)),
            lambda record: self._inventory.traits(record).scope,
        )

    def remove(self, reference: str) -> None:
        """Remove a network that nobody is on.

        Raises:
            PermissionDenied: it is one of the predefined.
            FailedPrecondition: containers are on it.
        """
        record = self.resolve(reference)
        if record.config_only:
            self._remove_configuration(record)
            return
        with self._inventory.using(record):
            self._remove(record)
        self._inventory.emit("destroy", record)

    def _remove_configuration(self, record: NetworkRecord) -> None:
        with self._planning:
            users = [
                r.name for r in self._records if r.config_from and r.config_from == record.name
            ]
            if users:
                raise FailedPrecondition(
                    f"configuration network {record.name} is used by {', '.join(users)}"
                )
            self._records.delete(record.id)

    def _remove(self, record: NetworkRecord) -> None:
        """Remove a network that is held."""
        if record.predefined:
            raise PermissionDenied(f"{record.name} is a pre-defined network and cannot be removed")
        endpoints = self._inventory.endpoints.of_network(record.id)
        active = [endpoint for endpoint in endpoints if endpoint.joined]
        if active:
            names = ", ".join(f'"{e.name}"' for e in active[:3])
            raise FailedPrecondition(
                f"error while removing network: network {record.name} has active endpoints "
                f"(name:{names}): disconnect or stop them first"
            )
        for endpoint in endpoints:
            self._sandboxes.forget(endpoint)
        network, call = self._drivers.network(record), self._drivers.of(record)
        call.network_delete(network)
        self._release_subnets(record)
        self._inventory.forget(record)

    def prune(self, filters: Mapping[str, Any] | None = None) -> Texts:
        """Remove the networks that no container refers to; return their names."""
        removed = []
        matches = self._selector(filters or {})
        for record in self._records:
            if record.predefined or record.config_only or not matches(record):
                continue
            with contextlib.suppress(NotFound), self._inventory.using(record):
                if not self._inventory.endpoints.of_network(record.id):
                    self._remove(record)
                    removed.append(record)
        for record in removed:
            self._inventory.emit("destroy", record)
        return [record.name for record in removed]

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
        self._sandboxes.release(container_id)

    def connect(
        self, container_id: str, attachment: Attachment, *, name: str = "", running: bool = False
    ) -> None:
        """Connect a container to one more network; at once when it is running.

        Raises:
            FailedPrecondition: it is on the network already, or has the host's network.
        """
        self._sandboxes.connect(container_id, attachment, name=name, running=running)

    def disconnect(self, container_id: str, reference: str, force: bool = False) -> None:
        """Disconnect a container from a network; with ``force`` also when its driver fails.

        Raises:
            FailedPrecondition: it is not on it.
        """
        self._sandboxes.disconnect(container_id, reference, force)

    def endpoints(self, container_id: str) -> dict[str, Json]:
        """Return ``NetworkSettings.Networks`` of a container."""
        return {
            record.name: views.endpoint(
                endpoint, record.id, self._sandboxes.names_of(endpoint, record)
            )
            for endpoint, record in self._inventory.pairs(container_id)
        }

    def ports(self, container_id: str) -> Ports:
        """Return what a container's ports are published on, as the API has it."""
        return self._sandboxes.ports(container_id)

    def sandbox(self, container_id: str) -> Path | None:
        """Return the path of a container's namespace, or ``None``."""
        return self._sandboxes.path(container_id)

    def rename(self, container_id: str, name: str) -> None:
        """Follow a container's new name."""
        self._sandboxes.rename(container_id, name)

    # The whole

    def reconcile(self, running: Mapping[str, SandboxRequest], known: set[str]) -> None:
        """Make sandboxes and endpoints agree with the containers.

        Args:
            running: requests of the containers that run.
            known: ids of all containers.
        """
        self._sandboxes.reconcile(set(running), known)
        self._drivers.sync(predefined.installed(self._drivers))

    def status(self) -> Pairs:
        """Return pairs for ``info``."""
        return self._drivers.status()

    def close(self) -> None:
        """Leave; networks and sandboxes stay."""
        if self._watcher is not None:
            self._watcher.close()
        self._sandboxes.close()
        self._drivers.close()
