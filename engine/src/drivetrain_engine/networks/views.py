"""Networks as the API shows them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from ipaddress import ip_interface
from typing import Any

from drivetrain.errors import InvalidArgument
from drivetrain.network import Peer
from drivetrain_engine.content.filters import until_filter
from drivetrain_engine.networks.records import EndpointRecord, NetworkRecord

Json = dict[str, Any]


def network(record: NetworkRecord, endpoints: Iterable[EndpointRecord], scope: str) -> Json:
    """Return the API's ``Network``."""
    return {
        "Name": record.name,
        "Id": record.id,
        "Created": record.created,
        "Scope": scope,
        "Driver": record.driver,
        "EnableIPv4": record.enable_ipv4,
        "EnableIPv6": record.enable_ipv6,
        "IPAM": {
            "Driver": record.ipam_driver,
            "Options": record.ipam_options or None,
            "Config": [_config(subnet) for subnet in record.subnets],
        },
        "Internal": record.internal,
        "Attachable": record.attachable,
        "Ingress": False,
        "ConfigFrom": {"Network": record.config_from},
        "ConfigOnly": record.config_only,
        "Containers": {
            endpoint.container: {
                "Name": endpoint.name,
                "EndpointID": endpoint.id,
                "MacAddress": endpoint.mac,
                "IPv4Address": endpoint.address(4),
                "IPv6Address": endpoint.address(6),
            }
            for endpoint in endpoints
            if endpoint.joined
        },
        "Options": record.options,
        "Labels": record.labels,
    }


def add_peers(shown: Json, peers: Iterable[Peer]) -> None:
    """Add the endpoints on other hosts to the API's ``Network``, and their hosts."""
    hosts = {}
    for peer in peers:
        addresses = {address.version: str(address) for address in peer.addresses}
        shown["Containers"][f"ep-{peer.endpoint}"] = {
            "Name": peer.names[0] if peer.names else peer.endpoint[:12],
            "EndpointID": peer.endpoint,
            "MacAddress": peer.mac,
            "IPv4Address": addresses.get(4, ""),
            "IPv6Address": addresses.get(6, ""),
        }
        hosts[str(peer.host)] = {"Name": str(peer.host), "IP": str(peer.host)}
    shown["Peers"] = list(hosts.values())


def _config(subnet: Any) -> Json:
    shown = {"Subnet": subnet.prefix, "Gateway": subnet.gateway, "IPRange": subnet.ip_range}
    found: Json = {key: value for key, value in shown.items() if value}
    if subnet.auxiliary:
        found["AuxiliaryAddresses"] = subnet.auxiliary
    return found


def endpoint(record: EndpointRecord, network_id: str, names: list[str]) -> Json:
    """Return the API's ``EndpointSettings``."""
    first, second = record.address(4), record.address(6)
    wanted = {("IPv6Address" if ":" in text else "IPv4Address"): text for text in record.wanted}
    gateways = {(6 if ":" in text else 4): text for text in record.gateways}
    return {
        "IPAMConfig": wanted or None,
        "Links": record.links or None,
        "Aliases": record.aliases or None,
        "MacAddress": record.mac if record.joined else record.wanted_mac,
        "DriverOpts": record.driver_opts or None,
        "GwPriority": record.gw_priority,
        "NetworkID": network_id,
        "EndpointID": record.id if record.joined else "",
        "Gateway": gateways.get(4, ""),
        "IPAddress": str(ip_interface(first).ip) if first else "",
        "IPPrefixLen": ip_interface(first).network.prefixlen if first else 0,
        "IPv6Gateway": gateways.get(6, ""),
        "GlobalIPv6Address": str(ip_interface(second).ip) if second else "",
        "GlobalIPv6PrefixLen": ip_interface(second).network.prefixlen if second else 0,
        "DNSNames": names or None,
    }


def selector(
    filters: Mapping[str, Any],
    used: Callable[[NetworkRecord], bool],
    scope: Callable[[NetworkRecord], str],
) -> Callable[[NetworkRecord], bool]:
    """Return a predicate for the API's filters.

    Raises:
        InvalidArgument: an unknown filter, or a bad value.
    """
    until = until_filter({"until": [str(text) for text in filters.get("until") or ()]})
    known = {"dangling", "driver", "id", "label", "name", "scope", "type", "until", "label!"}
    for name in filters:
        if name not in known:
            raise InvalidArgument(f"invalid filter '{name}': known are {', '.join(sorted(known))}")

    def values(name: str) -> list[str]:
        return list(filters.get(name) or ())

    def labelled(record: NetworkRecord, text: str) -> bool:
        key, equals, value = text.partition("=")
        return key in record.labels and (not equals or record.labels[key] == value)

    def matches(record: NetworkRecord) -> bool:
        dangling = values("dangling")
        if dangling and (dangling[0].lower() in ("1", "true")) == (
            used(record) or record.predefined
        ):
            return False
        if until is not None and datetime.fromisoformat(record.created).timestamp() > until:
            return False
        kinds = values("type")
        if kinds and ("builtin" if record.predefined else "custom") not in kinds:
            return False
        return (
            (not values("driver") or record.driver in values("driver"))
            and (not values("id") or any(record.id.startswith(t) for t in values("id")))
            and (not values("name") or any(t in record.name for t in values("name")))
            and (not values("scope") or scope(record) in values("scope"))
            and all(labelled(record, text) for text in values("label"))
            and not any(labelled(record, text) for text in values("label!"))
        )

    return matches
