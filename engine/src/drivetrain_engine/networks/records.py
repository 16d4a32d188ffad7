"""What the engine remembers of networks, endpoints and sandboxes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from ipaddress import ip_address, ip_interface, ip_network
from typing import Generic, TypeVar

import msgspec

from drivetrain.network import Address, Endpoint, Network, PublishedPort, Subnet
from drivetrain.options import Option, Options, parse_options
from drivetrain_engine.networks.requests import PortRequest
from drivetrain_engine.state import State

#: Options of endpoints that the engine serves for every driver.
SYSCTLS = "com.docker.network.endpoint.sysctls"
INTERFACE_NAME = "com.docker.network.endpoint.ifname"
ENGINE_OPTIONS = (SYSCTLS, INTERFACE_NAME)


class SubnetRecord(msgspec.Struct):
    """One address range; texts as the user gave them, or as they were chosen."""

    prefix: str
    gateway: str = ""
    ip_range: str = ""
    auxiliary: dict[str, str] = {}


class NetworkRecord(msgspec.Struct):
    """A network."""

    id: str
    name: str
    driver: str
    created: str
    internal: bool = False
    attachable: bool = False
    enable_ipv4: bool = True
    enable_ipv6: bool = False
    config_only: bool = False
    config_from: str = ""
    ipam_driver: str = "default"
    ipam_options: dict[str, str] = {}
    subnets: list[SubnetRecord] = []
    options: dict[str, str] = {}
    labels: dict[str, str] = {}
    default: bool = False
    predefined: bool = False


class PortRecord(msgspec.Struct, frozen=True):
    """A published port of an endpoint."""

    protocol: str
    container_port: int
    host_ip: str
    host_port: int

    def for_driver(self) -> PublishedPort:
        """Return it as the contract has it."""
        return PublishedPort(
            self.protocol,  # type: ignore[arg-type]
            self.container_port,
            ip_address(self.host_ip),
            self.host_port,
        )


class EndpointRecord(msgspec.Struct):
    """A container's place on a network.

    Attributes:
        wanted: addresses that the user chose; kept over a stop.
        addresses: with prefix lengths; empty while it is not joined and nothing was chosen.
        joined: the link exists.
        gateway_for: IP versions whose default route leads through its gateways.
        link_local: further addresses that the user chose, outside of the subnets.
        on_link: its default route needs no gateway.
    """

    id: str
    network: str
    container: str
    name: str
    aliases: list[str] = []
    links: list[str] = []
    wanted: list[str] = []
    wanted_mac: str = ""
    driver_opts: dict[str, str] = {}
    gw_priority: int = 0
    addresses: list[str] = []
    gateways: list[str] = []
    mac: str = ""
    interface: str = ""
    joined: bool = False
    ports: list[PortRecord] = []
    gateway_for: list[int] = []
    link_local: list[str] = []
    on_link: bool = False

    def for_driver(self, options: Options, names: tuple[str, ...] = ()) -> Endpoint:
        """Return it as the contract has it."""
        return Endpoint(
            self.id,
            self.container,
            tuple(ip_interface(text) for text in self.addresses),
            self.mac,
            self.interface or "eth0",
            options,
            names,
            tuple(self.gateway_for),
        )

    def options_for_driver(self) -> dict[str, str]:
        """Return the user's options without those that the engine itself serves."""
        return {k: v for k, v in self.driver_opts.items() if k not in ENGINE_OPTIONS}

    def address(self, version: int) -> str:
        """Return the address of an IP version with its prefix length, or the empty string."""
        return next((t for t in self.addresses if ip_interface(t).version == version), "")


class SandboxRecord(msgspec.Struct):
    """A container's namespace and what its files were written from."""

    container: str
    path: str
    name: str
    hostname: str
    domainname: str
    directory: str
    dns: list[str] = []
    dns_search: list[str] = []
    dns_options: list[str] = []
    extra_hosts: list[str] = []
    ports: list[PortRequest] = []


Index = TypeVar("Index")
T = TypeVar("T", NetworkRecord, EndpointRecord, SandboxRecord)


class Records(Generic[T]):
    """Documents of one kind, in memory and in the state; any thread may call any method."""

    def __init__(self, state: State, table: str, kind: type[T]) -> None:
        self._lock = threading.Lock()
        self._table = state.table(table)
        self._found: dict[str, T] = {
            name: msgspec.convert(document, kind) for name, document in self._table.items().items()
        }

    def get(self, name: str) -> T | None:
        """Return a record, or ``None``."""
        return self._found.get(name)

    def put(self, name: str, record: T) -> None:
        """Write a record."""
        with self._lock:
            self._found[name] = record
            self._index(record)
        self._table.put(name, msgspec.to_builtins(record))

    def delete(self, name: str) -> None:
        """Forget a record."""
        with self._lock:
            record = self._found.pop(name, None)
            if record is not None:
                self._unindex(record)
        self._table.delete(name)

    def _index(self, record: T) -> None:
        """Find a record by more than its name; with the lock held."""

    def _unindex(self, record: T) -> None:
        """Undo :meth:`_index`."""

    def __iter__(self) -> Iterator[T]:
        with self._lock:
            return iter(list(self._found.values()))


class EndpointRecords(Records[EndpointRecord]):
    """Endpoints, found by network and by container without looking at all of them."""

    def __init__(self, state: State) -> None:
        super().__init__(state, "endpoints", EndpointRecord)
        self._indexes: dict[str, object] = {}
        self._changes = 0
        self._networks: dict[str, dict[str, EndpointRecord]] = {}
        self._containers: dict[str, dict[str, EndpointRecord]] = {}
        for record in self:
            self._index(record)

    def _index(self, record: EndpointRecord) -> None:
        self._changed(record)
        self._networks.setdefault(record.network, {})[record.id] = record
        self._containers.setdefault(record.container, {})[record.id] = record

    def _changed(self, record: EndpointRecord) -> None:
        self._indexes.pop(record.network, None)
        self._changes += 1

    def _unindex(self, record: EndpointRecord) -> None:
        self._changed(record)
        for index, key in (
            (self._networks, record.network),
            (self._containers, record.container),
        ):
            found = index.get(key, {})
            found.pop(record.id, None)
            if not found:
                index.pop(key, None)

    def of_network(self, network_id: str) -> list[EndpointRecord]:
        """Return the endpoints of a network."""
        with self._lock:
            return list(self._networks.get(network_id, {}).values())

    def indexed(self, network_id: str, build: Callable[[list[EndpointRecord]], Index]) -> Index:
        """Return what ``build`` makes of the endpoints of a network, kept until one changes."""
        with self._lock:
            found = self._indexes.get(network_id)
            before = self._changes
        if found is None:
            found = build(self.of_network(network_id))
            with self._lock:
                if self._changes == before and network_id in self._networks:
                    self._indexes[network_id] = found
        return found  # type: ignore[return-value]

    def of_container(self, container_id: str) -> list[EndpointRecord]:
        """Return the endpoints of a container."""
        with self._lock:
            return list(self._containers.get(container_id, {}).values())


def for_driver(record: NetworkRecord, schema: Sequence[Option]) -> Network:
    """Return a network as the contract has it; ``schema`` is what its driver knows of options."""
    return Network(
        id=record.id,
        name=record.name,
        subnets=tuple(subnet_for_driver(subnet) for subnet in record.subnets),
        options=parse_options(f"network driver {record.driver}", schema, record.options),
        internal=record.internal,
        default=record.default,
        labels=record.labels,
        attachable=record.attachable,
        created=record.created,
    )


def from_driver(network: Network, driver: str) -> NetworkRecord:
    """Return the record of a network that another host made."""
    versions = {subnet.prefix.version for subnet in network.subnets}
    return NetworkRecord(
        id=network.id,
        name=network.name,
        driver=driver,
        created=network.created,
        internal=network.internal,
        attachable=network.attachable,
        enable_ipv4=4 in versions,
        enable_ipv6=6 in versions,
        subnets=[subnet_from_driver(subnet) for subnet in network.subnets],
        options=dict(network.options.given),
        labels=dict(network.labels),
    )


def subnet_from_driver(subnet: Subnet) -> SubnetRecord:
    """Return the record of a subnet."""
    return SubnetRecord(
        prefix=str(subnet.prefix),
        gateway=str(subnet.gateway or ""),
        ip_range=str(subnet.range or ""),
        auxiliary={name: str(address) for name, address in subnet.auxiliary.items()},
    )


def subnet_for_driver(record: SubnetRecord) -> Subnet:
    """Return a subnet as the contract has it."""
    gateway: Address | None = ip_address(record.gateway) if record.gateway else None
    auxiliary = {name: ip_address(text) for name, text in record.auxiliary.items()}
    chosen = ip_network(record.ip_range) if record.ip_range else None
    return Subnet(ip_network(record.prefix), gateway, auxiliary, chosen)
