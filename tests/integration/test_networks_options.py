"""Options of the default bridge, of networks and of endpoints, by what packets do."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path

import pytest

from drivetrain.host.netlink import Netlink
from drivetrain.testing.distributions import Distributions
from drivetrain.testing.hosts import Host
from drivetrain.testing.netlab import HOST4, HOST6, SILENCE, WORLD4, Lab, Place

#: What is only reached by way of the router on the bridge.
FAR4, FAR6 = "203.0.113.1", "2001:db8:99::1"
BRIDGE = "com.docker.network.bridge."

BROKEN = """
    from drivetrain import hookimpl
    from drivetrain.errors import Unavailable
    from drivetrain.network import Link

    class Broken:
        \"\"\"Whoever joins does not get away.\"\"\"

        @hookimpl
        def network_create(self, network):
            return True

        @hookimpl
        def network_delete(self, network):
            return True

        @hookimpl
        def endpoint_join(self, network, endpoint, sandbox):
            return Link()

        @hookimpl
        def endpoint_leave(self, network, endpoint):
            raise Unavailable("nobody answers")
"""


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with Host() as made:
        made.start()
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


def sleeping(host: Host, name: str, *flags: str) -> Place:
    """Run a container and return its network."""
    host.docker("run", "-d", "--name", name, *flags, "busybox", "sleep", "1000")
    pid = host.docker("inspect", "-f", "{{.State.Pid}}", name).stdout.strip()
    return Place(Path(f"/proc/{pid}/ns/net"), existing=True)


def addresses(host: Host, name: str, network: str = "bridge") -> tuple[str, str]:
    found = json.loads(host.docker("inspect", name).stdout)[0]["NetworkSettings"]["Networks"]
    return found[network]["IPAddress"], found[network]["GlobalIPv6Address"]


def restart(host: Host, *flags: str) -> None:
    host.stop()
    host.start(*flags)


def router(lab: Lab, bridge: str, *own: str) -> Place:
    """Return a machine on a bridge, with what lies behind it."""
    made = lab.place(f"router-{bridge}")
    with lab.host.netlink() as near:
        near.veth(f"r{bridge[:12]}", "eth0", namespace=made.path, master=near.index(bridge))
    with made.netlink() as inside:
        inside.configure("eth0", addresses=[ip_interface(text) for text in own])
        inside.add_addresses(
            inside.index("lo"), [ip_interface(f"{FAR4}/32"), ip_interface(f"{FAR6}/128")]
        )
    return made


def test_addresses_and_gateways_of_the_default_bridge_follow_the_daemons_settings(
    host: Host, lab: Lab
) -> None:
    restart(
        host, "--bip", "10.200.0.1/24", "--fixed-cidr", "10.200.0.64/29",
        "--default-gateway", "10.200.0.9", "--bip6", "fd00:200::1/64",
        "--fixed-cidr-v6", "fd00:200::40/122", "--default-gateway-v6", "fd00:200::9",
    )  # fmt: skip
    router(lab, "engine0", "10.200.0.9/24", "fd00:200::9/64")
    for number in range(3):
        place = sleeping(host, f"box{number}")
        four, six = addresses(host, f"box{number}")
        assert ip_address(four) in ip_network("10.200.0.64/29")
        assert ip_address(six) in ip_network("fd00:200::40/122")
        assert place.pings(FAR4), "the way out is the default gateway, and not the bridge"
        assert place.pings(FAR6)
        for own in ("10.200.0.1", "fd00:200::1"):
            assert place.pings(own)
    shown = json.loads(host.docker("network", "inspect", "bridge").stdout)[0]["IPAM"]["Config"]
    assert [each["Subnet"] for each in shown] == ["10.200.0.0/24", "fd00:200::/64"]
    host.clear()
    # The default gateway is not given to a container.
    restart(host, "--bip", "10.200.0.1/29", "--default-gateway", "10.200.0.2")
    sleeping(host, "box")
    assert addresses(host, "box") == ("10.200.0.3", "")


def test_a_part_of_a_subnet_alone_makes_the_subnet(host: Host, lab: Lab) -> None:
    restart(host, "--fixed-cidr", "10.201.0.0/25", "--fixed-cidr-v6", "fd00:201::/80")
    place = sleeping(host, "box", "-p", "8080:80")
    four, six = addresses(host, "box")
    assert ip_address(four) in ip_network("10.201.0.0/25")
    assert ip_address(six) in ip_network("fd00:201::/80")
    place.serve()
    assert lab.world.reaches(HOST4, 8080) == WORLD4
    lab.world.reaches(HOST6, 8080)
    # What the bridge had before is gone from it.
    with lab.host.netlink() as netlink:
        own = [str(a) for _, a in netlink.addresses(netlink.index("engine0")) if a.version == 4]
    assert own == ["10.201.0.1/25"]
    place.close()


def test_icc_masquerading_mtu_ports_and_pools_follow_the_daemons_settings(
    host: Host, lab: Lab
) -> None:
    restart(
        host, "--bip", "10.202.0.1/24", "--ip", HOST4, "--mtu", "1400", "--icc=false",
        "--ip-masq=false", "--default-address-pool", "base=10.210.0.0/16,size=24",
    )  # fmt: skip
    server = sleeping(host, "server", "-p", "8080:80", "-p", "0.0.0.0:8081:80")
    client = sleeping(host, "client")
    four, _ = addresses(host, "server")
    server.serve()
    lab.world.reaches(HOST4, 8080)
    assert lab.host.misses("127.0.0.1", 8080), "published on the address of --ip only"
    lab.host.reaches("127.0.0.1", 8081)
    assert client.misses(four)
    assert not client.pings(four, SILENCE)
    client.reaches(HOST4, 8080)
    seen = lab.world.serve(8082)
    lab.route_from_world("10.202.0.0/24")
    client.reaches(WORLD4, 8082)
    assert seen.clients[-1] == addresses(host, "client")[0]
    assert host.docker("exec", "client", "cat", "/sys/class/net/eth0/mtu").stdout == "1400\n"
    host.docker("network", "create", "pool")
    shown = json.loads(host.docker("network", "inspect", "pool").stdout)[0]["IPAM"]["Config"]
    assert ip_network(shown[0]["Subnet"]).subnet_of(ip_network("10.210.0.0/16"))
    assert shown[0]["Subnet"].endswith("/24")
    server.close()


def test_interfaces_are_called_as_the_network_wants_and_versions_are_given_as_options(
    host: Host,
) -> None:
    prefix = "com.docker.network.container_iface_prefix"
    host.docker("network", "create", "-o", f"{prefix}=lan", "n1")
    host.docker("network", "create", "-o", "com.docker.network.enable_ipv6=true",
                "-o", "com.docker.network.enable_ipv4=false", "n2")  # fmt: skip
    subnets = ("--subnet", "10.203.0.0/24", "--subnet", "fd00:203::/64")
    host.docker("network", "create", *subnets, "-o", f"{prefix}=dual", "n3")
    sleeping(host, "box", "--network", "n1")
    host.docker("network", "connect", "n2", "box")
    host.docker("network", "connect", "--ip", "10.203.0.7", "--ip6", "fd00:203::77", "n3", "box")
    links = host.docker("exec", "box", "ls", "/sys/class/net").stdout.split()
    assert sorted(links) == ["dual0", "eth0", "lan0", "lo"]
    assert addresses(host, "box", "n2")[0] == ""
    other = sleeping(host, "other", "--network", "n3")
    assert addresses(host, "box", "n3") == ("10.203.0.7", "fd00:203::77")
    assert other.pings("10.203.0.7")
    assert other.pings("fd00:203::77")
    other_two = sleeping(host, "other2", "--network", "n2")
    assert other_two.pings(addresses(host, "box", "n2")[1])


def test_ports_are_published_where_the_network_says(host: Host, lab: Lab) -> None:
    host.docker("network", "create", "-o", f"{BRIDGE}host_binding_ipv4=127.0.0.1", "n1")
    with sleeping_server(host, "server", "--network", "n1", "-p", "8080:80", "-p",
                         f"{HOST4}:8081:80"):  # fmt: skip
        lab.host.reaches("127.0.0.1", 8080)
        assert lab.world.misses(HOST4, 8080)
        lab.world.reaches(HOST4, 8081)


class sleeping_server:  # noqa: N801
    """A container that serves on port 80, for the length of a ``with``."""

    def __init__(self, host: Host, name: str, *flags: str) -> None:
        self._place = sleeping(host, name, *flags)

    def __enter__(self) -> Place:
        self._place.serve()
        return self._place

    def __exit__(self, *_: object) -> None:
        self._place.close()


def test_an_endpoint_that_its_driver_does_not_let_go_is_disconnected_by_force(
    host: Host, tmp_path: Path
) -> None:
    Distributions(tmp_path).install(
        "broken", drivers={"network/broken": "broken:Broken"}, modules={"broken": BROKEN}
    )
    host.stop()
    host.start(environment={"PYTHONPATH": str(tmp_path)})
    subnet = ("--subnet", "10.204.0.0/30")
    host.docker("network", "create", "-d", "broken", *subnet, "n1")
    host.docker("network", "create", "n2")
    place = sleeping(host, "box", "--network", "n1")
    host.docker("network", "connect", "n2", "box")
    host.docker("network", "disconnect", "-f", "n1", "box")
    found = json.loads(host.docker("inspect", "box").stdout)[0]["NetworkSettings"]["Networks"]
    assert set(found) == {"n2"}
    with Netlink(place.path) as inside:
        assert "eth1" in {link.name for link in inside.links()}
    assert "dev eth1" in host.docker("exec", "box", "ip", "route", "show", "default").stdout
    # Its address, the only one, is free again.
    sleeping(host, "next", "--network", "n1")
    assert addresses(host, "next", "n1")[0] == addresses_free("10.204.0.0/30")
    refused = host.docker("network", "disconnect", "n1", "next", check=False)
    assert "nobody answers" in refused.stderr
    missing = host.docker("network", "disconnect", "-f", "n1", "nobody", check=False)
    assert "No such container: nobody" in missing.stderr
    host.docker("stop", "-t", "0", "next")
    host.docker("network", "disconnect", "-f", "n1", "next")
    host.docker("network", "rm", "n1")


def addresses_free(prefix: str) -> str:
    """Return the only address of a /30 that is no gateway."""
    return str(ip_network(prefix)[2])
