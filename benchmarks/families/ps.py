"""Listing a thousand containers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from benchmarks.measuring import Measured, calling, command, interleave, milliseconds
from benchmarks.peers import IMAGE, Api, Peers
from benchmarks.table import Row

CONTAINERS = 1000
ROUNDS = 7
BUDGET = 3.0


def measure(peers: Peers) -> Iterator[Row]:
    """Measure ``ps -a`` of our client and docker's."""
    engine, dockerd, podman = peers.engine, peers.dockerd, peers.podman
    _fill(engine.socket)
    works: dict[str, Measured] = {
        "engine ps": calling(engine.engine("ps", "-a")),
        "docker ps": calling(engine.docker("ps", "-a")),
    }
    if dockerd is not None:
        _fill(dockerd.socket)
        works["dockerd"] = calling(dockerd.docker("ps", "-a"))
    if podman is not None:
        podman.serve()
        _fill(podman.socket)
        works["podman"] = calling(podman.podman("ps", "-a"))
        assert len(command(podman.podman("ps", "-aq")).split()) == CONTAINERS
    assert len(command(engine.docker("ps", "-aq")).split()) == CONTAINERS
    taken = {name: milliseconds(value) for name, value in interleave(works, ROUNDS).items()}
    for client in ("engine", "docker"):
        yield Row(
            f"{client} ps -a, {CONTAINERS:,} containers", "ms", taken[f"{client} ps"],
            taken.get("podman"), peer="podman", ratio=BUDGET, note=peers.note,
        )  # fmt: skip
    yield Row(
        f"docker ps -a, {CONTAINERS:,} containers", "ms", taken["docker ps"],
        taken.get("dockerd"), note=peers.note,
    )  # fmt: skip


def _fill(socket: Path) -> None:
    """Make the containers by one connection: a client for each would take minutes."""
    api = Api(socket)
    body = {"Image": IMAGE, "Cmd": ["true"], "HostConfig": {"NetworkMode": "none"}}
    for _ in range(CONTAINERS):
        api.post("/containers/create", body)
    api.close()
