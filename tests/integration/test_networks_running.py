"""Networks of a running engine: ports, names, connecting, and what is left after it all."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import dnslib
import pytest

from drivetrain.testing.hosts import Host, eventually
from drivetrain.testing.netlab import HOST4, HOST6, WORLD4, Lab, Place


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with Host() as made:
        made.start("--bip6", "fd00:17::1/64")
        made.load_busybox()
        yield made


@pytest.fixture(scope="module")
def lab(host: Host) -> Iterator[Lab]:
    root = Path(tempfile.mkdtemp(prefix="net-", dir="/tmp"))
    made = Lab(root, Path(f"/run/netns/{host.netns}"))
    yield made
    made.close()
    shutil.rmtree(root)


@pytest.fixture(autouse=True)
def _cleared(host: Host) -> Iterator[None]:
    yield
    host.clear()
    host.docker("network", "prune", "-f")


def inside(host: Host, name: str) -> Place:
    """The network of a running container."""
    pid = host.docker("inspect", "-f", "{{.State.Pid}}", name).stdout.strip()
    return Place(Path(f"/proc/{pid}/ns/net"), existing=True)


@contextlib.contextmanager
def serving(host: Host, name: str, *kinds: str) -> Iterator[None]:
    place = inside(host, name)
    for kind in kinds:
        place.serve(kind=kind)
    try:
        yield
    finally:
        place.close()


def sleeping(host: Host, name: str, *flags: str) -> None:
    host.docker("run", "-d", "--name", name, *flags, "busybox", "sleep", "1000")


def network_of(host: Host, container: str, network: str) -> dict[str, object]:
    found = json.loads(host.docker("inspect", container).stdout)[0]
    networks: dict[str, dict[str, object]] = found["NetworkSettings"]["Networks"]
    return networks[network]


def in_container(host: Host, name: str, script: str) -> str:
    return host.docker("exec", name, "sh", "-c", script, check=False).stdout


# ports


def test_a_published_port_is_reached_from_everywhere_with_tcp_and_udp(host: Host, lab: Lab) -> None:
    sleeping(host, "server", "-p", "8080:80", "-p", "8080:80/udp")
    sleeping(host, "client")
    with serving(host, "server", "tcp", "udp"):
        for kind in ("tcp", "udp"):
            assert lab.world.reaches(HOST4, 8080, kind=kind) == WORLD4
            lab.world.reaches(HOST6, 8080, kind=kind)
            for address in (HOST4, "127.0.0.1", HOST6, "::1"):
                lab.host.reaches(address, 8080, kind=kind)
            for name in ("client", "server"):
                for address in (HOST4, HOST6):
                    inside(host, name).reaches(address, 8080, kind=kind)
    host.docker("rm", "-f", "server")
    assert lab.world.misses(HOST4, 8080)
    assert lab.host.misses("::1", 8080)


def test_a_port_on_ipv6_leads_to_a_container_that_has_ipv4_alone(host: Host, lab: Lab) -> None:
    host.docker("network", "create", "n1")
    sleeping(host, "server", "--network", "n1", "-p", "[::]:8086:80", "-p", "[::]:8086:80/udp")
    with serving(host, "server", "tcp", "udp"):
        for kind in ("tcp", "udp"):
            lab.world.reaches(HOST6, 8086, kind=kind)
            lab.host.reaches("::1", 8086, kind=kind)


def test_a_range_and_free_ports_are_chosen_and_shown(host: Host, lab: Lab) -> None:
    sleeping(host, "one", "-p", "127.0.0.1:9000-9001:80")
    sleeping(host, "two", "-p", "127.0.0.1:9000-9001:80", "-p", "81", "-p", "7000-7001:90-91")
    places = [host.docker("port", name, "80").stdout for name in ("one", "two")]
    assert places == ["127.0.0.1:9000\n", "127.0.0.1:9001\n"]
    free = {line.rpartition(":")[2] for line in host.docker("port", "two", "81").stdout.split()}
    assert len(free) == 1
    assert host.docker("port", "two", "91").stdout.split() == ["0.0.0.0:7001", "[::]:7001"]
    with serving(host, "two", "tcp"):
        lab.host.reaches("127.0.0.1", 9001)
        assert lab.world.misses(HOST4, 9001)
    full = host.docker("run", "--rm", "-p", "127.0.0.1:9000-9001:80", "busybox", "true",
                       check=False)  # fmt: skip
    assert full.returncode == 125
    assert "9000" in full.stderr
    taken = host.docker("run", "--rm", "-p", "7000:80", "busybox", "true", check=False)
    assert "port is already allocated" in taken.stderr


def test_flushed_rules_come_back_by_themselves(host: Host, lab: Lab) -> None:
    sleeping(host, "server", "-p", "8081:80")
    with serving(host, "server", "tcp"):
        lab.world.reaches(HOST4, 8081)
        host.run_in_network("nft", "flush", "ruleset")
        eventually(
            lambda: "in-engine0" in host.run_in_network("nft", "list", "ruleset"),
            "the rules are there",
        )
        assert lab.world.reaches(HOST4, 8081) == WORLD4


def test_ports_and_rules_survive_a_killed_daemon(host: Host, lab: Lab) -> None:
    sleeping(host, "server", "-p", "8082:80")
    with serving(host, "server", "tcp"):
        host.kill()
        lab.world.reaches(HOST4, 8082)
        host.start("--bip6", "fd00:17::1/64")
        for address in (HOST4, HOST6):
            lab.world.reaches(address, 8082)
        lab.host.reaches("::1", 8082)
        taken = host.docker("run", "--rm", "-p", "8082:80", "busybox", "true", check=False)
        assert "port is already allocated" in taken.stderr


# connecting


def test_networks_are_connected_and_disconnected_while_it_runs(host: Host, lab: Lab) -> None:
    for number in (1, 2):
        host.docker("network", "create", "--subnet", f"10.7.{number}.0/24", f"n{number}")
    sleeping(host, "box", "--network", "n1", "-p", "8083:80")
    route = "ip route | grep default"
    assert "10.7.1.1" in in_container(host, "box", route)
    with serving(host, "box", "tcp"):
        lab.world.reaches(HOST4, 8083)
        host.engine("network", "connect", "--ip", "10.7.2.9", "--alias", "nine", "--gw-priority",
                    "5", "--mac-address", "02:00:00:00:00:09", "n2", "box")  # fmt: skip
        assert "10.7.2.1" in in_container(host, "box", route)
        assert "10.7.2.9" in in_container(host, "box", "cat /etc/hosts")
        assert "02:00:00:00:00:09" in in_container(host, "box", "cat /sys/class/net/eth1/address")
        lab.world.reaches(HOST4, 8083)
        host.docker("network", "disconnect", "n2", "box")
        assert "10.7.1.1" in in_container(host, "box", route)
        assert lab.world.reaches(HOST4, 8083) == WORLD4
    assert "eth1" not in in_container(host, "box", "ls /sys/class/net")
    again = host.docker("network", "disconnect", "n2", "box", check=False)
    assert "is not connected to network n2" in again.stderr


def test_the_first_network_given_is_the_first_interface(host: Host) -> None:
    for name, subnet in (("zz", "10.8.1.0/24"), ("aa", "10.8.2.0/24")):
        host.docker("network", "create", "--subnet", subnet, name)
    host.engine("create", "--name", "box", "--network", "zz", "busybox", "sleep", "100")
    host.docker("network", "connect", "aa", "box")
    host.docker("start", "box")
    shown = in_container(host, "box", "ip -o -4 address")
    assert "eth0    inet 10.8.1." in shown
    assert "eth1    inet 10.8.2." in shown
    assert "10.8.1.1" in in_container(host, "box", "ip route | grep default")


def test_an_endpoint_has_sysctls_a_name_and_link_local_addresses(host: Host) -> None:
    host.docker("network", "create", "n1")
    sysctl = "com.docker.network.endpoint.sysctls=net.ipv4.conf.IFNAME.log_martians=1"
    name = "com.docker.network.endpoint.ifname=data7"
    network = f'name=n1,"driver-opt={sysctl}","driver-opt={name}",link-local-ip=169.254.7.7'
    sleeping(host, "box", "--network", network)
    value = in_container(host, "box", "cat /proc/sys/net/ipv4/conf/data7/log_martians")
    assert value == "1\n"
    assert "169.254.7.7/16" in in_container(host, "box", "ip address show data7")
    host.docker("network", "create", "n2")
    wrong = sysctl.replace("IFNAME", "eth0")
    refused = host.docker("network", "connect", "--driver-opt", wrong, "n2", "box", check=False)
    assert "IFNAME" in refused.stderr


# IPv6 and addresses


def test_a_network_may_have_ipv6_alone(host: Host, lab: Lab) -> None:
    host.engine("network", "create", "--ipv4=false", "--ipv6", "six")
    sleeping(host, "one", "--network", "six", "-p", "8084:80")
    sleeping(host, "two", "--network", "six")
    assert not network_of(host, "one", "six")["IPAddress"]
    with serving(host, "one", "tcp"):
        inside(host, "two").reaches(str(network_of(host, "one", "six")["GlobalIPv6Address"]))
        lab.world.reaches(HOST6, 8084)
    assert "one" in in_container(host, "two", "nslookup -type=aaaa one")


def test_addresses_come_from_the_range_until_it_is_exhausted(host: Host) -> None:
    host.docker("network", "create", "--subnet", "10.9.0.0/24", "--ip-range", "10.9.0.128/30",
                "--gateway", "10.9.0.1", "--aux-address", "printer=10.9.0.129", "n1")  # fmt: skip
    for number in range(3):
        sleeping(host, f"box{number}", "--network", "n1")
    got = [network_of(host, f"box{number}", "n1")["IPAddress"] for number in range(3)]
    assert got == ["10.9.0.128", "10.9.0.130", "10.9.0.131"]
    full = host.docker("run", "--rm", "--network", "n1", "busybox", "true", check=False)
    assert "no available addresses" in full.stderr
    taken = host.docker("run", "--rm", "--network", "n1", "--ip", "10.9.0.130", "busybox", "true",
                        check=False)  # fmt: skip
    assert "Address already in use" in taken.stderr
    host.docker("rm", "-f", "box1")
    sleeping(host, "box3", "--network", "n1")
    assert network_of(host, "box3", "n1")["IPAddress"] == "10.9.0.130"
    beside = host.docker("network", "create", "--subnet", "10.9.0.0/16", "n2", check=False)
    assert "Pool overlaps" in beside.stderr


def test_subnets_avoid_the_routes_of_the_host(host: Host) -> None:
    host.run_in_network("ip", "route", "add", "blackhole", "172.18.0.0/16")
    host.run_in_network("ip", "link", "add", "other", "type", "bridge")
    host.run_in_network("ip", "address", "add", "172.19.0.1/16", "dev", "other")
    host.run_in_network("ip", "link", "set", "other", "up")
    host.docker("network", "create", "n1")
    found = host.docker(
        "network", "inspect", "n1", "-f", "{{(index .IPAM.Config 0).Subnet}}"
    ).stdout
    host.run_in_network("ip", "link", "delete", "other")
    host.run_in_network("ip", "route", "delete", "blackhole", "172.18.0.0/16")
    assert found.strip() not in ("172.18.0.0/16", "172.19.0.0/16")


# names


def test_names_aliases_ids_and_addresses_are_resolved(host: Host) -> None:
    host.docker("network", "create", "n1")
    for number in range(2):
        sleeping(host, f"web{number}", "--network", "n1", "--network-alias", "web")
    sleeping(host, "asking", "--network", "n1", "--link", "web0:linked")
    addresses = [str(network_of(host, f"web{number}", "n1")["IPAddress"]) for number in range(2)]
    short = host.docker("ps", "-q", "--filter", "name=web0").stdout.strip()
    for name in ("web0", "web0.n1", "WEB0", short, "linked"):
        assert f"Address: {addresses[0]}\n" in in_container(host, "asking", f"nslookup {name}")
    both = in_container(host, "asking", "nslookup web")
    assert all(f"Address: {address}\n" in both for address in addresses)
    firsts = {str(ask(inside(host, "asking"), "web").rr[0].rdata) for _ in range(40)}
    assert len(firsts) == 2, "shared aliases are given in turns"
    assert "web0.n1" in in_container(host, "asking", f"nslookup {addresses[0]}")
    host.docker("rename", "web1", "other")
    assert addresses[1] in in_container(host, "asking", "nslookup other")
    host.docker("stop", "-t", "0", "web0")
    assert addresses[0] not in in_container(host, "asking", "nslookup web")


class NameServer:
    """A server for ``*.example.`` on UDP and TCP; long answers fit TCP only."""

    def __init__(self, place: Place, address: str) -> None:
        self.asked: list[str] = []
        self.udp = place.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self.udp.bind((address, 53))
        self.tcp = place.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM))
        self.tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.tcp.bind((address, 53))
        self.tcp.listen()
        for work in (self._datagrams, self._connections):
            threading.Thread(target=work, daemon=True).start()

    def _answer(self, data: bytes, kind: str) -> bytes:
        question = dnslib.DNSRecord.parse(data)
        name = str(question.q.qname)
        self.asked.append(f"{kind} {name}")
        reply = question.reply()
        count = 60 if name.startswith("long") else 1
        if question.q.qtype == dnslib.QTYPE.A:
            for number in range(count):
                reply.add_answer(dnslib.RR(name, rdata=dnslib.A(f"203.0.113.{number + 1}")))
        if kind == "udp" and count > 1:
            reply = reply.truncate()
        return bytes(reply.pack())

    def _datagrams(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                data, client = self.udp.recvfrom(4096)
                if not data:
                    return  # shut down
                if b"silent" not in data:
                    self.udp.sendto(self._answer(data, "udp"), client)

    def _connections(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.tcp.accept()
                with connection:
                    size = int.from_bytes(connection.recv(2), "big")
                    reply = self._answer(connection.recv(size), "tcp")
                    connection.sendall(len(reply).to_bytes(2, "big") + reply)

    def close(self) -> None:
        for one in (self.udp, self.tcp):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()


def ask(place: Place, name: str, *, tcp: bool = False, patience: float = 20) -> dnslib.DNSRecord:
    question = dnslib.DNSRecord.question(name)

    def work() -> bytes:
        return bytes(question.send("127.0.0.11", 53, tcp=tcp, timeout=patience))

    return dnslib.DNSRecord.parse(place.run(work))


def test_other_names_are_forwarded_over_udp_and_tcp(host: Host, lab: Lab) -> None:
    server = NameServer(lab.world, WORLD4)
    host.docker("network", "create", "n1")
    sleeping(host, "box", "--network", "n1", "--dns", "192.0.2.99", "--dns", WORLD4,
             "--dns-search", "corp.example", "--dns-option", "timeout:9")  # fmt: skip
    place = inside(host, "box")
    assert [str(r.rdata) for r in ask(place, "a.example").rr] == ["203.0.113.1"]
    short = ask(place, "long.example")
    assert short.header.tc == 1
    assert len(ask(place, "long.example", tcp=True).rr) == 60
    assert server.asked[-3:] == ["udp a.example.", "udp long.example.", "tcp long.example."]
    assert ask(place, "silent.example").header.rcode == dnslib.RCODE.SERVFAIL
    server.close()
    shown = in_container(host, "box", "cat /etc/resolv.conf").splitlines()
    assert shown == [
        "nameserver 127.0.0.11", "search corp.example", "options timeout:9 ndots:0",
    ]  # fmt: skip


def test_silent_servers_delay_nobody_elses_names(host: Host, lab: Lab) -> None:
    host.docker("network", "create", "n1")
    sleeping(host, "box", "--network", "n1", "--dns", "192.0.2.99")
    place = inside(host, "box")

    def hang() -> None:
        with contextlib.suppress(OSError):
            ask(place, "nobody.example")

    waiting = [threading.Thread(target=hang) for _ in range(40)]
    for thread in waiting:
        thread.start()
    assert [str(r.rdata) for r in ask(place, "box").rr] == [
        network_of(host, "box", "n1")["IPAddress"]
    ]
    assert any(thread.is_alive() for thread in waiting)
    for thread in waiting:
        thread.join()


def test_many_addresses_of_one_name_fit_tcp_only(host: Host) -> None:
    from drivetrain_engine.networks.answers import answer
    from drivetrain_engine.networks.lookup import Names

    names = Names(lambda _: [f"10.0.0.{n}" for n in range(1, 100)], lambda _: None, ())
    question = dnslib.DNSRecord.question("web")
    short, whole = (answer(question, names, stream=stream) for stream in (False, True))
    assert short is not None
    assert whole is not None
    assert dnslib.DNSRecord.parse(short).header.tc == 1
    assert len(short) <= 512
    assert len(dnslib.DNSRecord.parse(whole).rr) == 99


def test_the_files_in_etc_have_what_the_user_gave(host: Host) -> None:
    script = "cat /etc/hosts /etc/resolv.conf"
    shown = host.docker(
        "run", "--rm", "--add-host", "gate:host-gateway", "--add-host", "x:10.0.0.1",
        "--dns", "192.0.2.53", "--hostname", "h", "busybox", "sh", "-c", script,
    ).stdout  # fmt: skip
    gateway = host.docker("network", "inspect", "bridge", "-f", "{{json .IPAM.Config}}").stdout
    for subnet in json.loads(gateway):
        assert f"{subnet['Gateway']}\tgate\n" in shown
    assert "10.0.0.1\tx\n" in shown
    assert "\th\n" in shown
    assert shown.endswith("nameserver 192.0.2.53\n")


# the commands


def test_networks_are_listed_filtered_inspected_and_pruned(host: Host) -> None:
    host.engine("network", "create", "--label", "tier=front", "--internal", "--attachable", "n1")
    host.engine("network", "create", "--config-only", "--subnet", "10.11.0.0/24", "plan")
    host.engine("network", "create", "--config-from", "plan", "n2")
    sleeping(host, "box", "--network", "n2")

    def names(*filters: str) -> list[str]:
        flags = [word for one in filters for word in ("--filter", one)]
        return host.docker("network", "ls", "--format", "{{.Name}}", *flags).stdout.split()

    assert names("label=tier=front") == ["n1"]
    assert names("dangling=true", "type=custom", "driver=bridge") == ["n1"]
    assert set(names("type=builtin")) == {"bridge", "host", "none"}
    assert names("name=n2", "scope=local") == ["n2"]
    found = json.loads(host.engine("network", "inspect", "n2").stdout)[0]
    assert found["IPAM"]["Config"][0]["Subnet"] == "10.11.0.0/24"
    assert found["ConfigFrom"] == {"Network": "plan"}
    assert [one["Name"] for one in found["Containers"].values()] == ["box"]
    used = host.engine("network", "rm", "n2", check=False)
    assert "active endpoints" in used.stderr
    assert "plan is used by n2" in host.engine("network", "rm", "plan", check=False).stderr
    assert "n1" not in host.engine("network", "prune", "-f", "--filter", "until=1h").stdout
    assert "n1" in host.engine("network", "prune", "-f").stdout
    host.clear()
    host.engine("network", "rm", "n2", "plan")


def test_a_removed_network_leaves_nothing(host: Host, lab: Lab) -> None:
    before = lab.traces()
    host.docker("network", "create", "--ipv6", "n1")
    sleeping(host, "box", "--network", "n1", "-p", "8085:80", "-p", "8085:80/udp")
    assert lab.traces() != before
    host.docker("rm", "-f", "box")
    host.docker("network", "rm", "n1")
    eventually(lambda: lab.traces() == before, "links and rules are gone")
