"""An ipvlan network on a VLAN, as a user of the engine has it."""

from __future__ import annotations

import json
from pathlib import Path

from tests.lan import Lan, pings, vlan

from drivetrain.host.netlink import Netlink
from drivetrain.testing.hosts import Host


def test_containers_on_ipvlan_over_a_vlan_reach_it_and_outlive_the_daemon() -> None:
    with Host() as host, Lan(Path("/run/netns") / host.netns) as lan:
        vlan(lan, 50, "192.168.50.1/24")
        host.start()
        host.load_busybox()
        # Docker's client, since Python takes its time to start on an emulated machine.
        host.docker(
            "network", "create", "-d", "ipvlan", "-o", "parent=eth0.50", "-o", "ipvlan_mode=l2",
            "--subnet", "192.168.50.0/24", "--gateway", "192.168.50.1", "lan",
        )  # fmt: skip
        run = ("run", "-d", "--network", "lan", "--name")
        host.docker(*run, "one", "busybox", "sleep", "600")
        host.docker(*run, "two", "--ip", "192.168.50.77", "busybox", "sleep", "600")
        with Netlink(lan.host) as near:
            parent = near.link("eth0.50")
        assert parent is not None
        shown = json.loads(host.docker("inspect", "one").stdout)[0]["NetworkSettings"]["Networks"]
        assert shown["lan"]["IPAddress"] == "192.168.50.2"
        assert shown["lan"]["MacAddress"] == parent.mac, "an ipvlan link has that of its parent"
        host.docker("exec", "one", "ping", "-c", "1", "two")
        host.docker("exec", "one", "ping", "-c", "1", "192.168.50.1")
        assert pings(lan.other, "192.168.50.77")
        host.kill()
        assert pings(lan.other, "192.168.50.77")
        host.start()
        host.docker("restart", "-t", "0", "two")
        assert pings(lan.other, "192.168.50.77")
        host.docker("rm", "-f", "one", "two")
        host.docker("network", "rm", "lan")
        with Netlink(lan.host) as near:
            assert {link.name for link in near.links()} == {"lo", "eth0", "engine0"}
