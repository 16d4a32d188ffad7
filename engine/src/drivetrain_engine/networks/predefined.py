"""The networks that every host has, and the default bridge as the daemon's settings want it."""

from __future__ import annotations

import logging
from ipaddress import ip_interface, ip_network
from typing import Any

from drivetrain.errors import InvalidArgument, NotSupported
from drivetrain.network import Prefix
from drivetrain_engine.networks import creation
from drivetrain_engine.networks.drivers import Drivers
from drivetrain_engine.networks.records import NetworkRecord, Records, SubnetRecord
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
                drivers.probed(name)
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
    if chosen.host_address:
        record.options[f"{_BRIDGE}host_binding_ipv4"] = chosen.host_address
    config = _config(4, chosen.bip, chosen.fixed_cidr, chosen.default_gateway, _known(record, 4))
    ipv6 = chosen.ipv6 or bool(chosen.bip6 or chosen.fixed_cidr_v6)
    if ipv6:
        config += _config(
            6, chosen.bip6, chosen.fixed_cidr_v6, chosen.default_gateway_v6, _known(record, 6)
        )
    body = {"Name": "bridge", "IPAM": {"Config": config}, "EnableIPv6": ipv6}
    planned = creation.record_of(body, drivers.probed, pools, taken)
    record.subnets = planned.subnets
    record.enable_ipv6 = planned.enable_ipv6


def _known(record: NetworkRecord, version: int) -> SubnetRecord | None:
    """Return the subnet that the default bridge had before."""
    return next((s for s in record.subnets if ip_network(s.prefix).version == version), None)


def _config(
    version: int, bip: str, fixed: str, gateway: str, known: SubnetRecord | None
) -> list[Json]:
    """Return the configuration of one IP version; empty: all is left open.

    Raises:
        InvalidArgument: a setting that is no address or subnet.
    """
    found: Json = {}
    try:
        inside = str(ip_network(fixed, strict=False)) if fixed else ""
        if bip:
            own = ip_interface(bip)
            found = {"Subnet": str(own.network), "Gateway": str(own.ip)}
        elif known is not None:
            found = {"Subnet": known.prefix, "Gateway": known.gateway}
        elif inside:
            found = {"Subnet": inside}
    except ValueError as error:
        raise InvalidArgument(f"the default bridge's addresses: {error}") from None
    if inside and bip and not ip_network(inside).subnet_of(ip_network(found["Subnet"])):  # type: ignore[arg-type]
        raise InvalidArgument(f"fixed-cidr {inside} is not in the default bridge's {bip}")
    if inside and found:
        if not ip_network(inside).subnet_of(ip_network(found["Subnet"])):  # type: ignore[arg-type]
            found = {"Subnet": inside}
        found["IPRange"] = inside
    if gateway and found:
        found["AuxiliaryAddresses"] = {f"DefaultGatewayIPv{version}": gateway}
    return [found] if found else []
