"""Throughput and latency between two network namespaces, and what stands for the limit."""

from __future__ import annotations

import os
import socket
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_interface
from pathlib import Path

from drivetrain.host import namespaces
from drivetrain.host.netlink import Netlink

#: Seconds of one stream, and round trips of one series.
STREAM, TRIPS = 0.5, 1500
_PORT, _CHUNK = 7000, 1 << 18


def _child(work: Callable[[], None]) -> int:
    """Have a process of its own do the other side's part."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(0)
    return pid


def _listener(kind: int) -> socket.socket:
    made = socket.socket(socket.AF_INET, kind)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind(("0.0.0.0", _PORT))
    if kind == socket.SOCK_STREAM:
        made.listen(1)
    return made


def gigabits(server: Path, client: Path, address: str) -> float:
    """Send a TCP stream from one namespace to another; return Gbit/s as the receiver had it."""
    with namespaces.run_in(server, lambda: _listener(socket.SOCK_STREAM)) as listening:

        def receive() -> None:
            connection, _ = listening.accept()
            buffer, total = bytearray(_CHUNK), 0
            while got := connection.recv_into(buffer):
                total += got
            connection.sendall(total.to_bytes(8, "big"))

        child = _child(receive)
        sender = namespaces.run_in(client, lambda: socket.create_connection((address, _PORT), 10))
        with sender:
            data, begin = bytes(_CHUNK), time.perf_counter()
            while time.perf_counter() - begin < STREAM:
                sender.sendall(data)
            sender.shutdown(socket.SHUT_WR)
            total = int.from_bytes(sender.recv(8), "big")
            spent = time.perf_counter() - begin
        os.waitpid(child, 0)
    return total * 8 / spent / 1e9


def microseconds(server: Path, client: Path, address: str) -> float:
    """Return the median round trip of a UDP datagram."""
    with namespaces.run_in(server, lambda: _listener(socket.SOCK_DGRAM)) as echoing:

        def echo() -> None:
            while True:
                data, back = echoing.recvfrom(64)
                if data == b"end":
                    return
                echoing.sendto(data, back)

        child = _child(echo)
        asking = namespaces.run_in(
            client, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        )
        taken = []
        with asking:
            asking.settimeout(10)
            asking.connect((address, _PORT))
            for _ in range(TRIPS):
                begin = time.perf_counter()
                asking.send(b"?")
                asking.recv(64)
                taken.append(time.perf_counter() - begin)
            asking.send(b"end")
        os.waitpid(child, 0)
    return statistics.median(taken) * 1e6


def lookups(client: Path, name: str) -> float:
    """Ask the engine's DNS server for a container's name, one question after the other.

    Returns:
        Answers a second.
    """
    labels = b"".join(bytes([len(each)]) + each.encode() for each in name.split("."))
    question = b"\1\0\0\1\0\0\0\0\0\0" + labels + b"\0\0\1\0\1"
    asking = namespaces.run_in(client, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    count = 0
    with asking:
        asking.settimeout(10)
        asking.connect(("127.0.0.11", 53))
        begin = time.perf_counter()
        while time.perf_counter() - begin < STREAM:
            asking.send(count.to_bytes(2, "big") + question)
            answer = asking.recv(512)
            if answer[6:8] != b"\0\1":
                raise RuntimeError(f"{name} is not resolved: {answer!r}")
            count = (count + 1) & 0xFFFF
        return count / (time.perf_counter() - begin)


@contextmanager
def plain(root: Path, *, vxlan: bool) -> Iterator[tuple[Path, Path, str]]:
    """Two namespaces joined by nothing but a veth pair, or by VXLAN over one; with the address."""
    one, two = root / f"one-{vxlan}", root / f"two-{vxlan}"
    for place in (one, two):
        namespaces.new_network_namespace(place)
    try:
        with Netlink(one) as here, Netlink(two) as there:
            here.veth("eth0", "eth0", namespace=two)
            here.configure("eth0", addresses=[ip_interface("10.90.0.1/24")])
            there.configure("eth0", addresses=[ip_interface("10.90.0.2/24")])
        if vxlan:
            for place, own, other in ((one, 1, 2), (two, 2, 1)):
                _tunnel(place, own, other)
        yield one, two, "10.91.0.1" if vxlan else "10.90.0.1"
    finally:
        for place in (one, two):
            namespaces.remove_network_namespace(place)


def _tunnel(place: Path, own: int, other: int) -> None:
    from benchmarks.measuring import command

    inside = ["nsenter", f"--net={place}", "ip"]
    command([*inside, "link", "add", "vx0", "mtu", "1450", "type", "vxlan", "id", "9", "dstport",
             "4789", "local", f"10.90.0.{own}", "remote", f"10.90.0.{other}"])  # fmt: skip
    command([*inside, "address", "add", f"10.91.0.{own}/24", "dev", "vx0"])
    command([*inside, "link", "set", "vx0", "up"])
