"""Networks do not wait for each other: a slow driver holds up its own network only."""

from __future__ import annotations

import contextlib
import subprocess
import threading
from collections.abc import Iterator
from ipaddress import ip_interface
from pathlib import Path

import pytest

from drivetrain.host import namespaces
from drivetrain.registry import Registry
from drivetrain.testing.distributions import Distributions, distributions
from drivetrain.testing.hosts import Host, eventually
from drivetrain_engine.networks import Attachment, Networks, NetworkSettings, SandboxRequest
from drivetrain_engine.state import Events, State

SLOW = """
    import threading
    import time
    from drivetrain import hookimpl
    from drivetrain.host.netlink import Netlink
    from drivetrain.network import Link, NetworkTraits

    class Slow:
        \"\"\"Joins wait while there is a file with the network's name.

        Which calls were under way at once is noted where that must not be.
        \"\"\"

        @hookimpl
        def network_traits(self):
            return NetworkTraits(addresses=True)

        @hookimpl
        def network_open(self, root):
            self.root = root
            self.netlink = Netlink()
            self.busy = []
            self.guard = threading.Lock()
            return True

        def call(self, name):
            with self.guard:
                if name in self.busy or (self.busy and "*" in (name, *self.busy)):
                    (self.root / "overlap").write_text(f"{name} beside {self.busy}")
                self.busy.append(name)
            (self.root / f"{name}.begun").touch()
            time.sleep(0.001)
            while (self.root / name).exists():
                time.sleep(0.01)
            with self.guard:
                self.busy.remove(name)
            return True

        @hookimpl
        def network_sync(self, networks):
            return self.call("*")

        @hookimpl
        def network_create(self, network):
            return self.call(network.name)

        @hookimpl
        def network_delete(self, network):
            return self.call(network.name)

        @hookimpl
        def endpoint_join(self, network, endpoint, sandbox):
            self.call(network.name)
            self.netlink.veth(f"s{endpoint.id[:12]}", endpoint.interface, namespace=sandbox.path)
            return Link(endpoint.interface)

        @hookimpl
        def endpoint_leave(self, network, endpoint):
            return self.call(network.name)
"""


def installed(folder: Distributions) -> None:
    folder.install(
        "slow-network", drivers={"network/slow": "slow_network:Slow"},
        modules={"slow_network": SLOW},
    )  # fmt: skip


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    installed(Distributions(tmp_path))
    with Host() as made:
        made.start(environment={"PYTHONPATH": str(tmp_path)})
        made.load_busybox()
        yield made


@contextlib.contextmanager
def held_up(host: Host, network: str) -> Iterator[None]:
    """Have joins of a network wait."""
    file = host.data_root / "networks/slow" / network
    file.touch()
    try:
        yield
    finally:
        file.unlink()


def test_a_slow_driver_holds_up_its_own_network_only(host: Host) -> None:
    for name in ("slow1", "slow2"):
        host.docker("network", "create", "-d", "slow", name)
    host.docker("network", "create", "-d", "bridge", "quick")
    root = host.data_root / "networks/slow"
    (root / "slow1.begun").unlink()
    run = ("run", "-d", "--network")
    sleep = ("busybox", "sleep", "1000")
    with held_up(host, "slow1"):
        waiting = [
            subprocess.Popen([*host.docker_command, *run, "slow1", "--name", name, *sleep],
                             stdout=subprocess.DEVNULL)
            for name in ("w1", "w2")
        ]  # fmt: skip
        eventually(lambda: (root / "slow1.begun").exists(), "the driver is at it")
        # All of this would wait for ever if it waited for slow1.
        host.docker(*run, "slow2", "--name", "other", *sleep)
        host.docker(*run, "quick", "--name", "box", "-p", "8099:80", *sleep)
        host.docker(*run, "bridge", "--name", "plain", *sleep)
        host.docker("network", "connect", "quick", "plain")
        host.docker("network", "disconnect", "quick", "plain")
        assert "slow1" in host.docker("network", "ls").stdout
        host.docker("network", "inspect", "slow1", "quick")
        host.docker("network", "create", "-d", "slow", "--ipv6", "slow3")
        host.docker("network", "rm", "slow3")
        host.run_in_network("nft", "flush", "ruleset")
        eventually(
            lambda: "in-engine0" in host.run_in_network("nft", "list", "ruleset"),
            "the rules of bridges come back",
        )
        host.docker("rename", "box", "renamed")
        host.docker("rm", "-f", "renamed", "other", "plain")
        host.docker("network", "rm", "quick", "slow2")
        assert [each.poll() for each in waiting] == [None, None]
    assert [each.wait(60) for each in waiting] == [0, 0]
    assert not (root / "overlap").exists(), (root / "overlap").read_text()


def request(folder: Path, container: str, *networks: str) -> SandboxRequest:
    return SandboxRequest(
        container_id=container, name=container[-6:], hostname="box", domainname="",
        attachments=[Attachment(name) for name in networks], ports=[], dns=[], dns_search=[],
        dns_options=[], extra_hosts=[], sysctls={}, directory=folder,
    )  # fmt: skip


def test_whatever_happens_at_once_no_address_is_given_twice_and_calls_come_one_by_one(
    tmp_path: Path,
) -> None:
    """Containers come, connect, leave and go in many threads, while drivers are synchronised."""
    faults: list[BaseException] = []

    def work(networks: Networks, number: int) -> None:
        try:
            for turn in range(6):
                container = f"{number:032x}{turn:032x}"
                folder = tmp_path / container
                folder.mkdir()
                names = ["n0", "n1"] if number % 2 else ["n1", "n0"]
                networks.start(request(folder, container, *names))
                networks.connect(container, Attachment("n2"), name="x", running=True)
                addresses(networks)
                networks.disconnect(container, "n0")
                if turn % 3 == 2:
                    networks._drivers.sync(["slow"])
                networks.stop(container)
                networks.release(container)
        except BaseException as error:
            faults.append(error)

    def addresses(networks: Networks) -> None:
        for record in networks.list():
            found = [each["IPv4Address"] for each in record["Containers"].values()]
            assert len(set(found)) == len(found), f"{record['Name']}: {sorted(found)}"

    def everything() -> None:
        networks = Networks(
            root=tmp_path / "root", exec_root=tmp_path / "exec", state=State(None),
            registry=Registry(), events=Events(), settings=NetworkSettings(),
        )  # fmt: skip
        for number in range(3):
            config = [{"Subnet": f"10.66.{number}.0/27"}]
            networks.create({"Name": f"n{number}", "Driver": "slow", "IPAM": {"Config": config}})
        threads = [threading.Thread(target=work, args=(networks, n)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        try:
            assert not faults, faults
            for number in range(3):
                pools = networks._inventory.addresses.pools(networks.resolve(f"n{number}"))
                free = {ip_interface(f"{pools[0].take()}/27") for _ in range(29)}
                assert len(free) == 29, "every address came back"
                networks.remove(f"n{number}")
        finally:
            networks.close()

    with distributions(tmp_path / "packages") as folder:
        installed(folder)
        namespaces.run_in_new(everything)
    overlap = tmp_path / "root/slow/overlap"
    assert not overlap.exists(), overlap.read_text()
    assert not list((tmp_path / "exec/netns").iterdir())
