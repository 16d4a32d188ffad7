"""The addresses of endpoints: taken when they join, given back when they leave."""

from __future__ import annotations

import contextlib
from ipaddress import ip_address, ip_interface

from drivetrain.errors import Exhausted, InvalidArgument
from drivetrain.network import Address
from drivetrain_engine.networks.drivers import Drivers
from drivetrain_engine.networks.ipam import Pool
from drivetrain_engine.networks.records import EndpointRecord, EndpointRecords, NetworkRecord


class Addresses:
    """The address pools of all networks.

    Args:
        endpoints: their records tell what was given before a restart.
        drivers: some choose the addresses of their networks themselves.
    """

    def __init__(self, endpoints: EndpointRecords, drivers: Drivers) -> None:
        self._endpoints = endpoints
        self._drivers = drivers
        self._pools: dict[str, list[Pool]] = {}

    def pools(self, net: NetworkRecord) -> list[Pool]:
        """Return the address pools of a network."""
        if net.id not in self._pools:
            pools = [Pool(subnet) for subnet in net.subnets]
            for endpoint in self._endpoints.of_network(net.id):
                for text in {*endpoint.addresses, *endpoint.wanted}:
                    address = ip_interface(text).ip
                    for pool in pools:
                        if address in pool.prefix:
                            pool.claim(address)
            self._pools[net.id] = pools
        return self._pools[net.id]

    def forget(self, network_id: str) -> None:
        """Forget the pools of a network that is changed or removed."""
        self._pools.pop(network_id, None)

    def check(self, net: NetworkRecord, wanted: list[str]) -> None:
        """Check the addresses that a user chose.

        Raises:
            InvalidArgument: one is none, or is in no subnet of the network.
        """
        for text in wanted:
            try:
                address = ip_address(text)
            except ValueError:
                raise InvalidArgument(f"invalid address {text!r} for network {net.name}") from None
            if not any(address in pool.prefix for pool in self.pools(net)):
                raise InvalidArgument(
                    f"invalid endpoint settings: no configured subnet contains IP address {text}"
                )

    def take(self, endpoint: EndpointRecord, net: NetworkRecord) -> None:
        """Give an endpoint one address of each IP version, and its hardware address.

        Raises:
            InUse: an address that the user chose is taken.
            Exhausted: all are.
        """
        found: list[str] = []
        pools = self.pools(net)
        for version in dict.fromkeys(pool.prefix.version for pool in pools):
            found.append(
                self._take_of([p for p in pools if p.prefix.version == version], endpoint, net)
            )
        endpoint.addresses = found
        endpoint.mac = endpoint.wanted_mac or (_mac(found[0]) if found else "")

    def _take_of(self, pools: list[Pool], endpoint: EndpointRecord, net: NetworkRecord) -> str:
        """Take an address from the subnets of one IP version: the wanted one, or the first free."""
        for pool in pools:
            for wanted in endpoint.wanted:
                if ip_address(wanted) in pool.prefix:
                    text = f"{wanted}/{pool.prefix.prefixlen}"
                    if text not in endpoint.addresses:
                        self._take(endpoint, net, pool, wanted)
                    return text
        for pool in pools[:-1]:
            with contextlib.suppress(Exhausted):
                return f"{self._take(endpoint, net, pool)}/{pool.prefix.prefixlen}"
        return f"{self._take(endpoint, net, pools[-1])}/{pools[-1].prefix.prefixlen}"

    def _take(
        self, endpoint: EndpointRecord, net: NetworkRecord, pool: Pool, wanted: str = ""
    ) -> Address:
        call = self._drivers.address_manager(net.driver, net.ipam_driver)
        if call is None:
            return pool.take(wanted)
        network = self._drivers.network(net)
        subnet = next(each for each in network.subnets if each.prefix == pool.prefix)
        chosen = ip_address(wanted) if wanted else None
        address = call.address_take(network, endpoint.id, subnet, chosen)
        assert address is not None
        return address

    def give_back(self, endpoint: EndpointRecord, net: NetworkRecord) -> None:
        """Free the addresses of an endpoint but for those that the user chose."""
        kept = []
        for text in endpoint.addresses:
            address = ip_interface(text).ip
            if str(address) in endpoint.wanted:
                kept.append(text)
                continue
            self._give_back(endpoint, net, address)
        endpoint.addresses = kept

    def _give_back(self, endpoint: EndpointRecord, net: NetworkRecord, address: Address) -> None:
        call = self._drivers.address_manager(net.driver, net.ipam_driver)
        if call is not None:
            call.address_release(self._drivers.network(net), endpoint.id, address)
            return
        for pool in self.pools(net):
            if address in pool.prefix:
                pool.give_back(address)


def _mac(address: str) -> str:
    """Return a hardware address made from the first address, as docker does for IPv4."""
    packed = ip_interface(address).ip.packed[-4:]
    return "02:42:" + ":".join(f"{byte:02x}" for byte in packed)
