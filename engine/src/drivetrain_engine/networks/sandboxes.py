"""Sandboxes: the network namespaces of containers, and joining them to networks."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from ipaddress import ip_address, ip_interface
from pathlib import Path
from typing import TYPE_CHECKING

from drivetrain.errors import EngineError, FailedPrecondition, InvalidArgument
from drivetrain.host import namespaces
from drivetrain.host.netlink import Netlink
from drivetrain.network import Endpoint, Link, Sandbox
from drivetrain.options import parse_options
from drivetrain_engine.networks import files
from drivetrain_engine.networks.names import Directory
from drivetrain_engine.networks.ports import HostPorts, host_addresses
from drivetrain_engine.networks.records import (
    EndpointRecord,
    NetworkRecord,
    PortRecord,
    Records,
    SandboxRecord,
)
from drivetrain_engine.networks.requests import (
    Attachment,
    EndpointInfo,
    PortRequest,
    SandboxRequest,
    SandboxResult,
)
from drivetrain_engine.networks.resolver import Resolver
from drivetrain_engine.state import new_id

if TYPE_CHECKING:
    from drivetrain_engine.networks.service import Networks

log = logging.getLogger("engine.networks")

Ports = dict[str, list[dict[str, str]]]


class Sandboxes:
    """The sandboxes of all containers; works under the lock of :class:`Networks`.

    Args:
        networks: knows networks, endpoints and drivers.
        root: the namespaces are kept by files below it.
        records: of sandboxes.
    """

    def __init__(self, networks: Networks, root: Path, records: Records[SandboxRecord]) -> None:
        self._networks = networks
        self._root = root
        self._records = records
        self._host_ports = HostPorts()
        self._resolver = Resolver()
        self._directory = Directory(networks, records)
        root.mkdir(parents=True, exist_ok=True, mode=0o711)

    def path(self, container_id: str) -> Path | None:
        """Return where a container's namespace is kept, or ``None``."""
        record = self._records.get(container_id)
        return Path(record.path) if record is not None and record.path else None

    # Beginning

    def start(self, request: SandboxRequest) -> SandboxResult:
        """See :meth:`Networks.start`."""
        with self._networks.lock:
            if self._records.get(request.container_id) is not None:
                self.stop(request.container_id)
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
                self.stop(request.container_id)
                for endpoint in self._networks.of_container(request.container_id):
                    if not endpoint.wanted:
                        self.forget(endpoint)
                raise

    def _start(self, request: SandboxRequest, record: SandboxRecord) -> SandboxResult:
        endpoints = self._endpoints(request)
        own = all(self._networks.traits(net).sandbox == "own" for _, net in endpoints)
        if own:
            path = self._root / request.container_id[:32]
            namespaces.remove_network_namespace(path)
            record.path = str(path)
            self._records.put(request.container_id, record)
            namespaces.new_network_namespace(path)
            self._set_sysctls(path, request.sysctls)
            self._join_all(record, endpoints)
        else:
            self._records.put(request.container_id, record)
            for endpoint, _ in endpoints:
                endpoint.joined = True
                self._networks.endpoint_records.put(endpoint.id, endpoint)
        self._write_files(record, endpoints)
        infos = [
            EndpointInfo(
                net.name, net.id, found.id, tuple(found.addresses), found.mac, found.interface
            )
            for found, net in endpoints
        ]
        place = Path(record.path) if record.path else None
        return SandboxResult(place, infos, self.ports(request.container_id))

    def _endpoints(self, request: SandboxRequest) -> list[tuple[EndpointRecord, NetworkRecord]]:
        """Return the container's endpoints, made where they are missing, in the order asked."""
        existing = {e.network: e for e in self._networks.of_container(request.container_id)}
        found = []
        for attachment in request.attachments:
            net = self._networks.resolve(attachment.network)
            endpoint = existing.pop(net.id, None)
            if endpoint is None:
                endpoint = self._new_endpoint(request.container_id, request.name, net, attachment)
            else:
                endpoint.name = request.name
            found.append((endpoint, net))
        for endpoint in existing.values():
            other = self._networks.records.get(endpoint.network)
            if other is not None:
                found.append((endpoint, other))
        return found

    def _new_endpoint(
        self, container_id: str, name: str, net: NetworkRecord, attachment: Attachment
    ) -> EndpointRecord:
        schema = self._networks.driver(net.driver).call.endpoint_options()
        parse_options(f"network driver {net.driver}", schema, attachment.driver_opts)
        wanted = [text for text in (attachment.ipv4, attachment.ipv6) if text]
        for text in wanted:
            try:
                address = ip_address(text)
            except ValueError:
                raise InvalidArgument(f"invalid address {text!r} for network {net.name}") from None
            if not any(address in pool.prefix for pool in self._networks.pools(net)):
                raise InvalidArgument(
                    f"invalid endpoint settings: no configured subnet contains IP address {text}"
                )
        endpoint = EndpointRecord(
            id=new_id(),
            network=net.id,
            container=container_id,
            name=name,
            aliases=list(attachment.aliases),
            links=list(attachment.links),
            wanted=wanted,
            wanted_mac=attachment.mac,
            driver_opts=dict(attachment.driver_opts),
            gw_priority=attachment.gw_priority,
        )
        self._networks.endpoint_records.put(endpoint.id, endpoint)
        return endpoint

    @staticmethod
    def _set_sysctls(path: Path, values: dict[str, str]) -> None:
        if not values:
            return

        def work() -> None:
            for name, value in values.items():
                if "IFNAME" not in name:
                    Path("/proc/sys", *name.split(".")).write_text(value)

        try:
            namespaces.run_in(path, work)
        except OSError as error:
            raise InvalidArgument(f"cannot set a sysctl: {error}") from error

    def _join_all(
        self, record: SandboxRecord, endpoints: list[tuple[EndpointRecord, NetworkRecord]]
    ) -> None:
        sandbox = Path(record.path)
        with Netlink(sandbox) as inside:
            inside.set_link("lo", attributes={}, up=True)
            self._open_names(record, endpoints)
            gateways = self._gateway_owners(endpoints)
            for number, (endpoint, net) in enumerate(endpoints):
                versions = {v for v, owner in gateways.items() if owner == endpoint.id}
                self._join(record, inside, endpoint, net, f"eth{number}", versions)
            for endpoint, net in endpoints:
                if (4 in gateways and gateways[4] == endpoint.id) or not gateways:
                    self._publish(endpoint, net, record.ports)
                    break

    def _gateway_owners(
        self, endpoints: list[tuple[EndpointRecord, NetworkRecord]]
    ) -> dict[int, str]:
        """Return which endpoint has the default gateway of each IP version."""
        owners: dict[int, str] = {}
        ordered = sorted(endpoints, key=lambda found: -found[0].gw_priority)
        for endpoint, net in ordered:
            if net.internal or not net.subnets:
                continue
            for subnet in net.subnets:
                version = 6 if ":" in subnet.prefix else 4
                owners.setdefault(version, endpoint.id)
        return owners

    def _join(
        self, record: SandboxRecord, inside: Netlink, endpoint: EndpointRecord,
        net: NetworkRecord, interface: str, gateway_versions: set[int],
    ) -> None:  # fmt: skip
        call = self._networks.driver(net.driver).call
        if net.subnets:
            self._take_addresses(endpoint, net)
        endpoint.interface = interface
        endpoint.joined = True
        # The record first: what a crash leaves behind is found by it.
        self._networks.endpoint_records.put(endpoint.id, endpoint)
        network, view = self._networks.view(net), self._networks.endpoint_view(endpoint)
        call.endpoint_create(network, view)
        link = call.endpoint_join(network, view, Sandbox(Path(record.path)))
        if link.name:
            self._configure(record, inside, view, link, gateway_versions)
        endpoint.gateways = [str(gateway) for gateway in link.gateways]
        self._networks.endpoint_records.put(endpoint.id, endpoint)
        self._networks.emit_connection("connect", net, record.container)

    def _take_addresses(self, endpoint: EndpointRecord, net: NetworkRecord) -> None:
        found: list[str] = []
        for pool in self._networks.pools(net):
            version = pool.prefix.version
            if any(ip_interface(text).version == version for text in found):
                continue
            wanted = next((text for text in endpoint.wanted if ip_address(text) in pool.prefix), "")
            if wanted and f"{wanted}/{pool.prefix.prefixlen}" in endpoint.addresses:
                address = ip_address(wanted)
            else:
                address = pool.take(wanted)
            found.append(f"{address}/{pool.prefix.prefixlen}")
        endpoint.addresses = found
        endpoint.mac = endpoint.wanted_mac or _mac(found[0])

    @staticmethod
    def _configure(
        record: SandboxRecord, inside: Netlink, view: Endpoint, link: Link, versions: set[int]
    ) -> None:
        if not link.in_sandbox:
            with Netlink() as host, open(record.path) as handle:
                host.set_link(link.name, attributes={"IFLA_NET_NS_FD": handle.fileno()})
            if link.name != view.interface:
                inside.set_link(link.name, attributes={"IFLA_IFNAME": view.interface})
        attributes: dict[str, object] = {}
        if link.mtu:
            attributes["IFLA_MTU"] = link.mtu
        if view.mac and not link.in_sandbox:
            attributes["IFLA_ADDRESS"] = view.mac
        if attributes:
            inside.set_link(view.interface, attributes=attributes)
        inside.configure(
            view.interface,
            addresses=view.addresses,
            gateways=[gateway for gateway in link.gateways if gateway.version in versions],
            routes=[(route.destination, route.gateway) for route in link.routes],
            default_on_link=link.default_route_on_link and bool(versions or not link.gateways),
        )

    def _publish(
        self, endpoint: EndpointRecord, net: NetworkRecord, requests: list[PortRequest]
    ) -> None:
        if not requests or not self._networks.traits(net).ports:
            return
        call = self._networks.driver(net.driver).call
        default = net.options.get("com.docker.network.bridge.host_binding_ipv4", "")
        for request in requests:
            port = 0
            for host_ip in host_addresses(request.host_ip or default, bool(endpoint.address(6))):
                first = port or request.host_port
                last = 0 if port else request.host_port_end
                port = self._host_ports.reserve(request.protocol, host_ip, first, last)
                record = PortRecord(request.protocol, request.container_port, host_ip, port)
                endpoint.ports.append(record)
                self._networks.endpoint_records.put(endpoint.id, endpoint)
                network, view = self._networks.view(net), self._networks.endpoint_view(endpoint)
                call.port_publish(network, view, record.for_driver())

    # Names and files

    def _open_names(
        self, record: SandboxRecord, endpoints: list[tuple[EndpointRecord, NetworkRecord]]
    ) -> None:
        if any(self._names(net) for _, net in endpoints):
            names = self._directory.names(record, self._forwarders(record, endpoints))
            self._resolver.open(record.container, Path(record.path), names)

    def _names(self, net: NetworkRecord) -> bool:
        return not net.default and self._networks.traits(net).names

    def _forwarders(
        self, record: SandboxRecord, endpoints: list[tuple[EndpointRecord, NetworkRecord]]
    ) -> list[str]:
        if all(net.internal for _, net in endpoints):
            return []
        chosen = record.dns or self._networks.settings.dns
        return list(chosen) or files.Resolv().servers

    def names_of(self, endpoint: EndpointRecord, net: NetworkRecord) -> list[str]:
        """Return the names that an endpoint is known by on its network."""
        return self._directory.names_of(endpoint) if self._names(net) else []

    def _write_files(
        self, record: SandboxRecord, endpoints: list[tuple[EndpointRecord, NetworkRecord]]
    ) -> None:
        directory = Path(record.directory)
        hostname = record.hostname
        full = f"{hostname}.{record.domainname} {hostname}" if record.domainname else hostname
        own = [(str(ip_interface(t).ip), full) for e, _ in endpoints for t in e.addresses]
        files.write(directory, "hostname", f"{hostname}\n")
        files.write(directory, "resolv.conf", self._resolv_conf(record, endpoints))
        if record.path:
            text = files.hosts(list(self._extra_hosts(record)), own)
        else:
            text = self._host_names(record)
        files.write(directory, "hosts", text)

    def _host_names(self, record: SandboxRecord) -> str:
        try:
            text = Path("/etc/hosts").read_text(errors="replace")
        except OSError:
            text = files.HOSTS
        extra = list(self._extra_hosts(record))
        return text + "".join(f"{address}\t{name}\n" for address, name in extra)

    def _extra_hosts(self, record: SandboxRecord) -> Iterator[tuple[str, str]]:
        for entry in record.extra_hosts:
            name, _, address = entry.partition(":")
            if address == "host-gateway":
                default = next((r for r in self._networks.records if r.default), None)
                gateways = [subnet.gateway for subnet in default.subnets] if default else []
                if not gateways:
                    raise FailedPrecondition(
                        "unable to derive the IP value for host-gateway: there is no default bridge"
                    )
                for gateway in gateways:
                    yield gateway, name
            else:
                yield address.strip("[]"), name

    def _resolv_conf(
        self, record: SandboxRecord, endpoints: list[tuple[EndpointRecord, NetworkRecord]]
    ) -> str:
        host, chosen = files.Resolv(), self._networks.settings
        inside = bool(record.path) and any(self._names(net) for _, net in endpoints)
        if inside:
            servers = [files.INSIDE]
        else:
            servers = list(record.dns or chosen.dns)
            if not servers:
                servers = host.reachable() if record.path else host.servers
        search = record.dns_search or chosen.dns_search or host.search
        options = record.dns_options or chosen.dns_options or host.options
        if inside and not any(option.startswith("ndots:") for option in options):
            options = [*options, "ndots:0"]
        return files.resolv_conf(servers, search, options)

    # Changes while it exists

    def connect(
        self, container_id: str, attachment: Attachment, *, name: str, running: bool
    ) -> None:
        """See :meth:`Networks.connect`."""
        networks = self._networks
        with networks.lock:
            net = networks.resolve(attachment.network)
            mine = networks.of_container(container_id)
            if any(endpoint.network == net.id for endpoint in mine):
                raise FailedPrecondition(
                    f"endpoint with name {name} already exists in network {net.name}"
                )
            record = self._records.get(container_id)
            if networks.traits(net).single or (record is not None and not record.path):
                raise FailedPrecondition(
                    "container cannot be connected to host or none networks, or from the host "
                    "network to others: make a new one with --network"
                )
            endpoint = self._new_endpoint(container_id, name, net, attachment)
            if not running or record is None:
                return
            try:
                self._connect_running(record, endpoint, net, mine)
            except BaseException:
                with contextlib.suppress(EngineError, OSError):
                    self._leave(endpoint)
                self.forget(endpoint)
                raise

    def _connect_running(
        self, record: SandboxRecord, endpoint: EndpointRecord, net: NetworkRecord,
        others: list[EndpointRecord],
    ) -> None:  # fmt: skip
        used = {other.interface for other in others}
        interface = next(n for n in (f"eth{i}" for i in range(1000)) if n not in used)
        mine = [*others, endpoint]
        pairs = [(e, self._networks.resolve(e.network)) for e in mine]
        owners = self._gateway_owners(pairs)
        versions = {version for version, owner in owners.items() if owner == endpoint.id}
        with Netlink(Path(record.path)) as inside:
            self._join(record, inside, endpoint, net, interface, versions)
        if any(self._names(found) for _, found in pairs):
            self._open_names(record, pairs)
        if 4 in versions and not any(other.ports for other in others):
            self._publish(endpoint, net, record.ports)
        self._write_files(record, pairs)

    def disconnect(self, container_id: str, reference: str, force: bool) -> None:
        """See :meth:`Networks.disconnect`."""
        networks = self._networks
        with networks.lock:
            net = networks.resolve(reference)
            mine = networks.of_container(container_id)
            endpoint = next((e for e in mine if e.network == net.id), None)
            if endpoint is None:
                raise FailedPrecondition(
                    f"container {container_id[:12]} is not connected to network {net.name}"
                )
            record = self._records.get(container_id)
            if networks.traits(net).sandbox == "host" and not force:
                raise FailedPrecondition("container cannot be disconnected from host network")
            if record is not None and record.path and endpoint.joined:
                with Netlink(Path(record.path)) as inside:
                    inside.delete_link(endpoint.interface)
                    self._leave(endpoint)
                    rest = [e for e in mine if e.id != endpoint.id]
                    self._restore_gateways(inside, rest)
                networks.emit_connection("disconnect", net, container_id)
                self._write_files(record, [(e, networks.resolve(e.network)) for e in rest])
            self.forget(endpoint)

    def _restore_gateways(self, inside: Netlink, rest: list[EndpointRecord]) -> None:
        """Give the default route to the next endpoint that has a gateway."""
        pairs = [(e, self._networks.resolve(e.network)) for e in rest]
        for version, owner in self._gateway_owners(pairs).items():
            endpoint = next(e for e in rest if e.id == owner)
            for text in endpoint.gateways:
                gateway = ip_address(text)
                if gateway.version == version:
                    index = inside.index(endpoint.interface)
                    inside.add_route(index, None, gateway, version=version)

    # The end

    def stop(self, container_id: str) -> None:
        """See :meth:`Networks.stop`."""
        networks = self._networks
        with networks.lock:
            record = self._records.get(container_id)
            self._resolver.close_sandbox(container_id)
            if record is not None and record.path:
                # First: with the namespace the kernel takes its links down, in its own time.
                namespaces.remove_network_namespace(Path(record.path))
            failures: list[EngineError] = []
            for endpoint in networks.of_container(container_id):
                if not endpoint.joined:
                    continue
                try:
                    self._leave(endpoint)
                except EngineError as error:
                    failures.append(error)
                net = networks.records.get(endpoint.network)
                if net is not None:
                    networks.emit_connection("disconnect", net, container_id)
            if record is not None:
                self._records.delete(container_id)
            for failure in failures:
                log.error("container %s leaves a network: %s", container_id[:12], failure)

    def _leave(self, endpoint: EndpointRecord) -> None:
        """Undo the join in the driver, and give addresses and ports back."""
        networks = self._networks
        net = networks.records.get(endpoint.network)
        try:
            if net is not None:
                call = networks.driver(net.driver).call
                call.endpoint_leave(networks.view(net), networks.endpoint_view(endpoint))
        finally:
            for port in endpoint.ports:
                self._host_ports.release(port)
            if net is not None:
                self._give_back(endpoint, net)
            endpoint.ports = []
            endpoint.gateways = []
            endpoint.joined = False
            networks.endpoint_records.put(endpoint.id, endpoint)

    def _give_back(self, endpoint: EndpointRecord, net: NetworkRecord) -> None:
        kept = []
        for text in endpoint.addresses:
            address = ip_interface(text).ip
            if str(address) in endpoint.wanted:
                kept.append(text)
                continue
            for pool in self._networks.pools(net):
                if address in pool.prefix:
                    pool.give_back(address)
        endpoint.addresses = kept

    def forget(self, endpoint: EndpointRecord) -> None:
        """Forget an endpoint that is not joined, with the addresses that it kept."""
        net = self._networks.records.get(endpoint.network)
        if net is not None:
            endpoint.wanted = []
            self._give_back(endpoint, net)
            call = self._networks.driver(net.driver).call
            with contextlib.suppress(EngineError):
                call.endpoint_delete(
                    self._networks.view(net), self._networks.endpoint_view(endpoint)
                )
        self._networks.endpoint_records.delete(endpoint.id)

    def ports(self, container_id: str) -> Ports:
        """See :meth:`Networks.ports`."""
        found: Ports = {}
        for endpoint in self._networks.of_container(container_id):
            for port in endpoint.ports:
                place = {"HostIp": port.host_ip, "HostPort": str(port.host_port)}
                found.setdefault(f"{port.container_port}/{port.protocol}", []).append(place)
        return found

    def reconcile(self, running: set[str], known: set[str]) -> None:
        """Remove sandboxes without a running container; serve the others again."""
        networks = self._networks
        with networks.lock:
            for record in list(self._records):
                if record.container not in running:
                    self.stop(record.container)
            for endpoint in list(networks.endpoint_records):
                if endpoint.container not in known:
                    if endpoint.joined:
                        self._leave(endpoint)
                    self.forget(endpoint)
                elif endpoint.joined and endpoint.container not in running:
                    self._leave(endpoint)
            kept = {record.path for record in self._records}
            for path in self._root.iterdir():
                if str(path) not in kept:
                    namespaces.remove_network_namespace(path)
            for record in self._records:
                self._serve_again(record)

    def _serve_again(self, record: SandboxRecord) -> None:
        networks = self._networks
        pairs = [(e, networks.resolve(e.network)) for e in networks.of_container(record.container)]
        for endpoint, _ in pairs:
            for port in endpoint.ports:
                self._host_ports.hold_again(port)
        if record.path:
            try:
                self._open_names(record, pairs)
            except (OSError, EngineError) as error:
                log.error("no names for container %s: %s", record.container[:12], error)

    def close(self) -> None:
        """The process ends; the sandboxes stay."""
        self._resolver.close()
        self._host_ports.close()


def _mac(address: str) -> str:
    """Return a hardware address made from the first address, as docker does for IPv4."""
    packed = ip_interface(address).ip.packed[-4:]
    return "02:42:" + ":".join(f"{byte:02x}" for byte in packed)
