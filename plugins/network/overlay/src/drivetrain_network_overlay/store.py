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
from drivetrain_network_overlay import kv
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
                    kv.unchanged(self.keys.guard, revision),
                    kv.absent(self.keys.network(made.id)),
                    kv.absent(self.keys.name(made.name)),
                    kv.absent(self.keys.number(number)),
                ],
                [
                    kv.put(self.keys.guard, made.id.encode()),
                    kv.put(self.keys.network(made.id), made.encode()),
                    kv.put(self.keys.name(made.name), made.id.encode()),
                    kv.put(self.keys.number(number), made.id.encode()),
                ],
            )
            if done:
                return made
        raise Unavailable(
            f"network {network.name}: other hosts make networks all the time; try again"
        )

    def delete_network(self, network: str, host: str = "") -> None:
        """Remove a network from all hosts; one that is gone is fine.

        Addresses of hosts that are not there do not keep it: their endpoints are gone. Nor do
        those of ``host``, which has no endpoints any more.

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
            if names := sorted(present[each] for each in holders - {host} if each in present):
                raise FailedPrecondition(
                    f"network {found.name} has active endpoints on {', '.join(names[:5])}: "
                    "disconnect or stop the containers there first"
                )
            done, _ = self.etcd.transact(
                [kv.older(addresses, revision), kv.none_below(endpoints)],
                [
                    kv.delete(self.keys.network(network)),
                    kv.delete(self.keys.name(found.name)),
                    kv.delete(self.keys.number(found.number)),
                    kv.delete(addresses, kv.prefix_end(addresses)),
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
            [kv.present(home), kv.absent(key)],
            [kv.put(key, value, lease)],
            [kv.get(home), kv.get(key)],
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
            self.etcd.transact([kv.same(key, value)], [kv.put(key, value, lease)])
        return None

    def release(self, network: str, address: Address, claim: Claim) -> None:
        """Give an address back; one that is not ours any more stays as it is."""
        key = self.keys.address(network, address)
        self.etcd.transact([kv.same(key, claim.encode())], [kv.delete(key)])

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
        self._mine: dict[str, Address] = {}
        self._known = False

    def take(self, owner: str, lease: int) -> Address:
        """Return an address that is ours now; the same one when it is asked again.

        Raises:
            Exhausted: there is none.
            NotFound: the network or the lease does not exist.
        """
        if not self._known:
            self.learn()
        mine = self._mine.get(owner)
        if mine is not None and self._claim(mine, owner, lease) is None:
            return mine
        for _ in range(2):
            for number in self._free():
                address = self._make(number)
                if self._claim(address, owner, lease) is None:
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
        if int(wanted) in self._reserved:
            raise InUse(f"Address already in use: {wanted} is the gateway's or set aside")
        holder = self._claim(wanted, owner, lease)
        if holder is not None:
            raise InUse(
                f"Address already in use: {wanted} belongs to endpoint {holder.owner[:12]} "
                f"of host {holder.host[:12]}"
            )
        return wanted

    def _claim(self, address: Address, owner: str, lease: int) -> Claim | None:
        holder = self._store.claim(self._network, address, Claim(self._host, owner), lease)
        self._taken.add(int(address))
        if holder is None:
            self._mine[owner] = address
        return holder

    def give_back(self, address: Address, owner: str) -> None:
        """Release an address."""
        self._store.release(self._network, address, Claim(self._host, owner))
        self._taken.discard(int(address))
        self._mine.pop(owner, None)

    def learn(self) -> None:
        """Ask which addresses are taken."""
        claims = self._store.claims(self._network)
        self._taken = {int(address) for address in claims}
        self._mine = {
            claim.owner: address
            for address, claim in claims.items()
            if claim.host == self._host and self._first <= int(address) <= self._last
        }
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
