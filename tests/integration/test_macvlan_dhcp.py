"""Addresses of macvlan containers by DHCP, from busybox's server on the other machine."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.dhcp import serve
from tests.lan import Container, Lan, Rig, in_namespace, pings

from drivetrain.errors import Unavailable
from drivetrain.host import namespaces
from drivetrain.network import NetworkState
from drivetrain.testing.hosts import eventually


@pytest.fixture
def lan() -> Iterator[Lan]:
    with Lan(None, "192.168.7.1/24") as made:
        yield made


@pytest.fixture
def rig(lan: Lan) -> Iterator[Rig]:
    made = Rig(lan, "macvlan")
    yield made
    made.restarted().sync()
    assert clients(made) == []


def clients(rig: Rig) -> list[int]:
    """The ids of the driver's DHCP clients that run."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdigit() else []
            if b"udhcpc" in words and any(bytes(rig.root) in word for word in words):
                found.append(int(entry.name))
    return found


def restarted(rig: Rig) -> Rig:
    """A driver after a crash: the one before does nothing any more."""
    rig.call("network_close")
    return rig.restarted()


def joined(rig: Rig, **options: str) -> Container:
    network = rig.create(parent="eth0", dhcp="true", **options)
    return rig.join(network)


def test_a_container_gets_address_and_gateway_from_the_server(rig: Rig) -> None:
    with serve(rig.lan):
        one = joined(rig)
        assert one.ip.startswith("192.168.7.1")
        assert [str(gateway) for gateway in one.link.gateways] == ["192.168.7.1"]
        assert pings(one.netns, "192.168.7.1")
        second = rig.join(one.network)
        assert second.ip != one.ip
        assert pings(one.netns, second.ip)
        assert len(clients(rig)) == 2
        for container in (one, second):
            rig.leave(container)
        assert clients(rig) == []


def test_a_container_that_starts_again_has_the_same_address(rig: Rig) -> None:
    with serve(rig.lan):
        one = joined(rig)
        rig.leave(one)
        assert rig.join_again(one.network, one.endpoint).ip == one.ip


def test_a_lease_is_renewed_while_the_container_lives(rig: Rig) -> None:
    with serve(rig.lan, seconds=4):
        one = joined(rig)
        lease = rig.root / "dhcp" / one.endpoint.id / "lease"
        before = lease.stat().st_mtime_ns
        eventually(lambda: lease.stat().st_mtime_ns > before, "the lease was renewed")
        assert pings(one.netns, one.ip)


def test_an_address_that_the_server_changes_is_changed_in_the_container(rig: Rig) -> None:
    with serve(rig.lan, seconds=4):
        one = joined(rig)
    for name in ("leases", "udhcpd.pid"):
        (rig.lan.root / name).unlink(missing_ok=True)
    with serve(rig.lan, first=150, seconds=4):
        os.kill(clients(rig)[0], signal.SIGUSR1)  # renew now
        eventually(lambda: one.ip not in addresses(one), "the old address is gone")
        eventually(lambda: "inet 192.168.7.1" in addresses(one), "the container has a new one")
        assert pings(one.netns, "192.168.7.1")
        assert "default via" in in_namespace(one.netns, "ip", "route").stdout


def addresses(container: Container) -> str:
    return in_namespace(container.netns, "ip", "-4", "address", "show", "eth0").stdout


def test_without_a_server_the_container_fails_to_start_and_leaves_nothing(rig: Rig) -> None:
    network = rig.create(parent="eth0", dhcp="true", dhcp_timeout="1s")
    with pytest.raises(Unavailable, match="no DHCP server on the network of eth0"):
        rig.join(network)
    assert clients(rig) == []
    assert list((rig.root / "dhcp").iterdir()) == []


def test_a_client_outlives_the_daemon_and_a_dead_one_is_replaced(rig: Rig) -> None:
    with serve(rig.lan):
        one = joined(rig)
        (client,) = clients(rig)
        state = NetworkState(one.network, ((one.endpoint, ()),))
        after = restarted(rig)
        after.sync(state)
        assert clients(rig) == [client], "it was left alone"
        after.call("network_close")
        os.kill(client, signal.SIGKILL)
        eventually(lambda: clients(rig) == [], "the client is gone")
        again = after.restarted()
        # The daemon finds the namespace where the container's sandbox is kept.
        assert namespaces.is_namespace(one.netns)
        again.sync(state)
        eventually(lambda: len(clients(rig)) == 1, "a new client")
        assert one.ip in addresses(one), "the container kept its address"
        again.sync()
        assert clients(rig) == []


def test_a_client_that_dies_is_replaced_at_once_and_not_after_the_end(rig: Rig) -> None:
    with serve(rig.lan, seconds=6):
        one = joined(rig)
        for _ in range(2):
            (client,) = clients(rig)
            os.kill(client, signal.SIGKILL)
            eventually(lambda client=client: clients(rig) not in ([], [client]), "a new client")
            assert one.ip in addresses(one), "the container kept its address"
        lease = rig.root / "dhcp" / one.endpoint.id / "lease"
        before = lease.stat().st_mtime_ns
        eventually(lambda: lease.stat().st_mtime_ns > before, "the new one renews the lease")
        # One that another daemon started is looked after as well.
        after = restarted(rig)
        after.sync(NetworkState(one.network, ((one.endpoint, ()),)))
        (client,) = clients(rig)
        os.kill(client, signal.SIGKILL)
        eventually(lambda: clients(rig) not in ([], [client]), "a new client")
        os.kill(clients(rig)[0], signal.SIGKILL)
        after.leave(one)
        fresh = after.join_again(one.network, one.endpoint)
        assert len(clients(rig)) == 1
        after.leave(fresh)
    assert clients(rig) == []


def test_host_access_follows_the_lease(rig: Rig) -> None:
    with serve(rig.lan):
        in_namespace(rig.lan.host, "ip", "address", "add", "192.168.7.5/24", "dev", "eth0")
        one = joined(rig, host_access="true")
        assert pings(rig.lan.host, one.ip)
        rig.leave(one)
        assert one.ip not in in_namespace(rig.lan.host, "ip", "route").stdout
