"""Ports of the host: each is held by a socket of ours while it leads to a container."""

from __future__ import annotations

import contextlib
import errno
import socket
import threading
from itertools import chain
from pathlib import Path

from drivetrain.errors import Exhausted, FailedPrecondition, InvalidArgument
from drivetrain_engine.networks.records import PortRecord
from drivetrain_engine.networks.relay import Relay

_SCTP = 132
#: Protocol and number.
Key = tuple[str, int]


def _ephemeral() -> tuple[int, int]:
    try:
        first, last = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
        return int(first), int(last)
    except (OSError, ValueError):
        return 32768, 60999


class HostPorts:
    """The ports that are published; any thread may call any method."""

    def __init__(self) -> None:
        self._relay = Relay()
        self._lock = threading.Lock()
        self._held: dict[Key, dict[str, socket.socket | None]] = {}
        self._next = 0

    def reserve(self, protocol: str, host_ip: str, first: int, last: int) -> int:
        """Hold a port of the host and return its number.

        Args:
            protocol: ``tcp``, ``udp`` or ``sctp``.
            host_ip: the address; ``0.0.0.0`` or ``::`` for all.
            first: the port, or the first of a range; 0: any free one.
            last: the last of a range; 0: no range.

        Raises:
            FailedPrecondition: it is taken, by one of ours or by another program.
            Exhausted: none is free.
        """
        with self._lock:
            return self._reserve(protocol, host_ip, first, last)

    def _reserve(self, protocol: str, host_ip: str, first: int, last: int) -> int:
        if first and last <= first:
            self._hold(protocol, host_ip, first)
            return first
        low, high = (first, last) if first else _ephemeral()
        start = low if first else max(low, min(self._next, high))
        for number in chain(range(start, high + 1), range(low, start)):
            try:
                self._hold(protocol, host_ip, number)
            except FailedPrecondition:
                continue
            self._next = number + 1
            return number
        raise Exhausted(f"no port from {low} to {high} is free on {host_ip}/{protocol}")

    def _hold(self, protocol: str, host_ip: str, number: int) -> None:
        place = f"[{host_ip}]" if ":" in host_ip else host_ip
        if any(_overlap(address, host_ip) for address in self._held.get((protocol, number), ())):
            raise FailedPrecondition(f"Bind for {place}:{number} failed: port is already allocated")
        made = self._bind(protocol, host_ip, number, place)
        self._held.setdefault((protocol, number), {})[host_ip] = made

    @staticmethod
    def _bind(protocol: str, host_ip: str, number: int, place: str) -> socket.socket | None:
        family = socket.AF_INET6 if ":" in host_ip else socket.AF_INET
        kind = socket.SOCK_DGRAM if protocol == "udp" else socket.SOCK_STREAM
        try:
            made = socket.socket(family, kind, _SCTP if protocol == "sctp" else 0)
        except OSError:
            return None  # a kernel without sctp: the rule alone has to do
        try:
            if family == socket.AF_INET6:
                made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if kind == socket.SOCK_STREAM:
                # Connections of an earlier program that linger in TIME_WAIT do not matter.
                made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind((host_ip, number))
            if protocol == "tcp":
                # With SO_REUSEADDR two sockets may bind unless one listens.
                made.listen(128)
        except OSError as error:
            made.close()
            if error.errno == errno.EADDRINUSE:
                reason = "address already in use"
            elif error.errno == errno.EADDRNOTAVAIL:
                reason = "cannot assign requested address"
            else:
                reason = str(error)
            raise FailedPrecondition(
                f"failed to bind host port for {place}:{number}/{protocol}: {reason}"
            ) from error
        return made

    def hold_again(self, port: PortRecord) -> None:
        """Hold a port after a restart; the rules work whether or not that succeeds."""
        with self._lock, contextlib.suppress(FailedPrecondition):
            self._hold(port.protocol, port.host_ip, port.host_port)

    def release(self, port: PortRecord) -> None:
        """Let a port go; one that is not held is fine."""
        key = (port.protocol, port.host_port)
        with self._lock:
            holders = self._held.get(key, {})
            held = holders.pop(port.host_ip, None)
            if not holders:
                self._held.pop(key, None)
        if held is not None:
            self._relay.stop(held)

    def carry(self, port: PortRecord, target: tuple[str, int]) -> None:
        """Carry what rules cannot lead to a container to an address and port; see ``relay``."""
        with self._lock:
            held = self._held.get((port.protocol, port.host_port), {}).get(port.host_ip)
            if held is not None and port.protocol != "sctp" and ":" in port.host_ip:
                self._relay.start(held, target)

    def close(self) -> None:
        """Let all go: the process ends, the rules stay."""
        with self._lock:
            for holders in self._held.values():
                for held in holders.values():
                    if held is not None:
                        held.close()
            self._held.clear()
        self._relay.close()


def _overlap(one: str, other: str) -> bool:
    if (":" in one) != (":" in other):
        return False
    return one == other or one in ("0.0.0.0", "::") or other in ("0.0.0.0", "::")


def host_addresses(wanted: str, has_ipv6: bool) -> list[str]:
    """Return the addresses to publish on; without a wish all, of the versions there are.

    Raises:
        InvalidArgument: the wish is no address.
    """
    if not wanted:
        return ["0.0.0.0", "::"] if has_ipv6 else ["0.0.0.0"]
    text = wanted.strip("[]")
    try:
        socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)
    except OSError:
        raise InvalidArgument(f"invalid host IP address {wanted!r} of a published port") from None
    return [text]
