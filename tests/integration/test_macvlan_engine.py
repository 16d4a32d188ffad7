"""Macvlan networks through the engine: what a user types, and what a container gets."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.dhcp import serve
from tests.lan import Lan, in_namespace, pings

from drivetrain.host.netlink import Netlink
from drivetrain.testing.hosts import Host, eventually


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with Host() as made:
        made.start()
        made.load_busybox()
        yield made


@pytest.fixture(scope="module")
def lan(host: Host) -> Iterator[Lan]:
    with Lan(Path("/run/netns") / host.netns, "192.168.7.1/24", "fd07::1/64") as made:
        yield made


def links(lan: Lan) -> set[str]:
    text = in_namespace(lan.host, "ip", "-o", "link").stdout
    return set(re.findall(r"^\d+: ([^:@]+)", text, re.MULTILINE))


def test_a_container_with_an_address_of_the_lan(host: Host, lan: Lan) -> None:
    before = links(lan)
    host.engine(
        "network", "create", "-d", "macvlan", "-o", "parent=eth0", "-o", "host_access=true",
        "--subnet", "192.168.7.0/24", "--gateway", "192.168.7.1",
        "--aux-address", "host=192.168.7.2", "--aux-address", "printer=192.168.7.3",
        "--ipv6", "--subnet", "fd07::/64", "--gateway", "fd07::1",
        "--aux-address", "host6=fd07::2", "lan",
    )  # fmt: skip
    host.engine("run", "-d", "--name", "one", "--network", "lan", "busybox", "sleep", "600")
    host.engine(
        "run", "-d", "--name", "two", "--network", "lan", "--ip", "192.168.7.77",
        "--ip6", "fd07::77", "busybox", "sleep", "600",
    )  # fmt: skip
    first = json.loads(host.engine("inspect", "one").stdout)[0]["NetworkSettings"]["Networks"]
    assert first["lan"]["IPAddress"] == "192.168.7.4", "the first that is not set aside"
    for target in ("192.168.7.77", "fd07::77"):
        assert pings(lan.other, target)
        assert pings(lan.host, target)
    host.engine("exec", "two", "ping", "-c", "1", "one")
    host.kill()
    assert pings(lan.other, "192.168.7.77"), "a container lives without the daemon"
    host.start()
    assert pings(lan.host, "192.168.7.77")
    host.engine("restart", "-t", "0", "two")
    assert pings(lan.other, "192.168.7.77")
    host.engine("rm", "-f", "one", "two")
    host.engine("network", "rm", "lan")
    assert links(lan) == before


def test_networks_come_and_go_while_a_container_runs(host: Host, lan: Lan) -> None:
    before = links(lan)
    host.engine("network", "create", "-d", "macvlan", "--internal", "--subnet", "10.9.0.0/24", "in")
    host.engine("run", "-d", "--name", "one", "busybox", "sleep", "600")
    host.engine("network", "connect", "--ip", "10.9.0.9", "in", "one")
    host.engine("run", "--rm", "--network", "in", "busybox", "ping", "-c", "1", "10.9.0.9")
    host.engine("network", "disconnect", "in", "one")
    assert "10.9.0" not in host.engine("exec", "one", "ip", "address").stdout
    host.engine("rm", "-f", "one")
    host.engine("network", "rm", "in")
    assert links(lan) == before


def test_a_mac_address_is_kept_but_for_passthru_where_it_is_the_parents(
    host: Host, lan: Lan
) -> None:
    create = ("network", "create", "-d", "macvlan", "-o", "parent=eth0")
    host.engine(*create, "--subnet", "192.168.7.0/24", "lan")
    run = ("run", "--rm", "--mac-address", "02:00:00:00:00:07", "--network")
    said = host.engine(*run, "lan", "busybox", "ip", "link", "show", "eth0").stdout
    assert "02:00:00:00:00:07" in said
    host.engine("network", "rm", "lan")
    host.engine(*create, "-o", "macvlan_mode=passthru", "--subnet", "192.168.7.0/24", "alone")
    refused = host.engine(*run, "alone", "busybox", "true", check=False)
    assert refused.returncode != 0
    assert "leave out --mac-address" in refused.stderr
    said = host.engine("run", "--rm", "--network", "alone", "busybox", "ip", "link").stdout
    with Netlink(lan.host) as netlink:
        parent = netlink.link("eth0")
    assert parent is not None
    assert parent.mac in said
    host.engine("network", "rm", "alone")


def test_an_address_by_dhcp_is_shown_and_its_client_lives_without_the_daemon(
    host: Host, lan: Lan
) -> None:
    with serve(lan):
        host.engine(
            "network", "create", "-d", "macvlan", "--ipam-driver", "null", "-o", "parent=eth0",
            "-o", "dhcp=true", "lan",
        )  # fmt: skip
        host.engine("run", "-d", "--name", "one", "--network", "lan", "busybox", "sleep", "600")
        address = json.loads(host.engine("inspect", "one").stdout)[0]["NetworkSettings"][
            "Networks"
        ]["lan"]["IPAddress"]
        assert address.startswith("192.168.7.1")
        assert pings(lan.other, address)
        assert "default via 192.168.7.1" in host.engine("exec", "one", "ip", "route").stdout
        clients = [pid for pid, command in host.processes() if "udhcpc" in command]
        assert len(clients) == 1
        host.kill()
        host.start()
        assert [pid for pid, command in host.processes() if "udhcpc" in command] == clients
        host.engine("rm", "-f", "one")
        eventually(
            lambda: not [pid for pid, command in host.processes() if "udhcpc" in command],
            "the client is gone",
        )
        host.engine("network", "rm", "lan")


def test_the_mistakes_of_a_user_are_told(host: Host, lan: Lan) -> None:
    for options, words in (
        (("-o", "parent=eth5"), "parent eth5 does not exist on this host (there are: "),
        (("-o", "macvlan_mode=brige"), "one of bridge, private, vepa, passthru is needed"),
        (("-o", "parnet=eth0"), "did you mean parent?"),
        (("--internal", "-o", "parent=eth0"), "leave out --internal or the option parent"),
    ):
        done = host.engine("network", "create", "-d", "macvlan", *options, "wrong", check=False)
        assert done.returncode != 0
        assert words in done.stderr
    assert "wrong" not in host.engine("network", "ls").stdout
