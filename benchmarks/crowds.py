"""A thousand networks, and a thousand endpoints on one: a process in a namespace of its own.

What is measured at the thousandth stands beside the same at the first, since what grows is what
hurts.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from ipaddress import ip_interface, ip_network
from pathlib import Path
from typing import Any

from drivetrain.host import namespaces
from drivetrain.host.netlink import Netlink
from drivetrain.network import Endpoint, Network, Sandbox, Subnet
from drivetrain.registry import Registry

COUNT = 1000
#: So many at the beginning and at the end are compared.
EDGE = 40


def clocked(work: Callable[[], Any]) -> float:
    """Return the milliseconds that a call takes."""
    begin = time.perf_counter()
    work()
    return (time.perf_counter() - begin) * 1000


def edges(taken: list[float]) -> tuple[float, float]:
    """Return the medians of the beginning and of the end."""
    # The very first ones import, and fill caches.
    return statistics.median(taken[5 : 5 + EDGE]), statistics.median(taken[-EDGE:])


def many_networks(root: Path) -> dict[str, float]:
    """Make a thousand bridges by the service; return milliseconds."""
    from benchmarks.families.network import request
    from drivetrain_engine.networks import Attachment, Networks, NetworkSettings
    from drivetrain_engine.state import Events, State

    networks = Networks(
        root=root / "networks", exec_root=root / "exec", state=State(root / "state.db"),
        registry=Registry(), events=Events(), settings=NetworkSettings(),
    )  # fmt: skip
    networks._drivers.sync(["bridge"])

    def make(number: int) -> None:
        subnet = {"Subnet": f"10.{64 + number // 256}.{number % 256}.0/24"}
        name = f"net{number}"
        networks.create({"Name": name, "Driver": "bridge", "IPAM": {"Config": [subnet]}})

    def attach(network: str) -> float:
        taken = []
        for number in range(12):
            asked = request(root, f"{number:064x}", Attachment(network), [])
            taken.append(clocked(lambda asked=asked: networks.start(asked)))  # type: ignore[misc]
            networks.stop(asked.container_id)
            networks.release(asked.container_id)
        return statistics.median(taken[2:])

    made = [clocked(lambda: make(0))]
    found = {"attach at 1": attach("net0")}
    made += [clocked(lambda number=number: make(number)) for number in range(1, COUNT)]  # type: ignore[misc]
    found["create at 1"], found["create at 1000"] = edges(made)
    found["attach at 1000"] = attach(f"net{COUNT - 1}")
    middle = f"net{COUNT // 2}"
    found["ls"] = statistics.median(clocked(networks.list) for _ in range(5))
    found["inspect"] = statistics.median(
        clocked(lambda: networks.inspect(middle)) for _ in range(5)
    )
    removed = [clocked(lambda n=n: networks.remove(f"net{n}")) for n in range(EDGE)]  # type: ignore[misc]
    found["remove at 1000"] = statistics.median(removed)
    networks.close()
    return found


def many_endpoints(root: Path) -> dict[str, float]:
    """Join a thousand sandboxes to one bridge by the driver; return milliseconds."""
    driver = Registry().network("bridge")
    (root / "bridge").mkdir()
    call, prefix = driver.call, ip_network("10.60.0.0/16")
    from drivetrain.options import parse_options

    call.network_open(root / "bridge", parse_options("bridge", (), {}))
    options = parse_options("bridge", call.network_options(), {})
    network = Network("e" * 64, "crowd", (Subnet(prefix, prefix[1]),), options)
    call.network_sync([])
    call.network_create(network)
    places: list[Path] = []

    def join(number: int) -> None:
        path = root / f"sandbox{number}"
        namespaces.new_network_namespace(path)
        places.append(path)
        address = ip_interface(f"{prefix[number + 2]}/16")
        mac = "02:42:" + ":".join(f"{byte:02x}" for byte in address.packed)
        endpoint = Endpoint(f"{number:064x}", f"{number:064x}", (address,), mac)
        link = call.endpoint_join(network, endpoint, Sandbox(path))
        with Netlink(path) as inside:
            inside.configure(
                "eth0", addresses=(address,), gateways=link.gateways, loopback=True
            )

    try:
        taken = [clocked(lambda number=number: join(number)) for number in range(COUNT)]  # type: ignore[misc]
    finally:
        for path in places:
            namespaces.remove_network_namespace(path)
        call.network_close()
    first, last = edges(taken)
    return {"join at 1": first, "join at 1000": last}


def main() -> None:
    """Print what was measured as JSON."""
    with tempfile.TemporaryDirectory(dir=sys.argv[1]) as text:
        root = Path(text)
        found = namespaces.run_in_new(lambda: many_networks(root))
        found |= namespaces.run_in_new(lambda: many_endpoints(root))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
