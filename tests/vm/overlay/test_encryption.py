"""Encrypted overlays on a kernel that has ESP: what is on the wire, and keys that change."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.overlay import Capture, Wire, address, ping

from drivetrain.host import namespaces
from drivetrain.testing.hosts import eventually

ESP, UDP = 50, 17
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


def test_what_comes_in_clear_to_an_encrypted_network_is_dropped(wire: Wire) -> None:
    network = wire.network("forged", encrypted="true")
    one, _ = wire.join(0, network)
    _, target = wire.join(1, network)
    eventually(lambda: reaches(one, target), "containers reach each other")
    with namespaces.inside(wire.place(wire.switch)):
        done = subprocess.run(
            ["busybox", "nc", "-u", "-w1", address(0), "4790"], input=b"forged", check=False
        )
    assert done.returncode in (0, 1)
    counters = namespaces.run_in(
        wire.place(wire.names[0]), lambda: Path("/proc/thread-self/net/xfrm_stat").read_text()
    )
    values = dict(line.split() for line in counters.splitlines())
    assert int(values["XfrmInPolBlock"]) >= 1
