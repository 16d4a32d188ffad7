"""Addresses: subnets for networks, and addresses in them, each given once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

from drivetrain.errors import Exhausted, InUse, InvalidArgument
from drivetrain.network import Address, Prefix
from drivetrain_engine.networks.records import SubnetRecord

#: Docker's: 172.17.0.0/16 to 172.31.0.0/16, then 192.168.0.0/20 and so on.
DEFAULT_POOLS = [(f"172.{number}.0.0/16", 16) for number in range(17, 32)] + [
    ("192.168.0.0/16", 20)
]


class Pool:
    """The addresses of one subnet.

    The next address is the one after the last that was given; when the end is reached, those given
    back come round, the longest free first. So an address that was just given back is not given to
    another container at once, and a choice costs the same however many are taken.

    Args:
        subnet: whose.
    """

    def __init__(self, subnet: SubnetRecord) -> None:
        self.prefix: Prefix = ip_network(subnet.prefix)
        chosen: Prefix = ip_network(subnet.ip_range) if subnet.ip_range else self.prefix
        self._first, self._last = _bounds(chosen, self.prefix)
        self._next = self._first
        self._free: OrderedDict[int, None] = OrderedDict()
        self._taken: set[int] = {int(ip_address(text)) for text in subnet.auxiliary.values()}
        if subnet.gateway:
            self._taken.add(int(ip_address(subnet.gateway)))

    def take(self, wanted: str = "") -> Address:
        """Return a free address, or the one that is wanted.

        Raises:
            InUse: the wanted one is taken.
            InvalidArgument: it is not in the subnet.
            Exhausted: all are taken.
        """
        if wanted:
            return self._take_wanted(wanted)
        while self._next <= self._last:
            number = self._next
            self._next += 1
            if number not in self._taken:
                return self._give(number)
        if self._free:
            return self._give(next(iter(self._free)))
        raise Exhausted(f"no available addresses in {self.prefix}: all of them are in use")

    def _take_wanted(self, wanted: str) -> Address:
        address = ip_address(wanted)
        if address not in self.prefix:
            raise InvalidArgument(f"the address {wanted} is not in the subnet {self.prefix}")
        if int(address) in self._taken:
            raise InUse(f"Address already in use: {wanted} in {self.prefix}")
        return self._give(int(address))

    def _give(self, number: int) -> Address:
        self._taken.add(number)
        self._free.pop(number, None)
        return self._address(number)

    def _address(self, number: int) -> Address:
        return IPv4Address(number) if self.prefix.version == 4 else IPv6Address(number)

    def claim(self, address: Address) -> None:
        """Mark an address that was given before a restart."""
        self._give(int(address))

    def give_back(self, address: Address) -> None:
        """Free an address; one that is free already is fine."""
        number = int(address)
        if number in self._taken:
            self._taken.discard(number)
            # What the counter has not reached yet, it will find by itself.
            if self._first <= number < self._next:
                self._free[number] = None


def _bounds(chosen: Prefix, prefix: Prefix) -> tuple[int, int]:
    first, last = int(chosen.network_address), int(chosen.broadcast_address)
    if prefix.num_addresses > 2:
        first = max(first, int(prefix.network_address) + 1)
        last = min(last, int(prefix.broadcast_address) - (1 if prefix.version == 4 else 0))
    return first, last


def free_subnet(
    pools: Iterable[tuple[str, int]], taken: list[Prefix], version: int, network_id: str
) -> Prefix:
    """Return the first subnet of the pools that overlaps nothing that is taken.

    Without an IPv6 pool the subnet is a unique local one made from the network's id (RFC 4193).

    Raises:
        Exhausted: there is none.
    """
    candidates = [(ip_network(base), size) for base, size in pools]
    fitting = [(base, size) for base, size in candidates if base.version == version]
    if version == 6 and not fitting:
        digits = f"fd{network_id[:10]}"
        text = ":".join(digits[i : i + 4] for i in range(0, 12, 4))
        return IPv6Network(f"{text}::/64")
    for base, size in fitting:
        step = 1 << ((32 if version == 4 else 128) - size)
        number = int(base.network_address)
        while number <= int(base.broadcast_address):
            kind = IPv4Address if version == 4 else IPv6Address
            prefix = ip_network(f"{kind(number)}/{size}")
            blocking = next((t for t in taken if t.version == version and t.overlaps(prefix)), None)
            if blocking is None:
                return prefix
            # On behind what is in the way, in whole steps.
            beyond = int(blocking.broadcast_address) + 1
            number = max(number + step, (beyond + step - 1) // step * step)
    raise Exhausted(
        "all predefined address pools have been fully subnetted: give --subnet, or more "
        "default-address-pools to the daemon"
    )


def check_subnet(record: SubnetRecord, name: str) -> Prefix:
    """Check what a user gave for a subnet, and return it.

    Raises:
        InvalidArgument: names the network and the value.
    """
    try:
        prefix = ip_network(record.prefix)
    except ValueError as error:
        raise InvalidArgument(f"network {name}: invalid subnet {record.prefix}: {error}") from None
    for what, text in [
        ("gateway", record.gateway),
        *((f"auxiliary address {key}", value) for key, value in record.auxiliary.items()),
    ]:
        if not text:
            continue
        try:
            inside = ip_address(text) in prefix
        except ValueError:
            inside = False
        if not inside:
            raise InvalidArgument(f"network {name}: no matching subnet for {what} {text}")
    if record.ip_range:
        try:
            part = ip_network(record.ip_range)
            inside = part.version == prefix.version and part.subnet_of(prefix)  # type: ignore[arg-type]
        except ValueError:
            inside = False
        if not inside:
            raise InvalidArgument(
                f"network {name}: the range {record.ip_range} is not a part of {prefix}"
            )
    return prefix
