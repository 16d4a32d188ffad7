"""Three overlay hosts, of which one is cut off until its addresses are given to others."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from tests.overlay import Cluster, container, reaches, settles

from drivetrain.testing.hosts import Host, eventually


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with Cluster(3, "addresses.ttl=8s") as cluster:
        yield cluster
        cluster.clear()


def shown(host: Host) -> dict[str, tuple[str, str]]:
    """Return name, address and hardware address of everyone on the network, as a host sees it."""
    found = json.loads(host.docker("network", "inspect", "net").stdout)[0]["Containers"].values()
    return {each["Name"]: (each["IPv4Address"], each["MacAddress"]) for each in found}


def started(host: Host, name: str, *words: str) -> bool:
    """Whether a container starts now."""
    run = ("run", "-d", "--name", name, "--network", "net", *words, "busybox", "sleep", "3600")
    if host.docker(*run, check=False).returncode == 0:
        return True
    host.docker("rm", "-f", name)
    return False


def test_cut_off_until_its_leases_ended_while_a_host_dies_and_etcd_is_restarted(
    cluster: Cluster,
) -> None:
    one, two, three = cluster.hosts
    one.docker("network", "create", "-d", "overlay", "--subnet", "10.80.0.0/29", "net")
    container(one, "c0", "net", "--ip", "10.80.0.2")
    container(two, "c1", "net", "--ip", "10.80.0.3")
    beside = container(three, "c3", "net", "--ip", "10.80.0.6")
    lost = container(three, "c2", "net")
    settles(one, "c0", "c2")
    cluster.cut(2)
    # Its addresses are nobody's when their lease ended, and not before: another host gets one.
    assert not started(one, "thief", "--ip", lost)
    eventually(lambda: started(one, "thief", "--ip", lost), "the address is given to another")
    assert "endpoints stop" in three.log_tail(200), "the host stopped by itself, and before"
    # Meanwhile another host dies, and etcd is restarted.
    two.kill()
    cluster.cut(1)
    cluster.etcd.stop()
    cluster.etcd.start()
    settles(one, "c0", "thief")
    cluster.mend(1)
    cluster.start(1)
    cluster.mend(2)
    eventually(lambda: "lost its address" in three.log_tail(200), "the third host knows")
    everyone = {"c0", "c1", "c3", "thief"}
    for host in (one, two):
        eventually(lambda host=host: set(shown(host)) == everyone, "all that are there are known")
    assert shown(one) == shown(two)
    addresses = [address for address, _ in shown(one).values()]
    assert len(set(addresses)) == len(addresses)
    # Traffic and names: everyone reaches everyone, and the address leads to who has it now.
    for host, name in ((one, "c0"), (two, "c1"), (three, "c3")):
        for target in sorted(everyone - {name}):
            settles(host, name, target)
        neighbours = host.docker("exec", name, "ip", "neigh", "show", lost).stdout
        assert shown(one)["thief"][1] in neighbours
    assert not reaches(three, "c2", beside)
    assert not reaches(three, "c2", "c0")
    # Started again it has an address of its own, and is one of them.
    three.docker("restart", "-t", "0", "c2")
    for host, name in ((one, "c0"), (two, "c1"), (three, "c3")):
        settles(host, name, "c2")
    assert lost not in shown(three)["c2"][0]
    full = one.docker("run", "--rm", "--network", "net", "busybox", "true", check=False)
    assert "no available addresses" in full.stderr
