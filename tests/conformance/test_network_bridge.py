"""What bridge networks do beyond the conformance kit, by real packets."""

from __future__ import annotations

import re
from ipaddress import ip_interface

import pytest
from tests import firewall_rules

from drivetrain.errors import InUse, InvalidArgument
from drivetrain.host.nft import Nft
from drivetrain.testing.netlab import HOST4, HOST6, SILENCE, UPLINK, WORLD4, WORLD6
from drivetrain.testing.network import NetworkScene

BRIDGE = "com.docker.network.bridge."


class TestBridgeOptions(NetworkScene):
    """What only a bridge does; the kit has the rest."""

    driver = "bridge"

    def test_a_containers_address_is_not_reached_past_its_published_ports(self) -> None:
        network = self.network()
        container = self.container(network)
        container.place.serve()
        container.publish(8080)
        for subnet in network.subnets:
            self.lab.route_from_world(str(subnet.prefix))
        self.lab.world.reaches(HOST4, 8080)
        for version in (4, 6):
            assert self.lab.world.misses(container.address(version))
            assert not self.lab.world.pings(container.address(version), SILENCE)
            self.lab.host.reaches(container.address(version))

    def test_what_leaves_has_the_hosts_address_unless_it_is_told_otherwise(self) -> None:
        world = self.lab.world.serve()
        with self.lab.host.netlink() as host:
            own_too = ip_interface("192.0.2.7/24"), ip_interface("2001:db8:7::7/128")
            host.add_addresses(host.index(UPLINK), own_too)
        self.lab.route_from_world("2001:db8:7::/64")
        own = {f"{BRIDGE}enable_ip_masquerade": "false"}
        chosen = {"com.docker.network.host_ipv4": "192.0.2.7",
                  "com.docker.network.host_ipv6": "2001:db8:7::7"}  # fmt: skip
        for number, options in enumerate(({}, own, chosen)):
            network = self.network(number, options=options)
            container = self.container(network)
            for subnet in network.subnets:
                self.lab.route_from_world(str(subnet.prefix))
            container.place.reaches(WORLD4)
            container.place.reaches(WORLD6)
        assert world.clients == [HOST4, HOST6, "10.101.0.10", "fd00:101::a",
                                 "192.0.2.7", "2001:db8:7::7"]  # fmt: skip

    @pytest.mark.parametrize("mode", ["routed", "nat-unprotected"])
    def test_containers_of_open_networks_are_reached_by_their_own_address(self, mode: str) -> None:
        options = {f"{BRIDGE}gateway_mode_ipv{version}": mode for version in (4, 6)}
        network = self.network(options=options)
        container = self.container(network)
        for port in (80, 81):
            container.place.serve(port)
        host_port = 0 if mode == "routed" else 8080
        policy = self.instance.call.port_policy(network)
        assert policy.translated == (() if mode == "routed" else (4, 6))
        for version in (4, 6):
            container.publish(host_port, address="::" if version == 6 else "0.0.0.0")
            self.lab.route_from_world(str(network.subnets[0 if version == 4 else 1].prefix))
            address, world = container.address(version), WORLD4 if version == 4 else WORLD6
            assert self.lab.world.reaches(address) == world
            assert self.lab.world.pings(address)
            assert self.lab.world.misses(address, 81) == (mode == "routed")

    def test_an_isolated_network_has_not_even_the_host_on_it(self) -> None:
        options = {f"{BRIDGE}gateway_mode_ipv{version}": "isolated" for version in (4, 6)}
        network = self.network(internal=True, options=options)
        one, two = self.container(network, 10), self.container(network, 11)
        two.place.serve()
        one.place.reaches(two.address())
        assert self.lab.host.misses(two.address())
        with pytest.raises(InvalidArgument, match="--internal"):
            self.instance.call.network_create(self.plan(1, options=options))

    def test_an_internal_network_does_not_reach_ports_that_others_publish(self) -> None:
        server = self.container(self.network(0))
        server.place.serve()
        inside = self.network(1, internal=True)
        container = self.container(inside)
        for version in (4, 6):
            server.publish(8080, address="::" if version == 6 else "0.0.0.0")
            gateway = str(inside.subnets[0 if version == 4 else 1].gateway)
            self.lab.host.reaches(gateway, 8080)
            assert container.place.misses(gateway, 8080)

    def test_without_icc_containers_meet_only_at_published_ports(self) -> None:
        network = self.network(options={f"{BRIDGE}enable_icc": "false"})
        one, two = self.container(network, 10), self.container(network, 11)
        for port in (80, 81):
            two.place.serve(port)
        for version in (4, 6):
            two.publish(8080, address="::" if version == 6 else "0.0.0.0")
            for port in (80, 81):
                assert one.place.misses(two.address(version), port)
            assert not one.place.pings(two.address(version), SILENCE)
            one.place.reaches(HOST6 if version == 6 else HOST4, 8080)
        self.lab.world.reaches(HOST4, 8080)

    def test_the_users_chain_is_asked_first_and_survives_a_restart(self) -> None:
        container = self.container(self.network())
        container.place.serve()
        container.publish(8080)
        self.lab.world.reaches(HOST4, 8080)
        nft = Nft(self.lab.host.path)
        nft.run(f"add rule inet engine user ip saddr {WORLD4} drop")
        self.restarted()
        assert self.lab.world.misses(HOST4, 8080)
        nft.run("flush chain inet engine user")
        nft.close()
        self.lab.world.reaches(HOST4, 8080)

    def test_another_firewall_of_the_host_is_respected_and_named(self) -> None:
        nft = Nft(self.lab.host.path)
        nft.run(
            "add table inet other; add chain inet other forward "
            "{ type filter hook forward priority filter; policy drop; }"
        )
        container = self.container(self.network())
        container.place.serve()
        container.publish(8080)
        assert self.lab.world.misses(HOST4, 8080)
        status = dict(self.instance.call.network_status())
        assert "inet other forward" in status["Warning"]
        nft.run("add rule inet other forward accept")
        nft.close()
        self.lab.world.reaches(HOST4, 8080)

    def test_a_trusted_interface_reaches_containers_directly(self) -> None:
        options = {f"{BRIDGE}trusted_host_interfaces": UPLINK}
        network = self.network(options=options)
        container = self.container(network)
        container.place.serve()
        container.publish(8080)
        self.lab.route_from_world(str(network.subnets[0].prefix))
        self.lab.world.reaches(container.address())

    def test_without_an_address_of_the_bridge_the_gateway_is_another_machine(self) -> None:
        network = self.network(options={f"{BRIDGE}inhibit_ipv4": "true"})
        gateway, far = self.lab.place("gateway"), "203.0.113.1"
        with self.lab.host.netlink() as host, gateway.netlink() as inside:
            bridge = host.index(f"br-{network.id[:12]}")
            host.veth("gw0", "eth0", namespace=gateway.path, master=bridge)
            inside.configure("eth0", addresses=[ip_interface("10.100.0.1/24")])
            inside.add_addresses(inside.index("lo"), [ip_interface(f"{far}/32")])
            versions = {a.version for _, a in host.addresses(bridge) if not a.ip.is_link_local}
        assert versions == {6}
        gateway.serve()
        container = self.container(network)
        assert container.place.reaches(far) == container.address()
        assert self.lab.host.misses("10.100.0.1")

    def test_a_bridge_is_one_networks(self) -> None:
        network = self.network(options={f"{BRIDGE}name": "shared0"})
        container = self.container(network)
        container.place.serve()
        container.publish(8080)
        other = self.plan(1, options={f"{BRIDGE}name": "shared0"})
        for _ in range(2):
            with pytest.raises(InUse, match="shared0"):
                self.instance.call.network_create(other)
            # As the engine clears up after a crash.
            self.instance.call.network_delete(other)
            self.lab.world.reaches(HOST4, 8080)

    def test_a_bridge_of_the_users_stays_with_its_addresses(self) -> None:
        own = ip_interface("198.51.100.1/24")
        with self.lab.host.netlink() as host:
            host.bridge("mine")
            host.add_addresses(host.index("mine"), [own])
            network = self.plan(options={f"{BRIDGE}name": "mine"})
            self.instance.call.network_create(network)
            self.container(network).remove()
            self.containers.clear()
            self.instance.call.network_delete(network)
            left = [a for _, a in host.addresses(host.index("mine")) if not a.ip.is_link_local]
        assert left == [own]

    def test_the_mtu_is_everywhere(self) -> None:
        network = self.network(options={"com.docker.network.driver.mtu": "1400"})
        container = self.container(network)
        with container.place.netlink() as inside, self.lab.host.netlink() as host:
            found = inside.link("eth0")
            assert found is not None
            assert found.mtu == 1400
            ours = [link.mtu for link in host.links() if link.kind in ("bridge", "veth")
                    and link.name != UPLINK]  # fmt: skip
        assert ours == [1400, 1400]

    @pytest.mark.parametrize(
        ("option", "value"),
        [
            ("com.docker.network.driver.mtu", "10"),
            ("com.docker.network.host_ipv4", "fd00::1"),
            ("com.docker.network.host_ipv6", "10.0.0.1"),
            (f"{BRIDGE}host_binding_ipv4", "everywhere"),
            (f"{BRIDGE}name", "much-too-long-a-name"),
            (f"{BRIDGE}gateway_mode_ipv4", "magic"),
        ],
    )
    def test_a_wrong_option_is_named(self, option: str, value: str) -> None:
        with pytest.raises(InvalidArgument, match=re.escape(option)):
            self.instance.call.network_create(self.plan(options={option: value}))


def test_the_documented_rules_are_those_that_the_bridge_makes() -> None:
    assert firewall_rules.document() == firewall_rules.DOCUMENT.read_text()
