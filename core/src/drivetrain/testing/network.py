"""The conformance kit of network drivers, with real namespaces and real packets.

Three lines make a suite::

    from drivetrain.testing.network import NetworkConformance

    class TestMine(NetworkConformance):
        driver = "mine"

Each check has a host of its own with an uplink (``uplink0``) to a world outside; see
:mod:`drivetrain.testing.netlab` for the addresses. What the driver says of itself in its traits
decides which checks are collected. A driver whose containers are on the uplink's own segment says
so, and names the parent::

    class TestOnAParent(NetworkConformance):
        driver = "mine"
        options = {"parent": UPLINK}
        on_parent = True
"""

from __future__ import annotations

import threading
from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network

import pytest

from drivetrain.calling import Driver
from drivetrain.errors import EngineError, InvalidArgument
from drivetrain.network import (
    Network,
    NetworkHooks,
    NetworkTraits,
)
from drivetrain.testing.base import when
from drivetrain.testing.hosts import eventually
from drivetrain.testing.netlab import (
    HOST4,
    HOST6,
    SILENCE,
    UPLINK,
    WORLD4,
    WORLD6,
)
from drivetrain.testing.netscene import Container, NetworkScene

__all__ = ["UPLINK", "Container", "NetworkConformance", "NetworkScene"]


def _traits(driver: Driver[NetworkHooks]) -> NetworkTraits:
    return driver.call.network_traits()


def _makes_networks(driver: Driver[NetworkHooks]) -> bool:
    traits = _traits(driver)
    return traits.addresses and not traits.single


def _publishes(driver: Driver[NetworkHooks]) -> bool:
    return _makes_networks(driver) and _traits(driver).ports


def _single(driver: Driver[NetworkHooks]) -> bool:
    return _traits(driver).single


networks = when(_makes_networks)
publishes = when(_publishes)


class NetworkConformance(NetworkScene):
    """What every network driver has to do; see ``drivetrain.network``."""

    def left(self, before: set[str]) -> None:
        """Check that the host has what it had; the kernel reaps namespaces in its own time."""
        eventually(lambda: self.lab.traces() == before, "nothing is left on the host", 20)

    # what it says of itself

    def test_traits_are_valid_and_stay(self) -> None:
        traits = self.instance.call.network_traits()
        assert traits.sandbox in ("own", "host")
        assert traits.scope in ("local", "global")
        assert traits == self.instance.call.network_traits()

    def test_options_have_unique_names_and_a_help(self) -> None:
        call = self.instance.call
        for schema in (call.network_driver_options(), call.network_options(),
                       call.endpoint_options()):  # fmt: skip
            names = [option.name for option in schema]
            assert len(set(names)) == len(names)
            assert all(option.help for option in schema if option.retired is None)

    def test_an_unknown_option_is_named(self) -> None:
        with pytest.raises(InvalidArgument, match="no-such-option"):
            self.parsed(self.instance, "network_options", {"no-such-option": "1"})

    def test_the_status_is_pairs_of_texts(self) -> None:
        for key, value in self.instance.call.network_status():
            assert isinstance(key, str)
            assert isinstance(value, str)

    def test_closing_twice_is_fine(self) -> None:
        self.instance.call.network_close()

    @when(_single)
    def test_the_only_network_joins_containers_without_a_trace(self) -> None:
        before = self.lab.traces()
        network = self.network()
        container = self.container(network)
        with container.place.netlink() as inside:
            names = {link.name for link in inside.links() if link.up}
        assert names == {"lo"}
        container.remove()
        self.left(before)

    # making and removing

    @networks
    def test_a_removed_network_leaves_nothing(self) -> None:
        links = self.lab.links()
        self.instance.call.network_delete(self._used_once())
        eventually(lambda: self.lab.links() == links, "the links are gone", 20)
        before = self.lab.traces()
        network = self._used_once()
        self.instance.call.network_delete(network)
        self.left(before)

    def _used_once(self) -> Network:
        network = self.plan(1)
        self.instance.call.network_create(network)
        container = self.container(network)
        if _traits(self.instance).ports:
            container.publish(8080)
        container.remove()
        self.containers.remove(container)
        return network

    @networks
    def test_a_creation_that_is_repeated_after_a_crash_is_fine(self) -> None:
        network = self.network()
        self.instance.call.network_create(network)
        one, two = self.container(network, 10), self.container(network, 11)
        assert one.place.pings(two.address(network.subnets[0].prefix.version))

    @networks
    def test_removing_what_is_gone_is_fine(self) -> None:
        network = self.plan()
        self.instance.call.network_delete(network)
        container = self.container(network, join=False)
        container.leave()
        self.instance.call.endpoint_delete(network, container.endpoint)

    @networks
    def test_networks_are_made_and_removed_at_once(self) -> None:
        plans = [self.plan(number) for number in range(1, 6)]
        before = self.lab.traces()
        faults: list[BaseException] = []

        def use(network: Network) -> None:
            try:
                self.instance.call.network_create(network)
                self.instance.call.network_delete(network)
            except BaseException as error:
                faults.append(error)

        threads = [
            threading.Thread(target=lambda n=network: self.lab.host.run(lambda: use(n)))
            for network in plans
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not faults
        links = {trace for trace in self.lab.traces() if not trace.startswith("rule ")}
        assert links == {trace for trace in before if not trace.startswith("rule ")}

    # joining

    @networks
    def test_a_joined_link_has_name_address_and_hardware_address(self) -> None:
        network = self.network()
        container = self.container(network, interface="wanted7", mac="02:42:0a:0b:0c:0d")
        with container.place.netlink() as inside:
            link = inside.link("wanted7")
            assert link is not None
            found = {address for _, address in inside.addresses(link.index)}
        assert set(container.endpoint.addresses) <= found
        assert link.up
        assert container.link.addresses or link.mac in ("02:42:0a:0b:0c:0d", self.uplink_mac())

    def uplink_mac(self) -> str:
        """Return the uplink's hardware address: ipvlan links share it."""
        with self.lab.host.netlink() as host:
            found = host.link(UPLINK)
        return found.mac if found else ""

    @networks
    def test_an_address_is_kept_over_leaving_and_joining_again(self) -> None:
        network = self.network()
        one, two = self.container(network, 10), self.container(network, 11)
        version = network.subnets[0].prefix.version
        assert one.place.pings(two.address(version))
        with two.place.netlink() as inside:
            inside.delete_link("eth0")
        two.leave()
        two.join()
        assert one.place.pings(two.address(version))

    @networks
    def test_leaving_twice_and_after_the_sandbox_is_fine(self) -> None:
        network = self.network()
        container = self.container(network)
        container.place.close()
        for _ in range(2):
            container.leave()
        for _ in range(2):
            self.instance.call.endpoint_delete(network, container.endpoint)

    @networks
    def test_a_join_that_fails_leaves_nothing(self) -> None:
        network = self.network()
        container = self.container(network, join=False)
        before = self.lab.traces()
        container.place.close()
        with pytest.raises(EngineError):
            container.join()
        self.left(before)

    @networks
    def test_a_joined_endpoint_may_get_another_name(self) -> None:
        network = self.network()
        one, two = self.container(network, 10), self.container(network, 11)
        for name in ("other", "another"):
            renamed = replace(two.endpoint, names=(name,))
            self.instance.call.endpoint_rename(network, renamed)
        assert one.place.pings(two.address(network.subnets[0].prefix.version))

    # packets

    @networks
    def test_containers_of_a_network_reach_each_other(self) -> None:
        network = self.network()
        one, two = self.container(network, 10), self.container(network, 11)
        for kind in ("tcp", "udp"):
            two.place.serve(kind=kind)
        for version in self.versions:
            address = two.address(version)
            assert one.place.pings(address)
            for kind in ("tcp", "udp"):
                assert one.place.reaches(address, kind=kind) == one.address(version)

    @networks
    @when(lambda driver: True)
    def test_a_network_of_one_ip_version_works(self) -> None:
        for number, version in enumerate(self.versions, 1):
            network = self.network(number, versions=(version,))
            one, two = self.container(network, 10), self.container(network, 11)
            assert one.place.pings(two.address(version))

    @networks
    def test_containers_of_other_networks_are_not_reached(self) -> None:
        here, there = self.network(0), self.network(1)
        one, two, other = self.container(here), self.container(there), self.container(there, 11)
        two.place.serve()
        for version in self.versions:
            other.place.reaches(two.address(version))
            assert one.place.misses(two.address(version))
            assert not one.place.pings(two.address(version), SILENCE)

    @networks
    def test_containers_reach_the_world(self) -> None:
        if not self.outside:
            return
        container = self.container(self.network())
        for kind in ("tcp", "udp"):
            self.lab.world.serve(kind=kind)
        for version in self.versions:
            address = WORLD6 if version == 6 else WORLD4
            assert container.place.pings(address)
            for kind in ("tcp", "udp"):
                assert container.place.reaches(address, kind=kind)

    @networks
    def test_an_internal_network_has_no_way_out_or_in(self) -> None:
        options = {key: "" for key in self.options if key == "parent"}
        network = self.network(1, internal=True, options=options)
        one, two = self.container(network, 10), self.container(network, 11)
        self.lab.world.serve()
        two.place.serve()
        for version in self.versions:
            one.place.reaches(two.address(version))
            assert one.place.misses(WORLD6 if version == 6 else WORLD4)
            self.lab.route_from_world(str(network.subnets[self.versions.index(version)].prefix))
            assert self.lab.world.misses(two.address(version))

    # published ports

    @publishes
    def test_a_published_port_is_reached_from_everywhere(self) -> None:
        here = self.network(0)
        one, two, other = self.container(here), self.container(here, 11), self.container(
            self.network(1))  # fmt: skip
        for kind in ("tcp", "udp"):
            one.place.serve(kind=kind)
            for version in self.versions:
                one.publish(8080, address="::" if version == 6 else "0.0.0.0", protocol=kind)
            for version in self.versions:
                host, world = (HOST6, WORLD6) if version == 6 else (HOST4, WORLD4)
                seen = self.lab.world.reaches(host, 8080, kind=kind)
                assert seen == world, "the client's address is kept"
                self.lab.host.reaches(host, 8080, kind=kind)
                for place in (one.place, two.place, other.place):
                    place.reaches(host, 8080, kind=kind)
        if 4 in self.versions:
            self.lab.host.reaches("127.0.0.1", 8080)

    @publishes
    def test_a_port_is_closed_after_unpublishing_it(self) -> None:
        container = self.container(self.network())
        container.place.serve()
        port = container.publish(8080, address="::" if 4 not in self.versions else "0.0.0.0")
        host = HOST4 if 4 in self.versions else HOST6
        self.lab.world.reaches(host, 8080)
        for _ in range(2):
            self.instance.call.port_unpublish(container.network, container.endpoint, port)
        assert self.lab.world.misses(host, 8080)

    @publishes
    def test_a_port_published_on_loopback_is_the_hosts_own(self) -> None:
        if 4 not in self.versions:
            return
        container = self.container(self.network())
        container.place.serve()
        container.publish(8080, address="127.0.0.1")
        self.lab.host.reaches("127.0.0.1", 8080)
        assert self.lab.world.misses(HOST4, 8080)
        with self.lab.world.netlink() as world:
            world.set_link("lo", attributes={}, up=False)
            world.add_route(world.index("eth0"), ip_network("127.0.0.0/8"), ip_address(HOST4))
        assert self.lab.world.misses("127.0.0.1", 8080)

    @publishes
    def test_a_port_on_one_address_of_the_host_is_on_no_other(self) -> None:
        with self.lab.host.netlink() as host:
            host.add_addresses(host.index(UPLINK), [ip_interface("192.0.2.9/24")])
        container = self.container(self.network())
        container.place.serve()
        container.publish(8080, address="192.0.2.9")
        self.lab.world.reaches("192.0.2.9", 8080)
        assert self.lab.world.misses(HOST4, 8080)

    # restarts

    @networks
    def test_containers_go_on_over_a_restart(self) -> None:
        network = self.network()
        one, two = self.container(network, 10), self.container(network, 11)
        version = self.versions[0]
        two.place.serve()
        if _traits(self.instance).ports:
            two.publish(8080, address="::" if version == 6 else "0.0.0.0")
        self.restarted()
        one.place.reaches(two.address(version))
        if _traits(self.instance).ports:
            self.lab.world.reaches(HOST6 if version == 6 else HOST4, 8080)
        third = self.container(network, 12)
        third.place.reaches(two.address(version))

    @networks
    def test_what_should_not_exist_is_gone_after_a_restart(self) -> None:
        kept = self.network(1)
        self.restarted()
        before = {trace for trace in self.lab.traces() if not trace.startswith("rule ")}
        self.instance.call.network_create(self.plan(2))
        self.restarted()
        after = {trace for trace in self.lab.traces() if not trace.startswith("rule ")}
        assert after == before
        self.container(kept)

    @networks
    def test_rules_that_somebody_flushed_come_back(self) -> None:
        from drivetrain.host.nft import Nft

        network = self.network()
        container = self.container(network)
        version = self.versions[0]
        host = HOST6 if version == 6 else HOST4
        if _traits(self.instance).ports:
            container.place.serve()
            container.publish(8080, address="::" if version == 6 else "0.0.0.0")
            self.lab.world.reaches(host, 8080)
        before = self.lab.traces()
        nft = Nft(self.lab.host.path)
        nft.run("flush ruleset")
        nft.close()
        self.synchronize()
        self.left(before)
        if _traits(self.instance).ports:
            self.lab.world.reaches(host, 8080)
