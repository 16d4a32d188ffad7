"""Overlays over three hosts: networks, addresses, names and traffic, and what interrupts them."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.overlay import OUTSIDE, Cluster, address, container, ip, names, reaches, settles

from drivetrain.host import namespaces
from drivetrain.testing.hosts import eventually


@pytest.fixture(scope="module")
def running() -> Iterator[Cluster]:
    with Cluster(3) as cluster:
        yield cluster


@pytest.fixture
def cluster(running: Cluster) -> Iterator[Cluster]:
    yield running
    running.clear()


def test_a_network_made_on_one_host_is_good_on_all(cluster: Cluster) -> None:
    one, two, three = cluster.hosts
    one.docker("network", "create", "-d", "overlay", "--attachable", "--label", "a=b", "net")
    found = {}
    for host in cluster.hosts:
        eventually(lambda host=host: names(host) == ["net"], "the network is known")
        shown = json.loads(host.docker("network", "inspect", "net").stdout)[0]
        found[shown["Id"], shown["IPAM"]["Config"][0]["Subnet"], shown["Created"]] = shown
    assert len(found) == 1
    ((_, shown),) = found.items()
    assert (shown["Scope"], shown["Attachable"]) == ("global", True)
    assert shown["Labels"] == {"a": "b"}
    addresses = [container(host, f"c{n}", "net") for n, host in enumerate(cluster.hosts)]
    assert len(set(addresses)) == 3
    for number, host in enumerate(cluster.hosts):
        for other in range(3):
            settles(host, f"c{number}", addresses[other])
            settles(host, f"c{number}", f"c{other}")
    listener = "nc -l -p 80 -e echo hello"
    two.docker("exec", "-d", "c1", "sh", "-c", listener)
    eventually(
        lambda: one.docker("exec", "c0", "nc", "c1", "80", check=False).stdout == "hello\n",
        "TCP between hosts",
    )
    shown = json.loads(three.docker("network", "inspect", "net").stdout)[0]
    assert {c["Name"] for c in shown["Containers"].values()} == {"c0", "c1", "c2"}
    assert {peer["IP"] for peer in shown["Peers"]} == {address(0), address(1)}
    lookup = three.docker("exec", "c2", "nslookup", addresses[0])
    assert "c0.net" in lookup.stdout
    mtu = three.docker("exec", "c2", "cat", "/sys/class/net/eth0/mtu")
    assert mtu.stdout == "1450\n"
    big = three.docker("exec", "c2", "ping", "-c1", "-W2", "-s", "1422", addresses[0])
    assert " 0% packet loss" in big.stdout
    used = three.docker("network", "rm", "net", check=False)
    assert used.returncode != 0
    assert "active endpoints" in used.stderr
    for number, host in enumerate(cluster.hosts):
        host.docker("rm", "-f", f"c{number}")
    three.docker("network", "rm", "net")
    eventually(lambda: names(one) == [], "the network is gone from the host that made it")
    links = ip("-n", one.netns, "-br", "link")
    assert "ov-" not in links
    assert not list((one.data_root / "networks/overlay/segments").iterdir())


def test_a_name_and_a_subnet_are_taken_in_the_whole_cluster(cluster: Cluster) -> None:
    one, two, _ = cluster.hosts
    one.docker("network", "create", "-d", "overlay", "--subnet", "10.77.0.0/16", "net")
    again = two.docker("network", "create", "-d", "overlay", "net", check=False)
    assert "already exists" in again.stderr
    overlapping = two.docker(
        "network", "create", "-d", "overlay", "--subnet", "10.77.3.0/24", "other", check=False
    )
    assert "overlaps with other one on this address space" in overlapping.stderr
    two.docker("network", "create", "-d", "overlay", "free")
    assert names(two) == ["free", "net"]


def test_containers_started_at_once_on_all_hosts_have_different_addresses(
    cluster: Cluster,
) -> None:
    one = cluster.hosts[0]
    one.docker("network", "create", "-d", "overlay", "--subnet", "10.78.0.0/28", "net")
    found: list[str] = []

    def work(number: int) -> None:
        host = cluster.hosts[number]
        for each in range(4):
            found.append(container(host, f"c{number}{each}", "net"))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == len(set(found)) == 12
    assert "10.78.0.1" not in found
    container(one, "last", "net")
    full = one.docker("run", "--rm", "--network", "net", "busybox", "true", check=False)
    assert "no available addresses" in full.stderr
    static = one.docker(
        "run", "--rm", "--network", "net", "--ip", found[0], "busybox", "true", check=False
    )
    assert "Address already in use" in static.stderr


def test_containers_reach_the_world_and_are_reached_by_published_ports(cluster: Cluster) -> None:
    one, two, _ = cluster.hosts
    one.docker("network", "create", "-d", "overlay", "--ipv6", "net")
    one.docker("network", "create", "-d", "overlay", "--internal", "inner")
    serve = "while true; do nc -l -p 80 -e echo hello; done"
    one.docker("run", "-d", "--name", "web", "--network", "net", "-p", "8080:80", "busybox",
               "sh", "-c", serve)  # fmt: skip
    container(one, "next", "net")
    container(one, "alone", "inner")
    container(two, "far", "net")
    settles(one, "next", OUTSIDE)
    settles(two, "far", OUTSIDE)
    assert not reaches(one, "alone", OUTSIDE)

    def hello(command: list[str], target: str = address(0)) -> bool:
        done = subprocess.run([*command, "busybox", "timeout", "3", "busybox", "nc", target,
                               "8080"], capture_output=True)  # fmt: skip
        return done.stdout == b"hello\n"

    eventually(lambda: hello(cluster.inside), "the port is open to the world")
    for target in (address(0), "127.0.0.1", "::1"):
        eventually(lambda target=target: hello(one.inside, target), f"the host's own {target}")
    for host, name in ((one, "next"), (one, "web"), (two, "far")):
        eventually(
            lambda host=host, name=name: host.docker(
                "exec", name, "timeout", "3", "nc", address(0), "8080", check=False
            ).stdout == "hello\n",
            f"the port is open to {name}",
        )  # fmt: skip
    one.docker("rm", "-f", "web")
    assert not hello(cluster.inside)


def test_networks_are_apart(cluster: Cluster) -> None:
    one, two, _ = cluster.hosts
    one.docker("network", "create", "-d", "overlay", "left")
    one.docker("network", "create", "-d", "overlay", "right")
    container(one, "l1", "left")
    container(two, "r2", "right")
    target = container(two, "l2", "left")
    other = container(one, "r1", "right")
    settles(one, "l1", target)
    settles(two, "r2", other)
    assert not reaches(one, "l1", other)
    assert not reaches(two, "r2", target)
    assert not reaches(one, "l1", "r1")


def test_both_versions_of_ip(cluster: Cluster) -> None:
    one, two, _ = cluster.hosts
    one.docker("network", "create", "-d", "overlay", "--ipv6", "net")
    container(one, "c0", "net")
    container(two, "c1", "net")
    query = "{{range .NetworkSettings.Networks}}{{.GlobalIPv6Address}}{{end}}"
    six = two.docker("inspect", "-f", query, "c1").stdout.strip()
    assert ":" in six
    settles(one, "c0", six)
    settles(one, "c0", "c1")
    two.docker("network", "create", "-d", "overlay", "--ipv6", "-o",
               "com.docker.network.enable_ipv4=false", "six")  # fmt: skip
    for host, name in ((one, "c0"), (two, "c1")):
        host.docker("network", "connect", "six", name)
    query = "{{with .NetworkSettings.Networks.six}}{{.IPAddress}}{{.GlobalIPv6Address}}{{end}}"
    alone = two.docker("inspect", "-f", query, "c1").stdout.strip()
    assert alone.startswith("fd")
    settles(one, "c0", alone)


@pytest.mark.parametrize("target", ["239.1.2.3", "10.79.0.255"], ids=["multicast", "broadcast"])
@pytest.mark.parametrize("asked", ["true", "false"], ids=["asked", "not asked"])
def test_what_goes_to_everyone_reaches_other_hosts_only_when_asked(
    cluster: Cluster, target: str, asked: str
) -> None:
    one, two, three = cluster.hosts
    option = f"com.docker.network.driver.overlay.multicast={asked}"
    subnet = ("--subnet", "10.79.0.0/24")
    one.docker("network", "create", "-d", "overlay", *subnet, "--opt", option, "net")
    spaces = []
    for number, host in enumerate((one, two, three, one)):
        first = container(host, f"c{number}", "net")
        identity = host.docker("inspect", "-f", "{{.Id}}", f"c{number}").stdout.strip()
        spaces.append((host.exec_root / "netns" / identity[:32], first))
    settles(two, "c1", "c0")
    settles(three, "c2", "c0")
    receivers = [namespaces.run_in(space, lambda own=own: receiver(target, own))
                 for space, own in spaces[1:]]  # fmt: skip
    with namespaces.run_in(spaces[0][0], lambda: sender(spaces[0][1])) as out:
        eventually(lambda: out.sendto(b"all", (target, 7777)) and heard(receivers[2]), "here")
    assert [heard(each) for each in receivers[:2]] == [asked == "true"] * 2
    for each in receivers:
        each.close()


def receiver(target: str, own: str) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind(("", 7777))
    made.settimeout(0.5)
    if target.startswith("239."):
        member = socket.inet_aton(target) + socket.inet_aton(own)
        made.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
    return made


def sender(own: str) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    made.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(own))
    return made


def heard(receiver: socket.socket) -> bool:
    try:
        return receiver.recv(100) == b"all"
    except TimeoutError:
        return False


def test_a_daemon_that_is_killed_takes_its_endpoints_up_again(cluster: Cluster) -> None:
    one, two, _ = cluster.hosts
    one.docker("network", "create", "-d", "overlay", "net")
    first = container(one, "c0", "net")
    container(two, "c1", "net")
    settles(two, "c1", "c0")
    one.kill()
    assert reaches(two, "c1", first)
    eventually(lambda: not resolves(cluster, 1, "c1", "c0"), "a host without a daemon is forgotten")
    cluster.start(0)
    settles(two, "c1", "c0")
    settles(one, "c0", "c1")
    third = container(one, "c2", "net")
    assert third != first
    settles(two, "c1", "c2")


def resolves(cluster: Cluster, number: int, name: str, target: str) -> bool:
    done = cluster.hosts[number].docker("exec", name, "nslookup", target, check=False)
    return "Name:" in done.stdout


def test_a_new_name_is_known_on_all_hosts_and_the_old_one_on_none(cluster: Cluster) -> None:
    one, two, three = cluster.hosts
    one.docker("network", "create", "-d", "overlay", "net")
    container(one, "c0", "net")
    target = container(two, "old", "net", "--network-alias", "kept")
    settles(one, "c0", "old")
    two.docker("rename", "old", "new")
    settles(one, "c0", "new")
    eventually(lambda: not resolves(cluster, 0, "c0", "old"), "the old name is nobody's")
    settles(one, "c0", "kept")
    assert "new.net" in one.docker("exec", "c0", "nslookup", target).stdout
    shown = json.loads(one.docker("network", "inspect", "net").stdout)[0]
    assert {c["Name"] for c in shown["Containers"].values()} == {"c0", "new"}
    # A name that was freed may be another's, and a host that joins later knows it so.
    container(three, "old", "net")
    settles(one, "c0", "old")
    settles(three, "old", "new")
    # While etcd is away it is remembered, and told afterwards.
    cluster.etcd.stop()
    two.docker("rename", "new", "newest")
    cluster.etcd.start()
    settles(one, "c0", "newest")
    eventually(lambda: not resolves(cluster, 0, "c0", "new"), "the old name is nobody's")


def test_a_host_that_is_cut_off_is_forgotten_and_comes_back(cluster: Cluster) -> None:
    one, two, three = cluster.hosts
    one.docker("network", "create", "-d", "overlay", "net")
    for number, host in enumerate(cluster.hosts):
        container(host, f"c{number}", "net")
    settles(one, "c0", "c2")
    cluster.cut(2)
    eventually(lambda: not resolves(cluster, 0, "c0", "c2"), "the host is forgotten")
    assert reaches(one, "c0", "c1")
    # Meanwhile the others go on.
    two.docker("rm", "-f", "c1")
    fresh = container(two, "new", "net")
    failed = three.docker("run", "--rm", "--network", "net", "busybox", "true", check=False)
    assert "cluster cannot be reached" in failed.stderr
    cluster.mend(2)
    settles(three, "c2", fresh)
    settles(three, "c2", "new")
    settles(one, "c0", "c2")
    eventually(lambda: not resolves(cluster, 2, "c2", "c1"), "what went meanwhile is forgotten")


def test_etcd_may_be_restarted(cluster: Cluster) -> None:
    one, two, three = cluster.hosts
    one.docker("network", "create", "-d", "overlay", "net")
    container(one, "c0", "net")
    address_of_one = container(two, "c1", "net")
    settles(one, "c0", "c1")
    cluster.etcd.stop()
    assert reaches(one, "c0", address_of_one)
    assert reaches(one, "c0", "c1")
    assert names(one) == ["net"]
    cluster.etcd.start()
    eventually(
        lambda: three.docker(
            "run", "-d", "--name", "c2", "--network", "net", "busybox", "sleep", "3600", check=False
        ).returncode == 0 or three.docker("rm", "-f", "c2", check=False).returncode > 1,
        "a container starts again",
    )  # fmt: skip
    settles(one, "c0", "c2")
    settles(three, "c2", "c1")


def test_a_host_that_dies_is_forgotten_and_does_not_keep_a_network(cluster: Cluster) -> None:
    one, two, three = cluster.hosts
    one.docker("network", "create", "-d", "overlay", "net")
    container(one, "c0", "net")
    container(three, "c2", "net")
    settles(one, "c0", "c2")
    three.kill()
    cluster.cut(2)
    eventually(lambda: not resolves(cluster, 0, "c0", "c2"), "the dead host is forgotten")
    entries = lambda: subprocess.run(  # noqa: E731
        ["nsenter", f"--net={segment(one.data_root)}", "bridge", "fdb", "show", "dev", "vx0"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    eventually(lambda: address(2) not in entries(), "nothing leads to the dead host")
    one.docker("rm", "-f", "c0")
    two.docker("network", "rm", "net")
    cluster.mend(2)
    cluster.start(2)
    eventually(lambda: names(two) == [], "the network stays removed")


def segment(data_root: Path) -> Path:
    (found,) = (data_root / "networks/overlay/segments").iterdir()
    return found
