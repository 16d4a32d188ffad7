"""The macvlan driver on a real network: who reaches whom, and what is left of it."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from tests.lan import Container, Lan, Rig, in_namespace, multicast_heard, pings, subnet

from drivetrain.errors import FailedPrecondition, InUse, InvalidArgument
from drivetrain.host import namespaces
from drivetrain.host.netlink import Netlink
from drivetrain.network import NetworkState
from drivetrain.testing.hosts import eventually

FOUR = subnet("192.168.7.0/24", "192.168.7.1")
SIX = subnet("fd07::/64", "fd07::1")
ROUTER = ("192.168.7.1/24", "fd07::1/64")


@pytest.fixture
def lan() -> Iterator[Lan]:
    with Lan(None, *ROUTER) as made:
        yield made


@pytest.fixture
def rig(lan: Lan) -> Iterator[Rig]:
    made = Rig(lan, "macvlan")
    yield made
    made.sync()
    assert made.links() == {"eth0"}
    assert not namespaces.is_namespace(made.root / "void")


def two(rig: Rig, **options: str) -> tuple[Container, Container]:
    network = rig.create(FOUR, SIX, parent="eth0", **options)
    return (
        rig.join(network, "192.168.7.10/24", "fd07::10/64"),
        rig.join(network, "192.168.7.11/24", "fd07::11/64"),
    )


def test_the_probe_makes_a_link_and_leaves_nothing(rig: Rig) -> None:
    rig.call("network_probe")


def test_containers_reach_the_lan_and_each_other_in_bridge_mode(rig: Rig) -> None:
    one, two_ = two(rig)
    for target in ("192.168.7.1", "fd07::1", "192.168.7.11", "fd07::11"):
        assert pings(one.netns, target), target
    assert pings(rig.lan.other, "192.168.7.10")
    assert pings(rig.lan.other, "fd07::11")
    assert multicast_heard(one, two_) == [True]


@pytest.mark.parametrize("mode", ["private", "vepa"])
def test_containers_reach_the_lan_but_not_each_other(rig: Rig, mode: str) -> None:
    one, two_ = two(rig, macvlan_mode=mode)
    assert pings(one.netns, "192.168.7.1")
    assert pings(two_.netns, "fd07::1")
    assert not pings(one.netns, "192.168.7.11", tries=1)
    assert not pings(one.netns, "fd07::11", tries=1)
    assert multicast_heard(one, two_) == [False]


def test_passthru_takes_the_parent_with_its_address_for_one_container(rig: Rig) -> None:
    network = rig.create(FOUR, parent="eth0", macvlan_mode="passthru")
    one = rig.join(network, "192.168.7.10/24")
    with Netlink(rig.lan.host) as netlink:
        parent = netlink.link("eth0")
    assert parent is not None
    assert one.link.mac == parent.mac
    assert pings(one.netns, "192.168.7.1")
    with pytest.raises(InUse, match="one link only"):
        rig.join(network, "192.168.7.11/24")
    with pytest.raises(InUse, match="passthru shares it with nobody"):
        rig.create(SIX, parent="eth0")
    rig.leave(one)
    again = rig.join_again(network, one.endpoint)
    assert pings(again.netns, "192.168.7.1"), "the parent is free again after a stop"


def test_networks_share_a_parent(rig: Rig) -> None:
    one = rig.join(rig.create(FOUR, parent="eth0"), "192.168.7.10/24")
    rig.join(rig.create(subnet("192.168.8.0/24"), parent="eth0"), "192.168.8.10/24")
    assert pings(one.netns, "192.168.7.1")


def test_without_a_parent_containers_reach_each_other_and_nothing_else(rig: Rig) -> None:
    with Netlink(rig.lan.host) as netlink:
        from ipaddress import ip_interface

        netlink.add_addresses(netlink.index("eth0"), [ip_interface("192.168.7.5/24")])
    network = rig.create(FOUR, internal=True)
    one, other = rig.join(network, "192.168.7.10/24"), rig.join(network, "192.168.7.11/24")
    assert pings(one.netns, "192.168.7.11")
    assert multicast_heard(one, other) == [True]
    assert one.link.gateways == ()
    assert not pings(one.netns, "192.168.7.5", tries=1), "the host"
    assert not pings(one.netns, "192.168.7.1", tries=1), "the lan"
    rig.call("network_delete", network)


def test_a_container_that_starts_again_at_once_gets_its_address(rig: Rig) -> None:
    one, _ = two(rig)
    for _ in range(3):
        rig.leave(one)
        one = rig.join_again(one.network, one.endpoint)
        assert pings(one.netns, "192.168.7.1")


def test_an_mtu_is_set_and_one_above_the_parents_refused(rig: Rig) -> None:
    network = rig.create(FOUR, parent="eth0", **{"com.docker.network.driver.mtu": "1400"})
    one = rig.join(network, "192.168.7.10/24")
    assert "mtu 1400" in in_namespace(one.netns, "ip", "link", "show", "eth0").stdout
    with pytest.raises(InvalidArgument, match="more than the 1500 of its parent"):
        rig.create(SIX, parent="eth0", **{"com.docker.network.driver.mtu": "9000"})


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"parent": "eth9"}, InvalidArgument, r"eth9 does not exist .*there are: eth0"),
        ({"parent": "lo"}, InvalidArgument, "loopback"),
        ({"parent": "eth0.5000"}, InvalidArgument, "VLAN id of 1 to 4094"),
        ({"parent": "eth0", "macvlan_mode": "bride"}, InvalidArgument, "bridge, private, vepa"),
        ({"parnt": "eth0"}, InvalidArgument, "did you mean parent"),
        ({"host_access": "true"}, InvalidArgument, "need a parent"),
        ({"parent": "eth0", "macvlan_mode": "vepa", "host_access": "1"}, InvalidArgument, "bridge"),
        ({"parent": "eth0", "dhcp": "true"}, InvalidArgument, "--ipam-driver null"),
    ],
)
def test_mistakes_are_told(
    rig: Rig, options: dict[str, str], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        rig.create(FOUR, **options)


def test_an_internal_network_with_a_parent_is_refused(rig: Rig) -> None:
    with pytest.raises(InvalidArgument, match="leave out --internal"):
        rig.create(FOUR, internal=True, parent="eth0")


def test_a_parent_that_is_down_is_told(rig: Rig) -> None:
    with Netlink(rig.lan.host) as netlink:
        netlink.set_link("eth0", attributes={}, up=False)
    with pytest.raises(FailedPrecondition, match="ip link set eth0 up"):
        rig.create(FOUR, parent="eth0")


def test_a_parent_in_a_bridge_is_in_use(rig: Rig) -> None:
    with Netlink(rig.lan.host) as netlink:
        netlink.bridge("br0")
        netlink.set_link("eth0", attributes={"IFLA_MASTER": netlink.index("br0")})
    with pytest.raises(InUse, match="port of a bridge"):
        rig.create(FOUR, parent="eth0")
    with Netlink(rig.lan.host) as netlink:
        netlink.delete_link("br0")


def add_host_address(rig: Rig, text: str) -> None:
    from ipaddress import ip_interface

    with Netlink(rig.lan.host) as netlink:
        netlink.add_addresses(netlink.index("eth0"), [ip_interface(text)])


def test_the_host_and_its_containers_are_apart_without_host_access(rig: Rig) -> None:
    add_host_address(rig, "192.168.7.5/24")
    two(rig)
    assert not pings(rig.lan.host, "192.168.7.10", tries=1)


def test_host_access_joins_host_and_containers_with_the_hosts_own_address(rig: Rig) -> None:
    add_host_address(rig, "192.168.7.5/24")
    network = rig.create(FOUR, parent="eth0", host_access="true")
    one = rig.join(network, "192.168.7.10/24")
    assert pings(rig.lan.host, "192.168.7.10")
    assert pings(one.netns, "192.168.7.5")
    assert pings(one.netns, "192.168.7.1")
    route = in_namespace(rig.lan.host, "ip", "route", "get", "192.168.7.10").stdout
    assert re.search(r"dev mh-\w+ src 192\.168\.7\.5", route)
    rig.leave(one)
    assert "192.168.7.10" not in in_namespace(rig.lan.host, "ip", "route").stdout
    rig.call("network_delete", network)
    assert rig.links() == {"eth0"}


def test_with_host_access_the_lan_hears_of_one_link_of_the_host_only(rig: Rig) -> None:
    # With a second link answering, the lan would send to it what rp_filter then drops.
    add_host_address(rig, "192.168.7.5/24")
    network = rig.create(FOUR, parent="eth0", host_access="true")
    rig.join(network, "192.168.7.10/24")
    said = in_namespace(
        rig.lan.other, "busybox", "arping", "-c", "3", "-w", "3", "-I", "far", "192.168.7.5",
        check=False,
    ).stdout  # fmt: skip
    with Netlink(rig.lan.host) as netlink:
        parent = netlink.link("eth0")
    assert parent is not None
    assert {mac.lower() for mac in re.findall(r"\[([0-9a-f:]{17})\]", said)} == {parent.mac}


def test_host_access_uses_the_auxiliary_addresses_named_host(rig: Rig) -> None:
    four = subnet("192.168.7.0/24", "192.168.7.1", {"host": "192.168.7.250"})
    six = subnet("fd07::/64", "fd07::1", {"host6": "fd07::250"})
    network = rig.create(four, six, parent="eth0", host_access="true")
    one = rig.join(network, "192.168.7.10/24", "fd07::10/64")
    for source, target in (
        (rig.lan.host, "192.168.7.10"),
        (rig.lan.host, "fd07::10"),
        (one.netns, "192.168.7.250"),
        (one.netns, "fd07::250"),
    ):
        assert pings(source, target), target
    with pytest.raises(InvalidArgument, match="host6"):
        rig.create(FOUR, SIX, parent="eth0", host_access="true")


def test_a_driver_that_starts_after_a_crash_restores_and_sweeps(rig: Rig) -> None:
    add_host_address(rig, "192.168.7.5/24")
    network = rig.create(FOUR, parent="eth0", host_access="true")
    gone = rig.create(subnet("10.9.0.0/24"))
    closed = rig.create(subnet("10.8.0.0/24"))
    one = rig.join(network, "192.168.7.10/24")
    inner = rig.join(closed, "10.8.0.2/24")
    with Netlink(rig.lan.host) as netlink:
        netlink.delete_link(next(name for name in rig.links() if name.startswith("mh-")))
    after = rig.restarted()
    after.sync(
        NetworkState(network, ((one.endpoint, ()),)), NetworkState(closed, ((inner.endpoint, ()),))
    )
    assert pings(rig.lan.host, "192.168.7.10")
    names = rig.links()
    assert f"mc-{gone.id[:12]}" not in names
    other = after.join(closed, "10.8.0.3/24")
    assert pings(inner.netns, other.ip), "the closed parent is the one that was there"
    eventually(lambda: pings(one.netns, "192.168.7.1"), "the container was not touched")
