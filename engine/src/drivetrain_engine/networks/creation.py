"""From the body of ``POST /networks/create`` to a record."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from ipaddress import ip_address, ip_network
from typing import Any

from drivetrain.errors import FailedPrecondition, InvalidArgument
from drivetrain.host.netlink import Netlink
from drivetrain.network import NetworkHooks, Prefix, Subnet, SubnetRequest
from drivetrain.options import parse_options
from drivetrain_engine.networks import ipam
from drivetrain_engine.networks.records import (
    NetworkRecord,
    SubnetRecord,
    subnet_for_driver,
    subnet_from_driver,
)
from drivetrain_engine.state import new_id

Json = dict[str, Any]
#: Asks who manages the addresses of a network to be for its subnets.
Chooser = Callable[[NetworkRecord, SubnetRequest], Sequence[Subnet] | None]
NAME = re.compile(r"^[a-zA-Z0-9][a-zA-Z0-9_.-]*$")
#: Options with which the CLI and Compose switch the IP versions; the record has fields for them.
_VERSIONS = {"com.docker.network.enable_ipv4": 4, "com.docker.network.enable_ipv6": 6}


def now() -> str:
    """Return the time as the API has it."""
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


def record_of(
    body: Mapping[str, Any], hooks: Callable[[str], NetworkHooks], pools: list[tuple[str, int]],
    taken: list[Prefix],
    choose: Chooser = lambda _driver, _request: None,
) -> NetworkRecord:  # fmt: skip
    """Check a request and choose what it leaves open.

    Args:
        body: of the request.
        hooks: returns those of a driver that works on this host.
        pools: where subnets come from.
        taken: subnets of other networks; the host's own routes are avoided too.
        choose: asks a driver to choose the subnets; it returns ``None`` when that is left to us.

    Raises:
        InvalidArgument: names what is wrong.
        FailedPrecondition: a subnet overlaps another network's.
        Exhausted: no subnet is left.
    """
    name = str(body.get("Name") or "")
    if not NAME.match(name):
        raise InvalidArgument(f"invalid network name {name!r}: [a-zA-Z0-9][a-zA-Z0-9_.-]* needed")
    driver = str(body.get("Driver") or "bridge")
    call = hooks(driver)
    options = {str(key): str(value) for key, value in (body.get("Options") or {}).items()}
    parse_options(f"network driver {driver}", call.network_options(), options)
    plan = body.get("IPAM") or {}
    record = NetworkRecord(
        id=new_id(),
        name=name,
        driver=driver,
        created=now(),
        internal=bool(body.get("Internal")),
        attachable=bool(body.get("Attachable")),
        enable_ipv4=_version(body, options, 4, True),
        enable_ipv6=_version(body, options, 6, False),
        ipam_driver=str(plan.get("Driver") or "default"),
        ipam_options={str(k): str(v) for k, v in (plan.get("Options") or {}).items()},
        options=options,
        labels={str(k): str(v) for k, v in (body.get("Labels") or {}).items()},
    )
    unmanaged = record.ipam_driver == "null"
    if unmanaged and plan.get("Config"):
        raise InvalidArgument(
            f"network {name}: the IPAM driver null has no subnets: leave them out"
        )
    if call.network_traits().addresses and not unmanaged:
        asked = _asked(record, plan.get("Config") or [], taken)
        blocked = taken + _host_prefixes()
        chosen = choose(record, _request(record, asked, blocked))
        if chosen is None:
            record.subnets = _subnets(record, asked, pools, blocked)
        else:
            record.subnets = [subnet_from_driver(subnet) for subnet in chosen]
    return record


def _version(
    body: Mapping[str, Any], options: Mapping[str, str], version: int, default: bool
) -> bool:
    asked = body.get(f"EnableIPv{version}")
    if asked is not None:
        return bool(asked)
    text = next((options[k] for k, v in _VERSIONS.items() if v == version and k in options), None)
    return default if text is None else text.lower() in ("1", "true")


def _request(
    record: NetworkRecord, asked: list[SubnetRecord], taken: list[Prefix]
) -> SubnetRequest:
    versions = [v for v, on in ((4, record.enable_ipv4), (6, record.enable_ipv6)) if on]
    return SubnetRequest(
        network=record.id,
        name=record.name,
        versions=tuple(versions),
        asked=tuple(subnet_for_driver(subnet) for subnet in asked),
        taken=tuple(taken),
        options=record.ipam_options,
    )


def _asked(record: NetworkRecord, config: list[Json], taken: list[Prefix]) -> list[SubnetRecord]:
    """Return the subnets that the user gave, checked."""
    found = _entries(config)
    taken = list(taken)
    for subnet in found:
        if not subnet.prefix:
            if subnet.gateway or subnet.ip_range:
                raise InvalidArgument(
                    f"network {record.name}: a gateway or range needs a subnet as well"
                )
            continue
        prefix = ipam.check_subnet(subnet, record.name)
        for other in taken:
            if other.version == prefix.version and other.overlaps(prefix):
                raise FailedPrecondition(
                    f"network {record.name}: Pool overlaps with other one on this address space: "
                    f"{prefix} and {other}"
                )
        taken.append(prefix)
    versions = {ip_network(subnet.prefix).version for subnet in found if subnet.prefix}
    if 6 in versions:
        record.enable_ipv6 = True
    return [subnet for subnet in found if subnet.prefix]


def _subnets(
    record: NetworkRecord, asked: list[SubnetRecord], pools: list[tuple[str, int]],
    taken: list[Prefix],
) -> list[SubnetRecord]:  # fmt: skip
    """Return the subnets that the user gave, and those that were left open."""
    found = list(asked)
    versions = {ip_network(subnet.prefix).version for subnet in found}
    blocked = taken + [ip_network(subnet.prefix) for subnet in found]
    for version, wanted in ((4, record.enable_ipv4), (6, record.enable_ipv6)):
        if wanted and version not in versions:
            prefix = ipam.free_subnet(pools, blocked, version, record.id)
            found.append(SubnetRecord(str(prefix)))
            blocked.append(prefix)
    for subnet in found:
        if not subnet.gateway:
            subnet.gateway = _gateway(subnet)
    if not found:
        raise InvalidArgument(f"network {record.name}: IPv4 or IPv6 must be enabled")
    return found


def _gateway(subnet: SubnetRecord) -> str:
    """Return the first address that is not set aside: of the range if there is one."""
    inside = ip_network(subnet.ip_range or subnet.prefix)
    prefix = ip_network(subnet.prefix)
    first = int(inside.network_address)
    if first == int(prefix.network_address) and prefix.num_addresses > 2:
        first += 1
    aside = {int(ip_address(text)) for text in subnet.auxiliary.values()}
    while first in aside:
        first += 1
    return str(type(inside.network_address)(first))


def _host_prefixes() -> list[Prefix]:
    with Netlink() as netlink:
        return [prefix for prefix, _ in netlink.routes()]


def configuration_of(body: Mapping[str, Any]) -> NetworkRecord:
    """Return the record of a ``--config-only`` network: kept for others, made nowhere.

    Raises:
        InvalidArgument: of its name.
    """
    name = str(body.get("Name") or "")
    if not NAME.match(name):
        raise InvalidArgument(f"invalid network name {name!r}: [a-zA-Z0-9][a-zA-Z0-9_.-]* needed")
    plan = body.get("IPAM") or {}
    return NetworkRecord(
        id=new_id(),
        name=name,
        driver="null",
        created=now(),
        config_only=True,
        internal=bool(body.get("Internal")),
        enable_ipv4=bool(body.get("EnableIPv4", True)),
        enable_ipv6=bool(body.get("EnableIPv6")),
        ipam_driver=str(plan.get("Driver") or "default"),
        ipam_options={str(k): str(v) for k, v in (plan.get("Options") or {}).items()},
        subnets=_entries(plan.get("Config") or []),
        options={str(key): str(value) for key, value in (body.get("Options") or {}).items()},
        labels={str(k): str(v) for k, v in (body.get("Labels") or {}).items()},
    )


def completed(body: Mapping[str, Any], source: NetworkRecord) -> Json:
    """Return the body of a request with the configuration of another network in it.

    Raises:
        InvalidArgument: the request has a configuration of its own as well.
    """
    if body.get("Options") or (body.get("IPAM") or {}).get("Config"):
        raise InvalidArgument(
            "user specified configurations are not supported if the network depends on a "
            "configuration network"
        )
    config = [
        {
            "Subnet": subnet.prefix,
            "Gateway": subnet.gateway,
            "IPRange": subnet.ip_range,
            "AuxiliaryAddresses": subnet.auxiliary,
        }
        for subnet in source.subnets
    ]
    return {
        **body,
        "Internal": source.internal,
        "EnableIPv4": source.enable_ipv4,
        "EnableIPv6": source.enable_ipv6,
        "IPAM": {"Driver": source.ipam_driver, "Options": source.ipam_options, "Config": config},
        "Options": source.options,
        "Labels": {**source.labels, **(body.get("Labels") or {})},
    }


def _entries(config: list[Json]) -> list[SubnetRecord]:
    return [
        SubnetRecord(
            prefix=str(entry.get("Subnet") or ""),
            gateway=str(entry.get("Gateway") or "").partition("/")[0],
            ip_range=str(entry.get("IPRange") or ""),
            auxiliary={str(k): str(v) for k, v in (entry.get("AuxiliaryAddresses") or {}).items()},
        )
        for entry in config
    ]
