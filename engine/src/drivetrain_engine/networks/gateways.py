"""Which of a container's networks its default routes lead through."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address

from drivetrain.host.netlink import Netlink
from drivetrain_engine.networks.inventory import Pair


def decide(pairs: Sequence[Pair]) -> list[Pair]:
    """Set ``gateway_for`` of all endpoints; return the pairs whose value changed.

    The highest priority has it; among equals the first, in the order that the user gave.
    """
    owners: dict[int, str] = {}
    for endpoint, net in sorted(pairs, key=lambda pair: -pair[0].gw_priority):
        if net.internal:
            continue
        # Without subnets the address and the gateway come from a DHCP server.
        for version in {6 if ":" in subnet.prefix else 4 for subnet in net.subnets} or {4}:
            owners.setdefault(version, endpoint.id)
    changed = []
    for endpoint, net in pairs:
        versions = sorted(version for version, owner in owners.items() if owner == endpoint.id)
        if versions != endpoint.gateway_for:
            endpoint.gateway_for = versions
            changed.append((endpoint, net))
    return changed


def route(inside: Netlink, pairs: Sequence[Pair]) -> None:
    """Set the default routes of endpoints that are joined, after ``decide``."""
    for endpoint, _ in pairs:
        if not endpoint.joined or not endpoint.gateway_for:
            continue
        for version in endpoint.gateway_for:
            found = [ip_address(g) for g in endpoint.gateways if ip_address(g).version == version]
            if found or endpoint.on_link:
                gateway = found[0] if found else None
                index = inside.index(endpoint.interface)
                inside.add_route(index, None, gateway, version=version)


def publisher(pairs: Sequence[Pair]) -> Pair | None:
    """Return the endpoint that a container's ports are published on."""
    for version in (4, 6):
        for endpoint, net in pairs:
            if version in endpoint.gateway_for:
                return endpoint, net
    return pairs[0] if pairs else None
