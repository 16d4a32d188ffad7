"""Several hosts for tests of overlays: joined by a switch, with an etcd that all of them reach."""

from __future__ import annotations

import os
import socket
import subprocess
from contextlib import AbstractContextManager
from ipaddress import ip_address, ip_interface
from pathlib import Path
from types import TracebackType

from drivetrain.calling import Driver
from drivetrain.host import namespaces
from drivetrain.host.netlink import Netlink
from drivetrain.network import Address, Endpoint, Network, NetworkHooks, Sandbox, SubnetRequest
from drivetrain.options import parse_options
from drivetrain.registry import Registry
from drivetrain.testing.etcd import EtcdServer
from drivetrain.testing.hosts import Host, eventually

SO_RCVBUFFORCE = 33
#: The switch itself, which stands for the world outside, and where etcd is.
OUTSIDE = "192.0.2.1"


class Cluster:
    """Hosts in namespaces of their own, each with a daemon.

    Args:
        size: how many.
        options: further ``--cluster-store-opt`` values.
    """

    def __init__(self, size: int, *options: str) -> None:
        self.hosts = [Host() for _ in range(size)]
        self._options = options
        self.switch = f"{self.hosts[0].netns}-sw"
        ip("netns", "add", self.switch)
        self.inside = ["nsenter", f"--net=/run/netns/{self.switch}"]
        ip("-n", self.switch, "link", "set", "lo", "up")
        ip("-n", self.switch, "link", "add", "switch", "type", "bridge")
        ip("-n", self.switch, "link", "set", "switch", "up")
        ip("-n", self.switch, "addr", "add", f"{OUTSIDE}/24", "dev", "switch")
        for number, host in enumerate(self.hosts):
            own = ("-n", host.netns)
            ip(*own, "link", "add", "up0", "type", "veth", "peer", f"p{number}",
               "netns", self.switch)  # fmt: skip
            ip("-n", self.switch, "link", "set", f"p{number}", "master", "switch", "up")
            ip(*own, "addr", "add", f"{address(number)}/24", "dev", "up0")
            ip(*own, "link", "set", "up0", "up")
            ip(*own, "route", "add", "default", "via", OUTSIDE)
        self.etcd = EtcdServer(OUTSIDE, 2379, inside=self.inside)

    def __enter__(self) -> Cluster:
        try:
            self.etcd.start()
            for number, host in enumerate(self.hosts):
                self.start(number)
                host.load_busybox()
        except BaseException:
            self.close(check=False)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close(check=kind is None)

    def start(self, number: int) -> None:
        """Start the daemon of a host."""
        options = ("discovery.ttl=3s", "kv.timeout=1s", *self._options)
        self.hosts[number].start(
            "--cluster-store", f"etcd://{OUTSIDE}:2379",
            "--cluster-advertise", address(number),
            *(word for option in options for word in ("--cluster-store-opt", option)),
        )  # fmt: skip

    def cut(self, number: int) -> None:
        """Pull a host's cable."""
        ip("-n", self.switch, "link", "set", f"p{number}", "down")

    def mend(self, number: int) -> None:
        """Plug it in again."""
        ip("-n", self.switch, "link", "set", f"p{number}", "up")

    def clear(self) -> None:
        """Remove all containers and networks."""
        for host in self.hosts:
            host.clear()
        for name in names(self.hosts[0]):
            self.hosts[0].docker("network", "rm", name)

    def close(self, check: bool = True) -> None:
        """Remove everything; with ``check`` fail when something is left behind."""
        try:
            for host in self.hosts:
                host.close(check=check)
        finally:
            self.etcd.close()
            subprocess.run(["ip", "netns", "delete", self.switch], check=False)


def address(number: int) -> str:
    """Return the address of a host on the switch."""
    return f"192.0.2.{10 + number}"


def ip(*words: str) -> str:
    """Run ``ip``."""
    done = subprocess.run(["ip", *words], check=True, capture_output=True, text=True)
    return done.stdout


def names(host: Host) -> list[str]:
    """Return the names of the overlays that a host knows."""
    listed = host.docker("network", "ls", "--filter", "driver=overlay", "--format", "{{.Name}}")
    return sorted(listed.stdout.split())


def container(host: Host, name: str, network: str, *words: str) -> str:
    """Run a container that waits, and return its address."""
    host.docker("run", "-d", "--name", name, "--network", network, *words, "busybox",
                "sleep", "3600")  # fmt: skip
    text = host.docker(
        "inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", name
    )
    return text.stdout.strip()


def reaches(host: Host, name: str, target: str) -> bool:
    """Whether a container gets an answer from an address or name."""
    done = host.docker("exec", name, "ping", "-c1", "-W1", target, check=False)
    return " 0% packet loss" in done.stdout


def settles(host: Host, name: str, target: str) -> None:
    """Wait until a container gets an answer."""
    eventually(lambda: reaches(host, name, target), f"{name} reaches {target}")


class Wire:
    """Hosts that are a driver each, in this process: for what needs no container.

    Args:
        data: prefix of a second link of the hosts, ``data0``; the ends are as those of the first.
        options: of the driver, besides where the cluster is; an underscore for each dot.
    """

    def __init__(self, folder: Path, size: int = 2, *, data: str = "", **options: str) -> None:
        self._folder = folder
        self._data = data
        token = os.urandom(3).hex()
        self.switch = f"wire-{token}-sw"
        self.names = [f"wire-{token}-{number}" for number in range(size)]
        self._options = {name.replace("_", "."): value for name, value in options.items()}
        self.drivers: list[Driver[NetworkHooks]] = []
        self.sandboxes: list[Path] = []
        inside = ["nsenter", f"--net={self.place(self.switch)}"]
        self.etcd = EtcdServer(OUTSIDE, 2379, inside=inside)

    def __enter__(self) -> Wire:
        try:
            self._begin()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def _begin(self) -> None:
        for name in (self.switch, *self.names):
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
        ip("-n", self.switch, "link", "add", "switch", "type", "bridge")
        ip("-n", self.switch, "link", "set", "switch", "up")
        ip("-n", self.switch, "addr", "add", f"{OUTSIDE}/24", "dev", "switch")
        for number, name in enumerate(self.names):
            ip("-n", name, "link", "add", "up0", "type", "veth", "peer", f"p{number}",
               "netns", self.switch)  # fmt: skip
            ip("-n", self.switch, "link", "set", f"p{number}", "master", "switch", "up")
            ip("-n", name, "addr", "add", f"{address(number)}/24", "dev", "up0")
            ip("-n", name, "link", "set", "up0", "up")
            if self._data:
                self._second(name, number)
        self.etcd.start()
        for number in range(len(self.names)):
            self.drivers.append(self.open(number))

    def _second(self, name: str, number: int) -> None:
        ip("-n", name, "link", "add", "data0", "type", "veth", "peer", f"d{number}",
           "netns", self.switch)  # fmt: skip
        ip("-n", self.switch, "link", "set", f"d{number}", "master", "switch", "up")
        length, *words = ("64", "nodad") if ":" in self._data else ("24",)
        own = f"{self._data}{10 + number}/{length}"
        ip("-n", name, "addr", "add", own, "dev", "data0", *words)
        ip("-n", name, "link", "set", "data0", "up")

    def place(self, name: str) -> Path:
        """Return the file of a namespace."""
        return Path("/run/netns", name)

    def on(self, number: int) -> AbstractContextManager[None]:
        """Have the thread on a host for the length of a ``with``."""
        return namespaces.inside(self.place(self.names[number]))

    def open(self, number: int) -> Driver[NetworkHooks]:
        """Return a driver at work on a host."""
        root = self._folder / f"host{number}"
        root.mkdir(exist_ok=True)
        found = Registry().network("overlay")
        given = {"cluster-store": f"etcd://{OUTSIDE}:2379", **self._options}
        with self.on(number):
            schema = found.call.network_driver_options()
            found.call.network_open(root, parse_options("overlay", schema, given))
        return found

    def network(self, name: str, **options: str) -> Network:
        """Make a network."""
        call = self.drivers[0].call
        chosen = parse_options("overlay", call.network_options(), options)
        identity = os.urandom(32).hex()
        subnets = call.subnets_choose(SubnetRequest(identity, name)) or ()
        made = Network(identity, name, tuple(subnets), chosen)
        with self.on(0):
            call.network_create(made)
        return made

    def join(self, number: int, network: Network) -> tuple[Path, Address]:
        """Join a sandbox of a host to a network; return it with its address."""
        path = self._folder / f"sandbox{len(self.sandboxes)}"
        namespaces.new_network_namespace(path)
        self.sandboxes.append(path)
        call, identity = self.drivers[number].call, os.urandom(32).hex()
        with self.on(number):
            own = call.address_take(network, identity, network.subnets[0], None)
            assert own is not None
            mac = "02:42:" + ":".join(f"{byte:02x}" for byte in own.packed)
            interface = ip_interface(f"{own}/{network.subnets[0].prefix.prefixlen}")
            endpoint = Endpoint(identity, identity, (interface,), mac, names=(path.name,))
            link = call.endpoint_join(network, endpoint, Sandbox(path))
        with Netlink(path) as inside:
            inside.configure("eth0", addresses=endpoint.addresses, gateways=link.gateways)
        return path, own

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, driver in enumerate(self.drivers):
            with self.on(number):
                driver.call.network_sync([])
                driver.call.network_close()
        for path in self.sandboxes:
            namespaces.remove_network_namespace(path)
        self.etcd.close()
        for name in (self.switch, *self.names):
            subprocess.run(["ip", "netns", "delete", name], check=False)


def ping(sandbox: Path, target: Address, count: int = 1, *words: str) -> str:
    """Return what ``ping`` says in a sandbox."""
    command = ["nsenter", f"--net={sandbox}", "busybox", "ping", "-c", str(count), "-W", "1"]
    done = subprocess.run(
        [*command, *words, str(target)], capture_output=True, text=True, check=False
    )
    return done.stdout


class Capture:
    """Everything that passes the switch, as Ethernet frames, for the length of a ``with``."""

    def __init__(self, wire: Wire) -> None:
        everything = socket.htons(3)
        self._socket = namespaces.run_in(
            wire.place(wire.switch),
            lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, everything),
        )
        self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 26)
        # Not until it is silent: the hosts and etcd always have something to say to each other.
        self._socket.setblocking(False)

    def __enter__(self) -> Capture:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def between(self, one: str, other: str) -> list[tuple[int, int, bytes]]:
        """Return protocol, UDP's destination port and bytes of packets between two hosts so far."""
        found = []
        pair = {ip_address(one).packed, ip_address(other).packed}
        try:
            while True:
                frame = self._socket.recv(65536)
                kind, packet = frame[12:14], frame[14:]
                if kind == b"\x08\x00":
                    ends, protocol, head = packet[12:20], packet[9], (packet[0] & 15) * 4
                elif kind == b"\x86\xdd":
                    ends, protocol, head = packet[8:40], packet[6], 40
                else:
                    continue
                half = len(ends) // 2
                if {ends[:half], ends[half:]} == pair:
                    port = int.from_bytes(packet[head + 2 : head + 4], "big")
                    found.append((protocol, port if protocol == 17 else 0, packet))
        except BlockingIOError:
            return found
