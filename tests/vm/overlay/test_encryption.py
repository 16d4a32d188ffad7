"""Encrypted overlays on a kernel that has ESP: what is on the wire, and keys that change."""

from __future__ import annotations

import json
import socket
import struct
import subprocess
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest
from tests.overlay import Capture, Wire, address, ping

from drivetrain.host import namespaces
from drivetrain.network import Address
from drivetrain.testing.hosts import eventually

ESP, UDP = 50, 17
NUMBERS = "com.docker.network.driver.overlay.vxlanid_list"
#: In every packet that these tests have sent.
PATTERN = bytes.fromhex("5c" * 16)


@pytest.fixture(scope="module")
def wire(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wire]:
    options = {"keys_rotation": "6s", "keys_settle": "3s", "discovery_ttl": "10s"}
    with Wire(tmp_path_factory.mktemp("wire"), 3, **options) as wire:
        yield wire


def reaches(sandbox: Path, target: object) -> bool:
    return " 0% packet loss" in ping(sandbox, target, 1, "-p", "5c")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("asked", "protocol"), [("true", ESP), ("false", UDP)], ids=["asked", "said no"]
)
def test_packets_between_hosts_are_encrypted_when_asked(
    wire: Wire, asked: str, protocol: int
) -> None:
    network = wire.network(f"asked-{asked}", encrypted=asked)
    one, _ = wire.join(0, network)
    _, target = wire.join(1, network)
    with Capture(wire) as capture:
        eventually(lambda: reaches(one, target), "containers reach each other")
        seen = capture.between(address(0), address(1))
    assert {number for number, _, _ in seen} == {protocol}
    readable = [packet for _, _, packet in seen if PATTERN in packet]
    assert bool(readable) == (asked == "false")
    if asked == "false":
        assert {port for _, port, _ in seen} == {4789}


def test_nothing_is_lost_while_keys_change(wire: Wire) -> None:
    network = wire.network("rotating", encrypted="true")
    one, _ = wire.join(0, network)
    _, target = wire.join(2, network)
    eventually(lambda: reaches(one, target), "containers reach each other")
    before = sending(wire, 0)
    with Capture(wire) as capture:
        said = ping(one, target, 60, "-i", "0.25", "-p", "5c")
        seen = capture.between(address(0), address(2))
    assert " 0% packet loss" in said
    assert sending(wire, 0) != before
    assert {number for number, _, _ in seen} == {ESP}
    # Its SPI is the first word of ESP: more than one was used in each direction.
    assert len({packet[20:24] for _, _, packet in seen if packet[20:24]}) >= 4


def sending(wire: Wire, number: int) -> set[str]:
    """Return the lines about the keys that a host sends by."""
    text = namespaces.run_in(
        wire.place(wire.names[number]),
        lambda: subprocess.check_output(["ip", "xfrm", "policy", "list", "dir", "out"], text=True),
    )
    return {line.strip() for line in text.splitlines() if "spi" in line}


def test_a_restarted_driver_goes_on_with_the_states_it_has(wire: Wire) -> None:
    network = wire.network("again", encrypted="true")
    one, own = wire.join(0, network)
    two, target = wire.join(1, network)
    eventually(lambda: reaches(one, target), "containers reach each other")
    session = (wire._folder / "host0/session.json").read_text()
    known = json.loads(session)["session"]
    wire.drivers[0].call.network_close()
    assert reaches(two, own)
    wire.drivers[0] = wire.open(0)
    assert json.loads((wire._folder / "host0/session.json").read_text())["session"] == known
    assert reaches(two, own)


@pytest.mark.parametrize(
    ("encrypted", "port", "number"), [("true", 4790, 7001), ("false", 4789, 7002)],
    ids=["encrypted", "clear"],
)  # fmt: skip
def test_frames_that_somebody_forged_arrive_in_clear_networks_only(
    wire: Wire, encrypted: str, port: int, number: int
) -> None:
    options = {"encrypted": encrypted, NUMBERS: str(number)}
    network = wire.network(f"forged-{encrypted}", **options)
    sandbox, own = wire.join(0, network)
    _, other = wire.join(1, network)
    eventually(lambda: reaches(sandbox, other), "containers reach each other")
    datagram = udp(1111, 9999, PATTERN)
    frame = mac(own) + mac(other) + b"\x08\0" + ipv4(other, own, UDP, datagram)
    vxlan = struct.pack("!II", 0x0800_0000, number << 8) + frame
    packet = ipv4(ip_address(address(1)), ip_address(address(0)), UDP, udp(2222, port, vxlan))
    before = refused(wire, 0)

    def forge() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
            raw.sendto(packet, (address(0), 0))

    with receiver(sandbox) as at:
        namespaces.run_in(wire.place(wire.switch), forge)
        if encrypted == "false":
            assert at.recv(100) == PATTERN
            return
        eventually(lambda: refused(wire, 0) > before, "the packet was refused")
        at.settimeout(0)
        with pytest.raises(BlockingIOError):
            at.recv(100)


def receiver(sandbox: Path) -> socket.socket:
    """Return a socket where datagrams to port 9999 of a sandbox arrive."""
    opened = namespaces.run_in(sandbox, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    opened.bind(("", 9999))
    opened.settimeout(30)
    return opened


def mac(own: Address) -> bytes:
    """Return the hardware address that :meth:`Wire.join` gives."""
    return b"\x02\x42" + own.packed


def udp(source: int, destination: int, data: bytes) -> bytes:
    """Return a datagram without a checksum."""
    return struct.pack("!HHHH", source, destination, 8 + len(data), 0) + data


def ipv4(source: Address, destination: Address, protocol: int, data: bytes) -> bytes:
    """Return a packet."""
    ends = source.packed + destination.packed
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(data), 0, 0, 64, protocol, 0) + ends
    total = sum(struct.unpack("!10H", head))
    total = (total >> 16) + (total & 0xFFFF)
    checksum = ~(total + (total >> 16)) & 0xFFFF
    return head[:10] + struct.pack("!H", checksum) + head[12:] + data


def refused(wire: Wire, number: int) -> int:
    """Return how many packets the policies of a host have kept out."""
    counters = namespaces.run_in(
        wire.place(wire.names[number]),
        lambda: Path("/proc/thread-self/net/xfrm_stat").read_text(),
    )
    values = dict(line.split() for line in counters.splitlines())
    return int(values["XfrmInPolBlock"]) + int(values["XfrmInTmplMismatch"])


def test_what_comes_from_a_stranger_to_the_port_of_encrypted_networks_is_dropped(
    wire: Wire,
) -> None:
    wire.join(0, wire.network("strangers", encrypted="true"))
    before = refused(wire, 0)

    def call() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"forged", (address(0), 4790))

    namespaces.run_in(wire.place(wire.switch), call)
    eventually(lambda: refused(wire, 0) > before, "the packet was refused")
