"""The networks and addresses of a cluster, in etcd, each change one transaction."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

from drivetrain.errors import (
    AlreadyExists,
    Exhausted,
    FailedPrecondition,
    InUse,
    InvalidArgument,
    NotFound,
    Unavailable,
)
from drivetrain.network import Address, Prefix
from drivetrain_network_overlay import etcd
from drivetrain_network_overlay.documents import (
    Claim,
    HostDocument,
    Keys,
    NetworkDocument,
    address_of,
)
from drivetrain_network_overlay.etcd import Etcd

#: The first that is given without a wish; those below are for users' own choice, as in docker.
FIRST_NUMBER, LAST_NUMBER = 4096, (1 << 24) - 1
#: How often a transaction is tried when other hosts change the same at the same time.
_TRIES = 50


class Store:
    """What the hosts of a cluster share.

    Args:
        client: of the cluster's etcd.
        prefix: below which everything is.
    """

    def __init__(self, client: Etcd, prefix: str) -> None:
        self.etcd = client
        self.keys = Keys(prefix)

    # Networks

    def networks(self) -> list[NetworkDocument]:
        """Return all networks."""
        items, _ = self.etcd.range(self.keys.networks)
        return [NetworkDocument.decode(item.value) for item in items]

    def network(self, network: str) -> NetworkDocument | None:
        """Return a network by its id."""
        item = self.etcd.get(self.keys.network(network))
        return NetworkDocument.decode(item.value) if item is not None else None

    def create_network(
        self, network: NetworkDocument, numbers: Iterable[int] = ()
    ) -> NetworkDocument:
        """Make a network known to all hosts, and return it with its number.

        Doing it again is fine.

        Args:
            network: without a number.
            numbers: to choose from; empty: any from 4096 on.

        Raises:
            AlreadyExists: the name is another network's.
            FailedPrecondition: a subnet overlaps another network's.
            Exhausted: all numbers are taken.
        """
        chosen = tuple(numbers)
        for _ in range(_TRIES):
            guard = self.etcd.get(self.keys.guard)
            others = self.networks()
            existing = next((each for each in others if each.id == network.id), None)
            if existing is not None:
                return existing
            _check(network, others)
            number = _free_number({each.number for each in others}, chosen)
            made = replace(network, number=number)
            revision = guard.revision if guard is not None else 0
            done, _ = self.etcd.transact(
                [
                    etcd.unchanged(self.keys.guard, revision),
                    etcd.absent(self.keys.network(made.id)),
                    etcd.absent(self.keys.name(made.name)),
                    etcd.absent(self.keys.number(number)),
                ],
                [
                    etcd.put(self.keys.guard, made.id.encode()),
                    etcd.put(self.keys.network(made.id), made.encode()),
                    etcd.put(self.keys.name(made.name), made.id.encode()),
                    etcd.put(self.keys.number(number), made.id.encode()),
                ],
            )
            if done:
                return made
        raise Unavailable(
            f"network {network.name}: other hosts make networks all the time; try again"
        )

    def delete_network(self, network: str) -> None:
        """Remove a network from all hosts; one that is gone is fine.

        Addresses of hosts that are not there do not keep it: their endpoints are gone.

        Raises:
            FailedPrecondition: endpoints are on it; names their hosts.
        """
        addresses, endpoints = self.keys.addresses(network), self.keys.endpoints(network)
        for _ in range(_TRIES):
            found = self.network(network)
            if found is None:
                return
            claims, revision = self.etcd.range(addresses)
            present = {host.id: host.name for host in self.hosts()}
            holders = {Claim.decode(item.value).host for item in claims}
            if names := sorted(present[host] for host in holders if host in present):
                raise FailedPrecondition(
                    f"network {found.name} has active endpoints on {', '.join(names[:5])}: "
                    "disconnect or stop the containers there first"
                )
            done, _ = self.etcd.transact(
                [etcd.older(addresses, revision), etcd.none_below(endpoints)],
                [
                    etcd.delete(self.keys.network(network)),
                    etcd.delete(self.keys.name(found.name)),
                    etcd.delete(self.keys.number(found.number)),
                    etcd.delete(addresses, etcd.prefix_end(addresses)),
                ],
            )
            if done:
                return
        raise FailedPrecondition(f"network {network[:12]} has active endpoints")

    def hosts(self) -> list[HostDocument]:
        """Return the hosts that are there."""
        items, _ = self.etcd.range(self.keys.hosts)
        return [HostDocument.decode(item.value) for item in items]

    # Addresses

    def claim(self, network: str, address: Address, claim: Claim, lease: int) -> Claim | None:
        """Claim an address; return ``None`` when it is ours now, otherwise whose it is.

        Raises:
            NotFound: the network or the lease does not exist.
        """
        key, value = self.keys.address(network, address), claim.encode()
        home = self.keys.network(network)
        done, read = self.etcd.transact(
            [etcd.present(home), etcd.absent(key)],
            [etcd.put(key, value, lease)],
            [etcd.get(home), etcd.get(key)],
        )
        if done:
            return None
        if read[0] is None:
            raise NotFound(f"network {network[:12]} was removed from the cluster")
        taken = read[1]
        if taken is None:
            return self.claim(network, address, claim, lease)
        if taken.value != value:
            return Claim.decode(taken.value)
        # Ours: from a request whose answer was lost, or from an earlier lease.
        if taken.lease != lease:
            self.etcd.transact([etcd.same(key, value)], [etcd.put(key, value, lease)])
        return None

    def release(self, network: str, address: Address, claim: Claim) -> None:
        """Give an address back; one that is not ours any more stays as it is."""
        key = self.keys.address(network, address)
        self.etcd.transact([etcd.same(key, claim.encode())], [etcd.delete(key)])

    def claims(self, network: str) -> dict[Address, Claim]:
        """Return all addresses that are taken."""
        items, _ = self.etcd.range(self.keys.addresses(network))
        return {address_of(item.key): Claim.decode(item.value) for item in items}


class Allocator:
    """Chooses addresses in one subnet for one host.

    Each host begins at another place, so that hosts seldom want the same address at the same time;
    which one gets it is decided by the transaction. What is known to be taken is passed over
    without asking; when everything seems to be taken, etcd is asked once.

    Args:
        store: of the cluster.
        network: id of the network.
        host: id of this host.
        first: the first address that may be given.
        last: the last one.
        reserved: those between that may not.
    """

    def __init__(
        self, store: Store, network: str, host: str, first: Address, last: Address,
        reserved: Iterable[Address] = (),
    ) -> None:  # fmt: skip
        self._store = store
        self._network = network
        self._host = host
        self._first, self._last = int(first), int(last)
        self._make: Callable[[int], Address] = IPv4Address if first.version == 4 else IPv6Address
        self._reserved = {int(address) for address in reserved}
        self._taken: set[int] = set()
        size = self._last - self._first + 1
        self._next = self._first + zlib.crc32(f"{host}{network}".encode()) % min(size, 1 << 32)
        self._known = False

    def take(self, owner: str, lease: int) -> Address:
        """Return an address that is ours now.

        Raises:
            Exhausted: there is none.
            NotFound: the network or the lease does not exist.
        """
        if not self._known:
            self.learn()
        for _ in range(2):
            for number in self._free():
                address = self._make(number)
                holder = self._store.claim(
                    self._network, address, Claim(self._host, owner), lease
                )
                self._taken.add(number)
                if holder is None:
                    self._next = number + 1
                    return address
            self.learn()
        raise Exhausted(
            f"no available addresses from {self._make(self._first)} to {self._make(self._last)}: "
            "all of them are in use"
        )

    def take_wanted(self, wanted: Address, owner: str, lease: int) -> Address:
        """Return the address that is wanted, when it is ours now.

        Raises:
            InUse: somebody else has it.
        """
        holder = self._store.claim(self._network, wanted, Claim(self._host, owner), lease)
        if holder is not None:
            raise InUse(
                f"Address already in use: {wanted} belongs to endpoint {holder.owner[:12]} "
                f"of host {holder.host[:12]}"
            )
        self._taken.add(int(wanted))
        return wanted

    def give_back(self, address: Address, owner: str) -> None:
        """Release an address."""
        self._store.release(self._network, address, Claim(self._host, owner))
        self._taken.discard(int(address))

    def learn(self) -> None:
        """Ask which addresses are taken."""
        self._taken = {int(address) for address in self._store.claims(self._network)}
        self._known = True

    def _free(self) -> Iterable[int]:
        start = self._next if self._first <= self._next <= self._last else self._first
        for begin, end in ((start, self._last), (self._first, start - 1)):
            number = begin
            while number <= end:
                if number not in self._taken and number not in self._reserved:
                    yield number
                number += 1


def bounds(prefix: Prefix, within: Prefix | None = None) -> tuple[Address, Address]:
    """Return the first and the last address that endpoints may have.

    Raises:
        InvalidArgument: the range is not in the subnet.
    """
    chosen = within or prefix
    first, last = int(chosen.network_address), int(chosen.broadcast_address)
    if prefix.num_addresses > 2:
        first = max(first, int(prefix.network_address) + 1)
        last = min(last, int(prefix.broadcast_address) - (1 if prefix.version == 4 else 0))
    if first > last or chosen.version != prefix.version:
        raise InvalidArgument(f"no address of {chosen} is in the subnet {prefix}")
    make = IPv4Address if prefix.version == 4 else IPv6Address
    return make(first), make(last)


def _check(network: NetworkDocument, others: Iterable[NetworkDocument]) -> None:
    mine = [subnet.network() for subnet in network.ranges()]
    for other in others:
        if other.name == network.name:
            raise AlreadyExists(
                f"network with name {network.name} already exists in the cluster: {other.id[:12]}"
            )
        for subnet in other.ranges():
            prefix = subnet.network()
            for one in mine:
                if one.version == prefix.version and one.overlaps(prefix):
                    raise FailedPrecondition(
                        f"network {network.name}: Pool overlaps with other one on this address "
                        f"space: {one} and {prefix} of network {other.name} in the cluster"
                    )


def _free_number(taken: set[int], chosen: tuple[int, ...]) -> int:
    for number in chosen or range(FIRST_NUMBER, LAST_NUMBER + 1):
        if number not in taken:
            return number
    raise Exhausted(
        "all VXLAN network identifiers are in use"
        + (f": {', '.join(map(str, chosen[:10]))}; give others" if chosen else "")
    )

