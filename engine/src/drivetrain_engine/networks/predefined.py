"""The networks that every host has, and the default bridge as the daemon's settings want it."""

from __future__ import annotations

import logging
from ipaddress import ip_interface, ip_network
from typing import Any

from drivetrain.errors import NotSupported
from drivetrain.network import Prefix
from drivetrain_engine.networks import creation
from drivetrain_engine.networks.drivers import Drivers
from drivetrain_engine.networks.records import NetworkRecord, Records
from drivetrain_engine.networks.requests import NetworkSettings
from drivetrain_engine.state import new_id

log = logging.getLogger("engine.networks")

Json = dict[str, Any]
NAMES = ("bridge", "host", "none")
#: Name of the default bridge's link; docker's is docker0.
DEFAULT_LINK = "engine0"
_BRIDGE = "com.docker.network.bridge."


def make(
    records: Records[NetworkRecord], drivers: Drivers, settings: NetworkSettings,
    pools: list[tuple[str, int]],
) -> list[str]:  # fmt: skip
    """Make or adapt the records of the networks that every host has.

    Returns:
        The names of the drivers that are installed for them.
    """
    names = installed(drivers)
    for name in names:
        existing = next((r for r in records if r.name == name), None)
        record = existing or NetworkRecord(
            id=new_id(), name=name, driver=name, created=creation.now(), predefined=True
        )
        if name == "bridge":
            record.default = True
            try:
                drivers.get(name).call.network_probe()
            except NotSupported as error:
                log.warning("no default network: %s", error)
                continue
            taken = [
                ip_network(subnet.prefix)
                for other in records
                if other.id != record.id
                for subnet in other.subnets
            ]
            _plan(record, drivers, settings, pools, taken)
        records.put(record.id, record)
        drivers.forget(record.id)
    return names


def installed(drivers: Drivers) -> list[str]:
    """Return the names of the drivers of these networks, as far as they are installed."""
    present = drivers.registry.names("network")
    return [name for name in NAMES if name in present]


def _plan(
    record: NetworkRecord, drivers: Drivers, chosen: NetworkSettings,
    pools: list[tuple[str, int]], taken: list[Prefix],
) -> None:  # fmt: skip
    """Bring the default bridge's record in line with the daemon's settings."""
    record.options = {
        f"{_BRIDGE}name": DEFAULT_LINK,
        f"{_BRIDGE}enable_icc": str(chosen.icc).lower(),
        f"{_BRIDGE}enable_ip_masquerade": str(chosen.ip_masq).lower(),
    }
    if chosen.mtu:
        record.options["com.docker.network.driver.mtu"] = str(chosen.mtu)
    config: list[Json] = []
    if chosen.bip:
        own = ip_interface(chosen.bip)
        config.append({"Subnet": str(own.network), "Gateway": str(own.ip)})
    elif record.subnets:
        config = [{"Subnet": s.prefix, "Gateway": s.gateway} for s in record.subnets[:1]]
    elif chosen.fixed_cidr:
        config.append({"Subnet": str(ip_network(chosen.fixed_cidr, strict=False))})
    if config and chosen.fixed_cidr:
        config[0]["IPRange"] = str(ip_network(chosen.fixed_cidr, strict=False))
    if config and chosen.default_gateway:
        config[0]["AuxiliaryAddresses"] = {"DefaultGatewayIPv4": chosen.default_gateway}
    body = {"Name": "bridge", "IPAM": {"Config": config}, "EnableIPv6": chosen.ipv6}
    planned = creation.record_of(body, drivers.registry, pools, taken)
    record.subnets = planned.subnets
    record.enable_ipv6 = planned.enable_ipv6
