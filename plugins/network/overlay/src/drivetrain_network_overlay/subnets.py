"""Choosing the subnets of new networks, unlike those of every other host of the cluster."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_network

from drivetrain.errors import Exhausted, FailedPrecondition
from drivetrain.network import Network, Prefix, Subnet, SubnetRequest
from drivetrain_network_overlay import kv
from drivetrain_network_overlay.store import Store

#: As docker's for global networks: 10.0.0.0/24, 10.0.1.0/24 and so on.
POOL = IPv4Network("10.0.0.0/8")
SIZE = 24
#: Seconds that a chosen subnet is kept for a network that is being made.
_KEPT = 60


class Subnets:
    """Chooses subnets; one that was chosen is kept for a while, until the network is made.

    Args:
        store: of the cluster.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._leases: dict[str, int] = {}

    def choose(self, request: SubnetRequest) -> list[Subnet]:
        """Return subnets for a network.

        Raises:
            FailedPrecondition: one that was asked for overlaps a network of the cluster.
            Exhausted: none is left.
        """
        taken = self._taken()
        found = list(request.asked)
        for subnet in found:
            for name, prefix in taken:
                if prefix.version == subnet.prefix.version and prefix.overlaps(subnet.prefix):
                    raise FailedPrecondition(
                        f"network {request.name}: Pool overlaps with other one on this address "
                        f"space: {subnet.prefix} and {prefix} of network {name} in the cluster"
                    )
        versions = {subnet.prefix.version for subnet in found}
        blocked = [prefix for _, prefix in taken] + list(request.taken)
        if 4 in request.versions and 4 not in versions:
            found.append(Subnet(self._reserve(request.network, blocked)))
        if 6 in request.versions and 6 not in versions:
            found.append(Subnet(_unique_local(request.network)))
        return [_with_gateway(subnet) for subnet in found]

    def settled(self, network: Network) -> None:
        """The network was made, or never will be: what was kept for it is not needed any more."""
        lease = self._leases.pop(network.id, 0)
        if lease:
            self._store.etcd.revoke(lease)

    def _taken(self) -> list[tuple[str, Prefix]]:
        return [
            (network.name, subnet.network())
            for network in self._store.networks()
            for subnet in network.ranges()
        ]

    def _reserve(self, network: str, blocked: Iterable[Prefix]) -> IPv4Network:
        lease = self._leases[network] = self._store.etcd.grant(_KEPT)
        for prefix in _free(list(blocked)):
            key = self._store.keys.reservation(prefix)
            done, _ = self._store.etcd.transact(
                [kv.absent(key)], [kv.put(key, network.encode(), lease)]
            )
            if done:
                return prefix
        raise Exhausted(f"all subnets of {POOL} are in use: give --subnet")


def _free(blocked: list[Prefix]) -> Iterable[IPv4Network]:
    numbers = [p for p in blocked if isinstance(p, IPv4Network) and p.overlaps(POOL)]
    # Whole steps that are in use, so that a thousand networks cost no thousand comparisons each.
    step = 1 << (32 - SIZE)
    base = int(POOL.network_address)
    used: set[int] = set()
    wide: list[IPv4Network] = []
    for prefix in numbers:
        if prefix.prefixlen >= 16:
            first = (int(prefix.network_address) - base) // step
            last = (int(prefix.broadcast_address) - base) // step
            used.update(range(first, last + 1))
        else:
            wide.append(prefix)
    for number in range(1 << (SIZE - POOL.prefixlen)):
        if number not in used:
            candidate = IPv4Network((base + number * step, SIZE))
            if not any(prefix.overlaps(candidate) for prefix in wide):
                yield candidate


def _unique_local(network: str) -> IPv6Network:
    """Return a unique local subnet made from the network's id (RFC 4193)."""
    digits = f"fd{network[:14]}"
    return IPv6Network(":".join(digits[i : i + 4] for i in range(0, 16, 4)) + "::/64")


def _with_gateway(subnet: Subnet) -> Subnet:
    if subnet.gateway is not None:
        return subnet
    inside = ip_network(subnet.range) if subnet.range is not None else subnet.prefix
    number = int(inside.network_address)
    if number == int(subnet.prefix.network_address) and subnet.prefix.num_addresses > 2:
        number += 1
    aside = {int(address) for address in subnet.auxiliary.values()}
    while number in aside:
        number += 1
    gateway = type(inside.network_address)(number)
    return Subnet(subnet.prefix, gateway, subnet.auxiliary, subnet.range)
