"""Several hosts for tests of overlays: joined by a switch, with an etcd that all of them reach."""

from __future__ import annotations

import subprocess
from types import TracebackType

from drivetrain.testing.etcd import EtcdServer
from drivetrain.testing.hosts import Host, eventually

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
    return done.returncode == 0


def settles(host: Host, name: str, target: str) -> None:
    """Wait until a container gets an answer."""
    eventually(lambda: reaches(host, name, target), f"{name} reaches {target}")
