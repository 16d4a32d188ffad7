"""The ipvlan driver on a real network; and VLANs as parents of ipvlan and macvlan."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from ipaddress import ip_address, ip_interface, ip_network

import pytest
from tests.lan import (
    Container,
    Lan,
    Rig,
    in_namespace,
    multicast_heard,
    pings,
    subnet,
    vlan,
    vlan_of_next,
)

from drivetrain.errors import InUse, InvalidArgument
from drivetrain.host import namespaces
from drivetrain.host.netlink import Netlink
from drivetrain.network import NetworkState

FOUR = subnet("192.168.7.0/24", "192.168.7.1")
SIX = subnet("fd07::/64", "fd07::1")
ROUTER = ("192.168.7.1/24", "fd07::1/64")


@pytest.fixture
def lan() -> Iterator[Lan]:
    with Lan(None, *ROUTER) as made:
        yield made


@pytest.fixture(params=["macvlan", "ipvlan"])
def either(request: pytest.FixtureRequest, lan: Lan) -> Iterator[Rig]:
    yield from _rig(lan, request.param)


@pytest.fixture
def rig(lan: Lan) -> Iterator[Rig]:
    yield from _rig(lan, "ipvlan")


def _rig(lan: Lan, driver: str) -> Iterator[Rig]:
    made = Rig(lan, driver)
    yield made
    made.sync()
    assert made.links() - {"eth0.77"} == {"eth0"}
    assert not namespaces.is_namespace(made.root / "void")


def two(rig: Rig, **options: str) -> tuple[Container, Container]:
    network = rig.create(FOUR, SIX, parent="eth0", **options)
    return (
        rig.join(network, "192.168.7.10/24", "fd07::10/64"),
        rig.join(network, "192.168.7.11/24", "fd07::11/64"),
    )


def test_l2_containers_reach_the_lan_and_each_other(rig: Rig) -> None:
    rig.call("network_probe")
    one, other = two(rig)
    for target in ("192.168.7.1", "fd07::1", "192.168.7.11", "fd07::11"):
        assert pings(one.netns, target), target
    assert pings(rig.lan.other, "192.168.7.11")
    assert multicast_heard(one, other) == [True]
    with Netlink(rig.lan.host) as netlink:
        parent = netlink.link("eth0")
    assert parent is not None
    assert one.link.mac == other.link.mac == parent.mac


@pytest.mark.parametrize("flag", ["private", "vepa"])
def test_l2_containers_with_a_flag_reach_the_lan_but_not_each_other(rig: Rig, flag: str) -> None:
    one, _ = two(rig, ipvlan_flag=flag)
    assert pings(one.netns, "192.168.7.1")
    assert not pings(one.netns, "192.168.7.11", tries=1)


@pytest.mark.parametrize("mode", ["l3", "l3s"])
def test_routed_containers_have_a_default_route_on_the_link(rig: Rig, mode: str) -> None:
    # No neighbours: the lan needs routes that lead by the host's address.
    with Netlink(rig.lan.host) as near, Netlink(rig.lan.other) as far:
        addresses = [ip_interface("192.168.7.5/24"), ip_interface("fd07::5/64")]
        near.add_addresses(near.index("eth0"), addresses)
        index = far.index("far")
        for prefix, gateway in (("10.50.0.0/16", "192.168.7.5"), ("fd50::/48", "fd07::5")):
            to, via = ip_network(prefix), ip_address(gateway)
            far.add_route(index, to, via, version=to.version)
    for name in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
        in_namespace(rig.lan.host, "sh", "-c", f"echo 1 >/proc/sys/net/{name}")
    first, second = subnet("10.50.1.0/24", "10.50.1.1"), subnet("10.50.2.0/24", "10.50.2.1")
    network = rig.create(first, second, subnet("fd50::/64"), parent="eth0", ipvlan_mode=mode)
    one = rig.join(network, "10.50.1.10/24", "fd50::10/64")
    other = rig.join(network, "10.50.2.10/24", "fd50::11/64")
    assert "default dev eth0" in in_namespace(one.netns, "ip", "route").stdout
    assert "default dev eth0" in in_namespace(one.netns, "ip", "-6", "route").stdout
    for target in ("10.50.2.10", "fd50::11", "192.168.7.1", "fd07::1"):
        assert pings(one.netns, target), target
    assert pings(rig.lan.other, other.ip)
    assert multicast_heard(one, other) == [False], "broadcast and multicast do not pass in l3"


def test_a_parent_belongs_to_one_ipvlan_network(rig: Rig) -> None:
    network = rig.create(FOUR, parent="eth0")
    with pytest.raises(InUse, match=r"belongs to network .* several --subnet"):
        rig.create(SIX, parent="eth0")
    macvlan = Rig(rig.lan, "macvlan")
    rig.join(network, "192.168.7.10/24")
    with pytest.raises(InUse, match="carries links of ipvlan"):
        macvlan.create(SIX, parent="eth0")


def test_a_parent_of_macvlan_links_takes_no_ipvlan(rig: Rig) -> None:
    macvlan = Rig(rig.lan, "macvlan")
    macvlan.join(macvlan.create(FOUR, parent="eth0"), "192.168.7.10/24")
    with pytest.raises(InUse, match="carries links of macvlan"):
        rig.create(SIX, parent="eth0")


def test_several_subnets_are_one_network_in_l2(rig: Rig) -> None:
    with Netlink(rig.lan.other) as far:
        far.add_addresses(far.index("far"), [ip_interface("192.168.8.1/24")])
    network = rig.create(FOUR, subnet("192.168.8.0/24", "192.168.8.1"), parent="eth0")
    one, other = rig.join(network, "192.168.7.10/24"), rig.join(network, "192.168.8.10/24")
    assert [str(gateway) for gateway in other.link.gateways] == ["192.168.8.1"]
    assert pings(other.netns, "192.168.8.1")
    assert pings(one.netns, "192.168.7.1")


def test_without_a_parent_containers_reach_each_other_and_nothing_else(rig: Rig) -> None:
    with Netlink(rig.lan.host) as netlink:
        netlink.add_addresses(netlink.index("eth0"), [ip_interface("192.168.7.5/24")])
    network = rig.create(FOUR, internal=True)
    one, other = rig.join(network, "192.168.7.10/24"), rig.join(network, "192.168.7.11/24")
    assert pings(one.netns, other.ip)
    assert one.link.gateways == ()
    assert not pings(one.netns, "192.168.7.5", tries=1)


def test_a_container_that_starts_again_at_once_gets_its_address(rig: Rig) -> None:
    one, _ = two(rig)
    for _ in range(3):
        rig.leave(one)
        one = rig.join_again(one.network, one.endpoint)
        assert pings(one.netns, "192.168.7.1")


def test_an_address_that_is_taken_on_the_parent_is_told(rig: Rig) -> None:
    one, _ = two(rig)
    with pytest.raises(InUse, match="has this address already"):
        rig.join(one.network, "192.168.7.10/24")


def test_mistakes_are_told(rig: Rig) -> None:
    with pytest.raises(InvalidArgument, match="one of l2, l3, l3s is needed"):
        rig.create(FOUR, parent="eth0", ipvlan_mode="l4")
    with pytest.raises(InvalidArgument, match="there are: eth0"):
        rig.create(FOUR, parent="eth9")


def test_a_vlan_parent_is_made_at_first_use_and_tags_on_the_wire(either: Rig) -> None:
    vlan(either.lan, 50, "192.168.50.1/24", "fd50::1/64")
    sniffer = either.lan.sniff()
    network = either.create(
        subnet("192.168.50.0/24", "192.168.50.1"), subnet("fd50::/64"), parent="eth0.50"
    )
    assert "eth0.50" in either.links()
    one = either.join(network, "192.168.50.10/24", "fd50::10/64")
    assert pings(one.netns, "192.168.50.1")
    assert pings(one.netns, "fd50::1")

    def shout() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"needle", ("192.168.50.1", 9))

    namespaces.run_in(one.netns, shout)
    assert vlan_of_next(sniffer, b"needle") == 50
    sniffer.close()
    either.leave(one)
    either.call("network_delete", network)
    assert either.links() == {"eth0"}


def test_the_last_user_of_a_vlan_takes_it_down_and_vlans_are_apart(lan: Lan) -> None:
    rig = Rig(lan, "macvlan")
    first = rig.create(subnet("10.60.1.0/24"), parent="eth0.60")
    second = rig.create(subnet("10.60.2.0/24"), parent="eth0.60")
    other = rig.create(subnet("10.61.0.0/24"), parent="eth0.61")
    one, two_ = rig.join(first, "10.60.1.2/24"), rig.join(second, "10.60.1.3/24")
    apart = rig.join(other, "10.60.1.4/24")
    assert pings(one.netns, two_.ip)
    assert not pings(one.netns, apart.ip, tries=1)
    for container in (one, two_, apart):
        rig.leave(container)
    rig.call("network_delete", first)
    assert rig.links() == {"eth0", "eth0.60", "eth0.61"}
    rig.call("network_delete", second)
    assert rig.links() == {"eth0", "eth0.61"}
    after = rig.restarted()
    after.sync(NetworkState(other))
    assert after.links() == {"eth0", "eth0.61"}
    after.call("network_delete", other)
    assert after.links() == {"eth0"}


def test_a_vlan_that_the_user_made_survives(either: Rig) -> None:
    with Netlink(either.lan.host) as netlink:
        netlink.stack("eth0.77", "vlan", netlink.index("eth0"), data={"IFLA_VLAN_ID": 77})
    network = either.create(FOUR, parent="eth0.77")
    either.call("network_delete", network)
    assert either.links() == {"eth0", "eth0.77"}
    with pytest.raises(InvalidArgument, match=r"eth9\.5 does not exist"):
        either.create(FOUR, parent="eth9.5")


def test_a_vlan_that_is_gone_is_made_again_for_the_next_container(either: Rig) -> None:
    vlan(either.lan, 50, "192.168.50.1/24")
    network = either.create(subnet("192.168.50.0/24"), parent="eth0.50")
    with Netlink(either.lan.host) as netlink:
        netlink.delete_link("eth0.50")
    assert pings(either.join(network, "192.168.50.10/24").netns, "192.168.50.1")


def test_a_network_that_cannot_be_made_leaves_no_vlan(either: Rig) -> None:
    with pytest.raises(InvalidArgument, match="more than the 1500"):
        either.create(FOUR, parent="eth0.50", **{"com.docker.network.driver.mtu": "9000"})
    assert either.links() == {"eth0"}
