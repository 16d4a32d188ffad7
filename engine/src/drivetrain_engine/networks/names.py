"""Who is called what on which network."""

from __future__ import annotations

from ipaddress import ip_interface

from drivetrain.network import Peer
from drivetrain_engine.networks.forwarding import Forwarder
from drivetrain_engine.networks.inventory import Inventory
from drivetrain_engine.networks.lookup import Names
from drivetrain_engine.networks.records import EndpointRecord, NetworkRecord, SandboxRecord


class Directory:
    """Looks names up in the records, as they are at the time of the question.

    Args:
        inventory: knows the endpoints and sandboxes.
    """

    def __init__(self, inventory: Inventory) -> None:
        self._inventory = inventory

    def has_names(self, net: NetworkRecord) -> bool:
        """Tell whether containers find each other by name on a network."""
        return not net.default and self._inventory.traits(net).names

    def names_of(self, endpoint: EndpointRecord) -> list[str]:
        """Return all names of an endpoint: the container's, its aliases, short id, host name."""
        sandbox = self._inventory.sandboxes.get(endpoint.container)
        hostname = [sandbox.hostname] if sandbox is not None and sandbox.hostname else []
        names = [endpoint.name, *endpoint.aliases, endpoint.container[:12], *hostname]
        return list(dict.fromkeys(name for name in names if name))

    def names(self, record: SandboxRecord, forwarders: list[Forwarder]) -> Names:
        """Return what one sandbox may resolve."""
        container = record.container
        return Names(
            lambda name: self._find(container, name),
            lambda address: self._reverse(container, address),
            forwarders,
        )

    def _neighbours(self, container: str) -> list[tuple[EndpointRecord, str]]:
        """Return the endpoints on the container's networks, with their network's name."""
        found = []
        for _, net in self._inventory.pairs(container):
            if net.default:
                continue
            for endpoint in self._inventory.endpoints.of_network(net.id):
                if endpoint.joined:
                    found.append((endpoint, net.name))
        return found

    def _find(self, container: str, name: str) -> list[str] | None:
        wanted = {name}
        for mine in self._inventory.endpoints.of_container(container):
            for link in mine.links:
                target, _, alias = link.partition(":")
                if (alias or target).lower() == name:
                    wanted.add(target.lower())
        addresses: list[str] = []
        known = False
        for endpoint, network in self._neighbours(container):
            names = {each.lower() for each in self.names_of(endpoint)}
            names |= {f"{each}.{network}".lower() for each in names}
            if names & wanted:
                known = True
                addresses += [str(ip_interface(text).ip) for text in endpoint.addresses]
        for peer in self._peers(container, wanted):
            known = True
            addresses += [str(interface.ip) for interface in peer.addresses]
        return addresses if known else None

    def _peers(self, container: str, wanted: set[str]) -> list[Peer]:
        """Return the endpoints on other hosts that have one of the names or addresses."""
        found: dict[str, Peer] = {}
        drivers = self._inventory.drivers
        for _, net in self._inventory.pairs(container):
            if self._inventory.traits(net).scope != "global":
                continue
            call, network, suffix = drivers.of(net), drivers.network(net), f".{net.name.lower()}"
            for name in {each.removesuffix(suffix) for each in wanted}:
                found.update({peer.endpoint: peer for peer in call.peer_find(network, name)})
        return list(found.values())

    def _reverse(self, container: str, address: str) -> str | None:
        for endpoint, network in self._neighbours(container):
            if any(str(ip_interface(text).ip) == address for text in endpoint.addresses):
                return f"{endpoint.name}.{network}"
        for _, net in self._inventory.pairs(container):
            if self._inventory.traits(net).scope == "global":
                call, view = self._inventory.drivers.of(net), self._inventory.drivers.network(net)
                for peer in call.peer_find(view, address):
                    if peer.names:
                        return f"{peer.names[0]}.{net.name}"
        return None
