"""``--publish`` and ``--expose``: ``[[address:][host[-end]]:]container[-end][/protocol]``."""

from __future__ import annotations

from collections.abc import Sequence

from drivetrain_engine.cli.errors import UsageError

PROTOCOLS = ("tcp", "udp", "sctp")
Bindings = dict[str, list[dict[str, str]]]


def _range(text: str, whole: str) -> tuple[int, int]:
    first, separator, last = text.partition("-")
    try:
        low = int(first)
        high = int(last) if separator else low
    except ValueError:
        raise UsageError(f"invalid port {whole!r}: {text!r} is not a port or a range") from None
    if not 0 < low <= high <= 65535:
        raise UsageError(f"invalid port {whole!r}: ports go from 1 to 65535, low-high")
    return low, high


def _split(text: str) -> tuple[str, str, str]:
    """Return host address, host port, container port."""
    if text.startswith("["):
        address, bracket, rest = text[1:].partition("]")
        if not bracket or not rest.startswith(":"):
            raise UsageError(f"invalid port {text!r}: [address]:host-port:container-port")
        host, _, container = rest[1:].rpartition(":")
        return address, host, container
    rest, _, container = text.rpartition(":")
    address, _, host = rest.rpartition(":")
    return address, host, container


def parse_port(text: str) -> tuple[list[str], Bindings]:
    """Return the exposed ports (``80/tcp``) and their PortBindings for one ``--publish``.

    Raises:
        UsageError: it is not of that form.
    """
    if "=" in text:
        return _parse_long(text)
    spec, _, protocol = text.partition("/")
    protocol = (protocol or "tcp").lower()
    if protocol not in PROTOCOLS:
        raise UsageError(f"invalid port {text!r}: the protocol is tcp, udp or sctp")
    address, host, container = _split(spec)
    if not container:
        raise UsageError(f"invalid port {text!r}: no port specified: {text}<empty>")
    return _bind(text, address, host, container, protocol)


def _parse_long(text: str) -> tuple[list[str], Bindings]:
    values = dict(part.partition("=")[::2] for part in text.split(","))
    unknown = set(values) - {"target", "published", "protocol", "mode"}
    if unknown or not values.get("target"):
        raise UsageError(f"invalid port {text!r}: target=, published=, protocol=, mode= are known")
    protocol = values.get("protocol", "tcp")
    return _bind(text, "", values.get("published", ""), values["target"], protocol)


def _bind(
    text: str, address: str, host: str, container: str, protocol: str
) -> tuple[list[str], Bindings]:
    low, high = _range(container, text)
    exposed = [f"{port}/{protocol}" for port in range(low, high + 1)]
    if not host:
        return exposed, {port: [{"HostIp": address, "HostPort": ""}] for port in exposed}
    host_low, host_high = _range(host, text)
    if low == high and host_high > host_low:
        binding = {"HostIp": address, "HostPort": f"{host_low}-{host_high}"}
        return exposed, {exposed[0]: [binding]}
    if host_high - host_low != high - low:
        raise UsageError(f"invalid port {text!r}: host and container ranges have different lengths")
    return exposed, {
        port: [{"HostIp": address, "HostPort": str(host_low + offset)}]
        for offset, port in enumerate(exposed)
    }


def port_settings(
    published: Sequence[str], exposed: Sequence[str]
) -> tuple[dict[str, dict[str, str]], Bindings]:
    """Return ExposedPorts and PortBindings of all ``--publish`` and ``--expose``."""
    ports: dict[str, dict[str, str]] = {}
    bindings: Bindings = {}
    for text in published:
        names, more = parse_port(text)
        ports.update({name: {} for name in names})
        for name, entries in more.items():
            bindings.setdefault(name, []).extend(entries)
    for text in exposed:
        if ":" in text:
            raise UsageError(f"invalid port {text!r} for --expose: port[-end][/protocol]")
        ports.update({name: {} for name in parse_port(text)[0]})
    return ports, bindings


def show_ports(ports: Sequence[dict[str, object]]) -> str:
    """Return the PORTS column of ``ps``: ``0.0.0.0:8080->80/tcp, 443/tcp``; ranges are joined."""
    entries: list[tuple[str, int, int, str]] = []
    for port in ports:
        public = int(str(port.get("PublicPort") or 0))
        address = str(port.get("IP") or "")
        private = int(str(port.get("PrivatePort") or 0))
        entries.append((address if public else "", public, private, str(port.get("Type", "tcp"))))
    entries.sort(key=lambda entry: (entry[3], entry[0], entry[2], entry[1]))
    groups: list[list[tuple[str, int, int, str]]] = []
    for entry in entries:
        if groups and _continues(groups[-1][-1], entry):
            groups[-1].append(entry)
        else:
            groups.append([entry])
    shown = sorted(groups, key=lambda group: (group[0][2], group[0][3], group[0][0]))
    return ", ".join(_show_group(group[0], group[-1]) for group in shown)


def _continues(last: tuple[str, int, int, str], entry: tuple[str, int, int, str]) -> bool:
    same = last[0] == entry[0] and last[3] == entry[3] and entry[2] == last[2] + 1
    return same and (entry[1] == last[1] + 1 if last[1] else entry[1] == 0)


def _show_group(first: tuple[str, int, int, str], last: tuple[str, int, int, str]) -> str:
    def span(low: int, high: int) -> str:
        return str(low) if low == high else f"{low}-{high}"

    container = f"{span(first[2], last[2])}/{first[3]}"
    if not first[1]:
        return container
    address = f"[{first[0]}]" if ":" in first[0] else first[0]
    return f"{address}:{span(first[1], last[1])}->{container}"
