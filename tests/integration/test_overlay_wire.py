"""What overlays send between hosts, and over which of their links."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.overlay import Capture, Wire, address, ping

from drivetrain.errors import Exhausted, InvalidArgument
from drivetrain.testing.hosts import eventually

NUMBERS = "com.docker.network.driver.overlay.vxlanid_list"
MTU = "com.docker.network.driver.mtu"
UDP = 17


def identifiers(seen: list[tuple[int, int, bytes]], port: int, header: int) -> set[int]:
    """Return the VXLAN network identifiers of packets to a port."""
    at = header + 8 + 4
    return {
        int.from_bytes(packet[at : at + 3], "big")
        for protocol, number, packet in seen
        if (protocol, number) == (UDP, port)
    }


@pytest.mark.parametrize(
    ("data", "header", "mtu"), [("198.51.100.", 20, 1450), ("2001:db8:5::", 40, 1430)],
    ids=["IPv4", "IPv6"],
)  # fmt: skip
def test_packets_take_the_link_and_port_of_the_data_plane_with_the_identifier_asked_for(
    tmp_path: Path, data: str, header: int, mtu: int
) -> None:
    options = {"data-path-addr": "data0", "data-path-port": "4799"}
    with Wire(tmp_path, data=data, **options) as wire:
        network = wire.network("net", **{NUMBERS: "7654,7655"})
        small = wire.network("small", **{NUMBERS: "7654,7655", MTU: "1300"})
        with pytest.raises(Exhausted, match="7655"):
            wire.network("none left", **{NUMBERS: "7654,7655"})
        with pytest.raises(InvalidArgument, match="16777215"):
            wire.network("no number", **{NUMBERS: "0"})
        for number, made, size in ((7654, network, mtu), (7655, small, 1300)):
            one, _ = wire.join(0, made)
            _, target = wire.join(1, made)
            with Capture(wire) as capture:
                eventually(
                    lambda one=one, target=target: " 0% packet loss" in ping(one, target),
                    "containers reach each other",
                )
                seen = capture.between(f"{data}10", f"{data}11")
            assert identifiers(seen, 4799, header) == {number}
            # Whole packets pass, up to the MTU and not beyond it: 28 bytes are IP and ICMP.
            with Capture(wire) as first, Capture(wire) as second:
                assert " 0% packet loss" in ping(one, target, 1, "-s", str(size - 28))
                control = first.between(address(0), address(1))
                seen = second.between(f"{data}10", f"{data}11")
            assert not [packet for protocol, _, packet in control if protocol == UDP]
            assert max(len(packet) for _, _, packet in seen) == size + 1500 - mtu


def test_a_link_that_is_not_there_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(InvalidArgument, match="no address or interface nowhere0"),
        Wire(tmp_path, 1, **{"data-path-addr": "nowhere0"}),
    ):
        pass
