"""From the command to the end of a container that does nothing."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.measuring import Measured, calling, interleave, milliseconds
from benchmarks.peers import IMAGE, Peers
from benchmarks.table import Row

ROUNDS = 15
#: The budgets for docker's client, as parts of dockerd's time, by network.
BUDGETS = {"bridge": 0.25, "none": 0.3, "host": 0.4}
OWN_CLIENT = 0.45
#: podman's own need CAP_SYS_RESOURCE.
_LIMITS = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024")


def measure(peers: Peers) -> Iterator[Row]:
    """Measure ``run --rm`` on every network, with docker's client and ours."""
    engine, dockerd, podman = peers.engine, peers.dockerd, peers.podman
    works: dict[str, Measured] = {}
    for network in BUDGETS:
        arguments = ("run", "--rm", "--network", network, IMAGE, "true")
        works[f"ours {network}"] = calling(engine.docker(*arguments))
        if dockerd is not None:
            works[f"dockerd {network}"] = calling(dockerd.docker(*arguments))
    works["own client"] = calling(engine.engine("run", "--rm", IMAGE, "true"))
    if podman is not None:
        works["podman"] = calling(
            podman.podman("run", "--rm", "--network", "none", *_LIMITS, IMAGE, "true")
        )
    taken = {name: milliseconds(value) for name, value in interleave(works, ROUNDS).items()}
    for network, budget in BUDGETS.items():
        yield Row(
            f"docker run --rm busybox true, {network}", "ms", taken[f"ours {network}"],
            taken.get(f"dockerd {network}"), ratio=budget, note=peers.note,
        )  # fmt: skip
    yield Row(
        "engine run --rm busybox true, bridge", "ms", taken["own client"],
        taken.get("dockerd bridge"), ratio=OWN_CLIENT, note=peers.note,
    )  # fmt: skip
    yield Row(
        "docker run --rm busybox true, none", "ms", taken["ours none"], taken.get("podman"),
        peer="podman", note=peers.note,
    )  # fmt: skip
