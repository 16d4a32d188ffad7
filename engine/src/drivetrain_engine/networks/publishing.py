"""Published ports: chosen, held on the host, and led to containers by drivers."""

from __future__ import annotations

from msgspec.structs import replace

from drivetrain.network import Endpoint
from drivetrain_engine.networks.inventory import Inventory
from drivetrain_engine.networks.joining import Joining
from drivetrain_engine.networks.ports import HostPorts, host_addresses
from drivetrain_engine.networks.records import EndpointRecord, NetworkRecord, PortRecord
from drivetrain_engine.networks.requests import PortRequest

Ports = dict[str, list[dict[str, str]]]


class Publishing:
    """The published ports of all containers.

    Args:
        inventory: of networks and endpoints.
        joining: knows endpoints as drivers see them.
    """

    def __init__(self, inventory: Inventory, joining: Joining) -> None:
        self._inventory = inventory
        self._joining = joining
        self._host_ports = HostPorts()

    def publish(
        self, endpoint: EndpointRecord, net: NetworkRecord, requests: list[PortRequest]
    ) -> None:
        """Publish the ports of a container on one of its endpoints.

        Raises:
            FailedPrecondition: a port of the host is taken.
        """
        if not requests or not self._inventory.traits(net).ports:
            return
        drivers = self._inventory.drivers
        call, network = drivers.of(net), drivers.network(net)
        policy = call.port_policy(network)
        default = str(policy.host_address or "")
        view: Endpoint = self._joining.view(endpoint, net)
        for request in requests:
            port = 0
            for host_ip in host_addresses(request.host_ip or default, bool(endpoint.address(6))):
                translated = (6 if ":" in host_ip else 4) in policy.translated
                if translated:
                    first = port or request.host_port
                    last = 0 if port else request.host_port_end
                    port = self._host_ports.reserve(request.protocol, host_ip, first, last)
                number = port if translated else 0
                record = PortRecord(request.protocol, request.container_port, host_ip, number)
                endpoint.ports.append(record)
                self._inventory.put(endpoint)
                call.port_publish(network, view, record.for_driver())
                self._carry(endpoint, record, direct=policy.direct)

    def _carry(self, endpoint: EndpointRecord, port: PortRecord, *, direct: bool) -> None:
        address = endpoint.address(6) or endpoint.address(4)
        if direct and address:
            self._host_ports.carry(port, (address.partition("/")[0], port.container_port))
        elif replace(port, host_ip="0.0.0.0") in endpoint.ports:
            self._host_ports.carry(port, ("127.0.0.1", port.host_port))

    def withdraw(self, endpoint: EndpointRecord, net: NetworkRecord) -> None:
        """Unpublish the ports of an endpoint that stays joined."""
        drivers = self._inventory.drivers
        view = self._joining.view(endpoint, net)
        for port in endpoint.ports:
            drivers.of(net).port_unpublish(drivers.network(net), view, port.for_driver())
        self.release(endpoint)

    def release(self, endpoint: EndpointRecord) -> None:
        """Let the host's ports of an endpoint go; its driver unpublished them when it left."""
        for port in endpoint.ports:
            if port.host_port:
                self._host_ports.release(port)
        endpoint.ports = []
        self._inventory.put(endpoint)

    def hold_again(self, endpoint: EndpointRecord) -> None:
        """Hold the host's ports of an endpoint after a restart."""
        net = self._inventory.networks.get(endpoint.network)
        if net is None or not endpoint.ports:
            return
        drivers = self._inventory.drivers
        policy = drivers.of(net).port_policy(drivers.network(net))
        for port in endpoint.ports:
            if port.host_port:
                self._host_ports.hold_again(port)
                self._carry(endpoint, port, direct=policy.direct)

    def of_container(self, container_id: str) -> Ports:
        """Return what a container's ports are published on, as the API has it."""
        found: Ports = {}
        for endpoint in self._inventory.endpoints.of_container(container_id):
            for port in endpoint.ports:
                place = {"HostIp": port.host_ip, "HostPort": str(port.host_port or "")}
                found.setdefault(f"{port.container_port}/{port.protocol}", []).append(place)
        return found

    def close(self) -> None:
        """The process ends; the rules stay."""
        self._host_ports.close()
