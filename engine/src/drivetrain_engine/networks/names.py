"""Who is called what on which network."""

from __future__ import annotations

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

    def _find(self, container: str, name: str) -> list[str] | None:
        wanted = {name}
        for mine in self._inventory.endpoints.of_container(container):
            for link in mine.links:
                target, _, alias = link.partition(":")
                if (alias or target).lower() == name:
                    wanted.add(target.lower())
        found: dict[str, EndpointRecord] = {}
        for net in self._networks(container):
            index = self._index(net)
            for each in wanted:
                found |= {endpoint.id: endpoint for endpoint in index.get(each, ())}
        addresses = [_plain(text) for endpoint in found.values() for text in endpoint.addresses]
        peers = self._peers(container, wanted)
        addresses += [str(interface.ip) for peer in peers for interface in peer.addresses]
        return addresses if found or peers else None

    def _networks(self, container: str) -> list[NetworkRecord]:
        return [net for _, net in self._inventory.pairs(container) if not net.default]

    def _index(self, net: NetworkRecord) -> dict[str, list[EndpointRecord]]:
        """Return who is joined to a network, by names in lower case and by ``=ADDRESS``."""

        def build(endpoints: list[EndpointRecord]) -> dict[str, list[EndpointRecord]]:
            found: dict[str, list[EndpointRecord]] = {}
            for endpoint in endpoints:
                if endpoint.joined:
                    names = {each.lower() for each in self.names_of(endpoint)}
                    names |= {f"{each}.{net.name.lower()}" for each in names}
                    names |= {f"={_plain(text)}" for text in endpoint.addresses}
                    for each in names:
                        found.setdefault(each, []).append(endpoint)
            return found

        return self._inventory.endpoints.indexed(net.id, build)

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
        for net in self._networks(container):
            for endpoint in self._index(net).get(f"={address}", ()):
                return f"{endpoint.name}.{net.name}"
        for _, net in self._inventory.pairs(container):
            if self._inventory.traits(net).scope == "global":
                call, view = self._inventory.drivers.of(net), self._inventory.drivers.network(net)
                for peer in call.peer_find(view, address):
                    if peer.names:
                        return f"{peer.names[0]}.{net.name}"
        return None


def _plain(address: str) -> str:
    """Return an address without the length of its prefix."""
    return address.partition("/")[0]
