"""Networks: attaching and publishing in a warm process, crowds, names, and what packets see."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import paths
from benchmarks.measuring import PATIENCE
from benchmarks.peers import Peers
from benchmarks.table import Row
from drivetrain.host.netlink import Netlink
from drivetrain.testing.hosts import eventually

ROUNDS = 60
#: Milliseconds.
ATTACH, DETACH, PUBLISH = 3.0, 1.0, 0.5


def measure(peers: Peers) -> Iterator[Row]:
    """Measure the networks service in a process inside the host's network namespace."""
    host = peers.engine.host
    done = subprocess.run(
        [*host.inside, sys.executable, "-m", "benchmarks.families.network", str(host.root)],
        capture_output=True, text=True, timeout=PATIENCE,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(done.stderr)
    taken = json.loads(done.stdout)
    yield Row(
        "attach: namespace, link, address, route", "ms", taken["attach"], limit=ATTACH,
        note=f"{taken['attach, processor']:.3g} ms of processor time",
    )  # fmt: skip
    yield Row("detach: the same undone", "ms", taken["detach"], limit=DETACH)
    yield Row("publish a port, by the bridge driver", "ms", taken["publish"], limit=PUBLISH)
    yield Row(
        "publish a port, by the networks service", "ms", taken["published"],
        limit=PUBLISH, note="with its socket and record",
    )  # fmt: skip
    yield from _crowds(host.root)
    yield from paths.measure(peers)


def _crowds(root: Path) -> Iterator[Row]:
    """Measure a thousand networks and a thousand endpoints, in a process of their own."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.crowds", str(root)],
        capture_output=True, text=True, timeout=PATIENCE,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(done.stderr)
    found = json.loads(done.stdout)
    for work, first, last in (
        ("network create, beside 1,000 others", "create at 1", "create at 1000"),
        ("attach, beside 1,000 networks", "attach at 1", "attach at 1000"),
        ("attach the 1,000th to one bridge, by the driver", "join at 1", "join at 1000"),
    ):
        yield Row(work, "ms", found[last], note=f"the first: {found[first]:.3g} ms")
    yield Row("network ls of 1,000", "ms", found["ls"], note="in the service")
    yield Row("network inspect, of 1,000", "ms", found["inspect"])
    yield Row("network rm, beside 1,000 others", "ms", found["remove at 1000"])


def _inside(root: Path) -> dict[str, float]:
    """Return median milliseconds; runs apart from the daemon, on a network of its own."""
    from ipaddress import ip_address

    from drivetrain.network import PublishedPort
    from drivetrain.registry import Registry
    from drivetrain_engine.networks import Attachment, Networks, NetworkSettings, PortRequest
    from drivetrain_engine.state import Events, State

    networks = Networks(
        root=root / "networks", exec_root=root / "exec", state=State(root / "state.db"),
        registry=Registry(), events=Events(), settings=NetworkSettings(),
    )  # fmt: skip
    subnet = {"Subnet": "10.213.0.0/16"}
    networks.create({"Name": "bench", "Driver": "bridge", "IPAM": {"Config": [subnet]}})
    record = networks.resolve("bench")
    drivers, publishing = networks._drivers, networks._sandboxes._publishing
    call, publish = drivers.of(record), publishing.publish
    taken: dict[str, list[float]] = {}

    def clock(name: str, begin: float) -> None:
        taken.setdefault(name, []).append((time.perf_counter() - begin) * 1000)

    def published(*place: Any) -> None:
        # Clocked inside the start: its difference to one without a port is mostly noise.
        begin = time.perf_counter()
        publish(*place)
        clock("published", begin)

    publishing.publish = published  # type: ignore[assignment]
    try:
        for number in range(ROUNDS):
            for name, ports in (("", []), ("+", [PortRequest("tcp", 80)])):
                container = f"{number:063x}{'1' if name else '0'}"
                asked = request(root, container, Attachment("bench"), ports)
                begin = time.perf_counter()
                busy = time.thread_time()
                networks.start(asked)
                clock(f"attach{name}", begin)
                taken.setdefault(f"attach{name}, processor", []).append(
                    (time.thread_time() - busy) * 1000
                )
                if ports:
                    (pair,) = networks._inventory.pairs(container)
                    network, view = drivers.network(record), drivers.endpoint(pair[0])
                    port = PublishedPort("tcp", 81, ip_address("0.0.0.0"), 20000 + number)
                    begin = time.perf_counter()
                    call.port_publish(network, view, port)
                    clock("publish", begin)
                begin = time.perf_counter()
                networks.stop(container)
                clock(f"detach{name}", begin)
                networks.release(container)
                # The kernel takes the pair down in its own time, with the lock that every change
                # of links waits for: a round is not to pay for the one before.
                eventually(lambda: not _pairs_left(), "the kernel has taken the links down", 10)
    finally:
        networks.remove("bench")
        networks.close()
    # The first rounds import, and fill caches.
    return {name: statistics.median(values[5:]) for name, values in taken.items()}


def _pairs_left() -> bool:
    with Netlink() as netlink:
        return any(link.kind == "veth" for link in netlink.links())


def request(root: Path, container: str, attachment, ports):  # type: ignore[no-untyped-def]
    from drivetrain_engine.networks import SandboxRequest

    return SandboxRequest(
        container_id=container, name=container[-8:], hostname="bench", domainname="",
        attachments=[attachment], ports=ports, dns=[], dns_search=[], dns_options=[],
        extra_hosts=[], sysctls={}, directory=root,
    )  # fmt: skip


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(dir=sys.argv[1]) as folder:
        print(json.dumps(_inside(Path(folder))))
