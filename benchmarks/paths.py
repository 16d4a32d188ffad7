"""What packets go through between two containers: each engine's networks, and the bare kernel."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import traffic
from benchmarks.measuring import command
from benchmarks.peers import Dockerd, Engine, Peers
from benchmarks.table import Row

ROUNDS = 6
_SUBNETS = {"bridge": "10.85.0.0/24", "macvlan": "10.86.0.0/24"}


@dataclass(frozen=True)
class Way:
    """Two namespaces that reach each other, with the address of the first one."""

    server: Path
    client: Path
    address: str


def _ways(engine: Engine | Dockerd) -> dict[str, Way]:
    """Start two containers on a bridge and two on a macvlan network of an engine."""
    command([*engine.inside, "ip", "link", "add", "par0", "type", "veth", "peer", "par1"])
    for name in ("par0", "par1"):
        command([*engine.inside, "ip", "link", "set", name, "up"])
    found = {}
    for driver, subnet in _SUBNETS.items():
        option = ["-o", "parent=par0"] if driver == "macvlan" else []
        network = f"way-{driver}"
        create = ("network", "create", "-d", driver, "--subnet", subnet, *option, network)
        command(engine.docker(*create))
        places, address = [], ""
        for number in (1, 2):
            name = f"{network}-{number}"
            command(engine.docker("run", "-d", "--name", name, "--network", network, "busybox",
                                  "sleep", "1000"))  # fmt: skip
            form = "{{.State.Pid}} {{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
            pid, own = command(engine.docker("inspect", "-f", form, name)).split()
            places.append(Path(f"/proc/{pid}/ns/net"))
            address = address or own
        found[driver] = Way(places[0], places[1], address)
    return found


@contextmanager
def _overlay(root: Path) -> Iterator[Way]:
    """Two hosts' drivers with an etcd, and a container on each."""
    from tests.overlay import Wire

    with Wire(root) as wire:
        network = wire.network("way")
        server, address = wire.join(0, network)
        client, _ = wire.join(1, network)
        yield Way(server, client, str(address))


def _medians(ways: dict[str, Way], work: Callable[[Path, Path, str], float]) -> dict[str, float]:
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(ROUNDS + 1):
        # Back and forth: nobody always comes after the same neighbour.
        for name, way in list(ways.items())[:: 1 if turn % 2 else -1]:
            value = work(way.server, way.client, way.address)
            if turn:
                taken[name].append(value)
    return {name: statistics.median(values) for name, values in taken.items()}


def measure(peers: Peers) -> Iterator[Row]:
    """Measure names, throughput and latency."""
    with ExitStack() as stack:
        root = peers.engine.host.root
        ways = {f"ours {name}": way for name, way in _ways(peers.engine).items()}
        if peers.dockerd is not None:
            ways |= {f"theirs {name}": way for name, way in _ways(peers.dockerd).items()}
        names = {name: way for name, way in ways.items() if name.endswith("bridge")}
        (root / "wire").mkdir()
        ways["ours overlay"] = stack.enter_context(_overlay(root / "wire"))
        for name, vxlan in (("plain veth", False), ("plain VXLAN", True)):
            ways[name] = Way(*stack.enter_context(traffic.plain(root, vxlan=vxlan)))
        rates = _medians(names, lambda _, client, __: traffic.lookups(client, "way-bridge-1"))
        yield Row("names of containers looked up, one after the other", "/s",
                  rates["ours bridge"], rates.get("theirs bridge"), more=True,
                  note=peers.note)  # fmt: skip
        streams = _medians(ways, traffic.gigabits)
        trips = _medians(ways, traffic.microseconds)
    limits = {"bridge": "plain veth", "macvlan": "plain veth", "overlay": "plain VXLAN"}
    for what, unit, found, more in (
        ("a TCP stream", "Gbit/s", streams, True), ("a round trip of UDP", "µs", trips, False)
    ):  # fmt: skip
        for name, limit in limits.items():
            yield Row(
                f"{what} over {name}", unit, found[f"ours {name}"], found.get(f"theirs {name}"),
                more=more, note=f"{limit}: {found[limit]:.3g} {unit}",
            )  # fmt: skip
