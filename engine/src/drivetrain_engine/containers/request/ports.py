"""Exposed and published ports."""

from __future__ import annotations

import ipaddress
import re
from typing import Any

from drivetrain.errors import InvalidArgument

_PROTOCOLS = ("tcp", "udp", "sctp")
_RANGE = re.compile(r"(\d+)(?:-(\d+))?")

Bindings = dict[str, list[dict[str, str]] | None]


def split_port(text: str) -> tuple[int, int, str]:
    """Return first port, last port and protocol of ``80``, ``80/tcp`` or ``80-90/udp``.

    Raises:
        InvalidArgument: it is no port.
    """
    numbers, _, protocol = text.partition("/")
    protocol = protocol.lower() or "tcp"
    match = _RANGE.fullmatch(numbers)
    if match is None:
        raise InvalidArgument(f"invalid port specification: {text!r}")
    first = int(match[1])
    last = int(match[2] or first)
    if not 0 < first <= last <= 65535:
        raise InvalidArgument(f"invalid range format for --expose: {text}, error: out of range")
    if protocol not in _PROTOCOLS:
        raise InvalidArgument(f"invalid proto: {protocol}: tcp, udp or sctp is needed")
    return first, last, protocol


def split_host_port(text: str) -> tuple[int, int]:
    """Return the first and last port of ``8080`` or ``8000-9000``; zeros when empty.

    Raises:
        InvalidArgument: it is no port.
    """
    if not text:
        return 0, 0
    match = _RANGE.fullmatch(text)
    if match is None or int(match[1]) > 65535 or int(match[2] or 0) > 65535:
        raise InvalidArgument(f"invalid port specification: {text!r}")
    first = int(match[1])
    last = int(match[2] or first)
    if last < first:
        raise InvalidArgument(f"invalid port range: {text}")
    return first, last


def normalize_ports(
    exposed: dict[str, Any] | None, bindings: Bindings | None
) -> tuple[dict[str, Any] | None, Bindings]:
    """Return exposed ports and bindings with keys like ``80/tcp``; bound ports are exposed too.

    Raises:
        InvalidArgument: a port, protocol or address that is none.
    """
    ports: dict[str, Any] = {}
    for text in exposed or ():
        first, last, protocol = split_port(text)
        for port in range(first, last + 1):
            ports[f"{port}/{protocol}"] = {}
    found: Bindings = {}
    for text, places in (bindings or {}).items():
        first, last, protocol = split_port(text)
        if first != last:
            raise InvalidArgument(f"invalid port specification: {text!r}")
        key = f"{first}/{protocol}"
        ports[key] = {}
        found[key] = [_binding(place) for place in places or [{}]]
    return ports or None, found


def _binding(place: dict[str, str]) -> dict[str, str]:
    address, port = place.get("HostIp") or "", place.get("HostPort") or ""
    if address:
        try:
            ipaddress.ip_address(address)
        except ValueError:
            raise InvalidArgument(f"invalid IP address: {address}") from None
    split_host_port(port)
    return {"HostIp": address, "HostPort": port}
