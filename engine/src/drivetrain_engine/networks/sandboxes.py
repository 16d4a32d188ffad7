"""Sandboxes: the network namespaces of containers, and the networks that each is on."""

from __future__ import annotations

import contextlib
import logging
from contextlib import AbstractContextManager
from pathlib import Path

from drivetrain.errors import EngineError, FailedPrecondition
from drivetrain.host import namespaces
from drivetrain.host.netlink import Netlink
from drivetrain_engine.networks import files, gateways
from drivetrain_engine.networks.etc import ContainerFiles
from drivetrain_engine.networks.forwarding import Forwarder
from drivetrain_engine.networks.inventory import Inventory, Pair
from drivetrain_engine.networks.joining import Joining, set_sysctls
from drivetrain_engine.networks.locks import Locks
from drivetrain_engine.networks.names import Directory
from drivetrain_engine.networks.publishing import Ports, Publishing
from drivetrain_engine.networks.records import EndpointRecord, NetworkRecord, SandboxRecord
from drivetrain_engine.networks.requests import (
    Attachment,
    EndpointInfo,
    SandboxRequest,
    SandboxResult,
)
from drivetrain_engine.networks.resolver import Resolver

log = logging.getLogger("engine.networks")


class Sandboxes:
    """The sandboxes of all containers.

    Args:
        inventory: of networks and endpoints.
        root: the namespaces are kept by files below it.
    """

    def __init__(self, inventory: Inventory, root: Path) -> None:
        self._inventory = inventory
        self._root = root
        self._records = inventory.sandboxes
        self._directory = Directory(inventory)
        inventory.drivers.names_of = self._directory.names_of
        self._joining = Joining(inventory, self._directory)
        self._publishing = Publishing(inventory, self._joining)
        self._files = ContainerFiles(inventory, self._directory)
        self._resolver = Resolver()
        self._held = Locks()
        root.mkdir(parents=True, exist_ok=True, mode=0o711)

    def path(self, container_id: str) -> Path | None:
        """Return where a container's namespace is kept, or ``None``."""
        record = self._records.get(container_id)
        return Path(record.path) if record is not None and record.path else None

    def ports(self, container_id: str) -> Ports:
        """See :meth:`Networks.ports`."""
        return self._publishing.of_container(container_id)

    def names_of(self, endpoint: EndpointRecord, net: NetworkRecord) -> list[str]:
        """Return the names that an endpoint is known by on its network."""
        return self._directory.names_of(endpoint) if self._directory.has_names(net) else []

    # Beginning

    def start(self, request: SandboxRequest) -> SandboxResult:
        """See :meth:`Networks.start`."""
        with self._held.hold(request.container_id):
            if self._records.get(request.container_id) is not None:
                self._stop(request.container_id)
            record = SandboxRecord(
                container=request.container_id,
                path="",
                name=request.name,
                hostname=request.hostname,
                domainname=request.domainname,
                directory=str(request.directory),
                dns=request.dns,
                dns_search=request.dns_search,
                dns_options=request.dns_options,
                extra_hosts=request.extra_hosts,
                ports=request.ports,
            )
            try:
                return self._start(request, record)
            except BaseException:
                self._stop(request.container_id)
                for endpoint in self._inventory.endpoints.of_container(request.container_id):
                    if not endpoint.wanted:
                        self._forget(endpoint)
                raise

    def _start(self, request: SandboxRequest, record: SandboxRecord) -> SandboxResult:
        pairs = self._endpoints(request)
        if all(self._inventory.traits(net).sandbox == "own" for _, net in pairs):
            path = self._root / request.container_id[:32]
            namespaces.remove_network_namespace(path)
            record.path = str(path)
            self._records.put(request.container_id, record)
            namespaces.new_network_namespace(path)
            own = {k: v for k, v in request.sysctls.items() if "IFNAME" not in k}
            set_sysctls(path, own)
            self._join_all(record, pairs)
        else:
            self._records.put(request.container_id, record)
            for endpoint, net in pairs:
                with self._inventory.using(net):
                    endpoint.joined = True
                    self._inventory.put(endpoint)
        self._files.write(record, pairs)
        infos = [
            EndpointInfo(
                net.name, net.id, found.id, tuple(found.addresses), found.mac, found.interface
            )
            for found, net in pairs
        ]
        place = Path(record.path) if record.path else None
        return SandboxResult(place, infos, self.ports(request.container_id))

    def _endpoints(self, request: SandboxRequest) -> list[Pair]:
        """Return the container's endpoints, made where they are missing, in the order asked."""
        existing = {endpoint.network: endpoint for endpoint, _ in self._pairs(request.container_id)}
        found: list[Pair] = []
        for attachment in request.attachments:
            net = self._inventory.resolve(attachment.network)
            endpoint = existing.pop(net.id, None)
            if endpoint is None:
                with self._inventory.using(net):
                    endpoint = self._joining.new(
                        request.container_id, request.name, net, attachment
                    )
            else:
                endpoint.name = request.name
            found.append((endpoint, net))
        for endpoint in existing.values():
            other = self._inventory.networks.get(endpoint.network)
            if other is not None:
                found.append((endpoint, other))
        return found

    def _pairs(self, container_id: str) -> list[Pair]:
        return self._inventory.pairs(container_id)

    def _join_all(self, record: SandboxRecord, pairs: list[Pair]) -> None:
        with Netlink(Path(record.path)) as inside:
            inside.set_link("lo", attributes={}, up=True)
            self._open_names(record, pairs)
            gateways.decide(pairs)
            for endpoint, net in pairs:
                with self._inventory.using(net):
                    self._joining.join(record, inside, endpoint, net, pairs)
        if place := gateways.publisher(pairs):
            with self._inventory.using(place[1]):
                self._publishing.publish(*place, record.ports)

    def _open_names(self, record: SandboxRecord, pairs: list[Pair]) -> None:
        if any(self._directory.has_names(net) for _, net in pairs):
            names = self._directory.names(record, self._forwarders(record, pairs))
            self._resolver.open(record.container, Path(record.path), names)

    def _forwarders(self, record: SandboxRecord, pairs: list[Pair]) -> list[Forwarder]:
        """Return the servers for other names: the user's, or else the host's."""
        if record.dns:
            # As if the container asked: such a server may be on a network that only it reaches.
            return [Forwarder(address, Path(record.path)) for address in record.dns]
        if all(net.internal for _, net in pairs):
            return []
        chosen = self._inventory.settings.dns or files.Resolv().servers
        return [Forwarder(address) for address in chosen]

    # Changes while it exists

    def connect(
        self, container_id: str, attachment: Attachment, *, name: str, running: bool
    ) -> None:
        """See :meth:`Networks.connect`."""
        with self._held.hold(container_id):
            net = self._inventory.resolve(attachment.network)
            mine = self._pairs(container_id)
            if any(other.id == net.id for _, other in mine):
                raise FailedPrecondition(
                    f"endpoint with name {name} already exists in network {net.name}"
                )
            record = self._records.get(container_id)
            if self._inventory.traits(net).single or (record is not None and not record.path):
                raise FailedPrecondition(
                    "container cannot be connected to host or none networks, or from the host "
                    "network to others: make a new one with --network"
                )
            with self._inventory.using(net):
                endpoint = self._joining.new(container_id, name, net, attachment)
            if not running or record is None:
                return
            try:
                self._connect_running(record, (endpoint, net), mine)
            except BaseException:
                with contextlib.suppress(EngineError, OSError):
                    self._take_down(record, endpoint, mine)
                self._forget(endpoint)
                raise

    def _connect_running(self, record: SandboxRecord, pair: Pair, others: list[Pair]) -> None:
        pairs = [*others, pair]
        with Netlink(Path(record.path)) as inside:
            changed = gateways.decide(pairs)
            with self._inventory.using(pair[1]):
                self._joining.join(record, inside, *pair, pairs)
            gateways.route(inside, [each for each in changed if each is not pair])
        self._settle(record, pairs)

    def _settle(self, record: SandboxRecord, pairs: list[Pair]) -> None:
        """Have ports, names and files follow what the container is on now."""
        place = gateways.publisher(pairs)
        for endpoint, net in pairs:
            with self._inventory.using(net):
                self._inventory.put(endpoint)
                if endpoint.ports and (place is None or endpoint is not place[0]):
                    self._publishing.withdraw(endpoint, net)
        if place is not None and not place[0].ports:
            with self._inventory.using(place[1]):
                self._publishing.publish(*place, record.ports)
        self._open_names(record, pairs)
        self._files.write(record, pairs)

    def disconnect(self, container_id: str, reference: str, force: bool) -> None:
        """See :meth:`Networks.disconnect`."""
        with self._held.hold(container_id):
            net = self._inventory.resolve(reference)
            mine = self._pairs(container_id)
            endpoint = next((e for e, other in mine if other.id == net.id), None)
            if endpoint is None:
                raise FailedPrecondition(
                    f"container {container_id[:12]} is not connected to network {net.name}"
                )
            record = self._records.get(container_id)
            if self._inventory.traits(net).sandbox == "host" and not force:
                raise FailedPrecondition("container cannot be disconnected from host network")
            if record is not None and record.path and endpoint.joined:
                rest = [pair for pair in mine if pair[0] is not endpoint]
                self._take_down(record, endpoint, rest, force)
                self._settle(record, rest)
                self._inventory.emit("disconnect", net, container_id)
            self._forget(endpoint)

    def _take_down(
        self, record: SandboxRecord, endpoint: EndpointRecord, rest: list[Pair], force: bool = True
    ) -> None:
        """Remove one link of a container, and give its default routes to the next network.

        With ``force`` whatever the driver says.
        """
        with Netlink(Path(record.path)) as inside:
            inside.delete_link(endpoint.interface)
            try:
                self._leave(endpoint)
            except EngineError as error:
                if not force:
                    raise
                log.warning("container %s is taken off a network: %s", record.name, error)
            gateways.route(inside, gateways.decide(rest))

    def rename(self, container_id: str, name: str) -> None:
        """See :meth:`Networks.rename`."""
        with self._held.hold(container_id):
            for endpoint, net in self._pairs(container_id):
                with self._inventory.using(net):
                    endpoint.name = name
                    self._inventory.put(endpoint)
                    if endpoint.joined:
                        self._joining.rename(endpoint, net)

    # The end

    def stop(self, container_id: str) -> None:
        """See :meth:`Networks.stop`."""
        with self._held.hold(container_id):
            self._stop(container_id)

    def _stop(self, container_id: str) -> None:
        record = self._records.get(container_id)
        self._resolver.close_sandbox(container_id)
        if record is not None and record.path:
            # First: with the namespace the kernel takes its links down, in its own time.
            namespaces.remove_network_namespace(Path(record.path))
        failures: list[EngineError] = []
        for endpoint in self._inventory.endpoints.of_container(container_id):
            if not endpoint.joined:
                continue
            try:
                self._leave(endpoint)
            except EngineError as error:
                failures.append(error)
            net = self._inventory.networks.get(endpoint.network)
            if net is not None:
                self._inventory.emit("disconnect", net, container_id)
        if record is not None:
            self._records.delete(container_id)
        for failure in failures:
            log.error("container %s leaves a network: %s", container_id[:12], failure)

    def _leave(self, endpoint: EndpointRecord) -> None:
        """Undo the join in the driver, and give addresses and ports back."""
        with self._holding_of(endpoint):
            try:
                self._joining.leave(endpoint)
            finally:
                self._publishing.release(endpoint)

    def _forget(self, endpoint: EndpointRecord) -> None:
        with self._holding_of(endpoint):
            self.forget(endpoint)

    def _holding_of(self, endpoint: EndpointRecord) -> AbstractContextManager[None]:
        net = self._inventory.networks.get(endpoint.network)
        return contextlib.nullcontext() if net is None else self._inventory.holding(net)

    def forget(self, endpoint: EndpointRecord) -> None:
        """Forget an endpoint that is not joined, with its addresses; its network is held."""
        self._joining.forget(endpoint)

    def release(self, container_id: str) -> None:
        """See :meth:`Networks.release`."""
        with self._held.hold(container_id):
            self._stop(container_id)
            for endpoint in self._inventory.endpoints.of_container(container_id):
                self._forget(endpoint)

    # The whole

    def reconcile(self, running: set[str], known: set[str]) -> None:
        """Remove sandboxes without a running container; serve the others again."""
        for record in list(self._records):
            if record.container not in running:
                self.stop(record.container)
        for endpoint in list(self._inventory.endpoints):
            with self._held.hold(endpoint.container):
                gone = endpoint.container not in known
                if endpoint.joined and endpoint.container not in running:
                    self._leave(endpoint)
                if gone:
                    self._forget(endpoint)
        kept = {record.path for record in self._records}
        for path in self._root.iterdir():
            if str(path) not in kept:
                namespaces.remove_network_namespace(path)
        for record in self._records:
            self._serve_again(record)

    def _serve_again(self, record: SandboxRecord) -> None:
        pairs = self._pairs(record.container)
        for endpoint, _ in pairs:
            self._publishing.hold_again(endpoint)
        if record.path:
            try:
                self._open_names(record, pairs)
            except (OSError, EngineError) as error:
                log.error("no names for container %s: %s", record.container[:12], error)

    def close(self) -> None:
        """The process ends; the sandboxes stay."""
        self._resolver.close()
        self._publishing.close()
