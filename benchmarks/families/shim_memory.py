"""Memory of the process beside each idle container."""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measuring import command
from benchmarks.peers import IMAGE, Peers
from benchmarks.table import Row

CONTAINERS = 10
BUDGET = 0.6


def measure(peers: Peers) -> Iterator[Row]:
    """Measure the proportional set size of the shims of sleeping containers."""
    engine, dockerd = peers.engine, peers.dockerd
    # By what their command lines name: other engines of this machine have shims, too.
    ours = _median(
        engine.docker("run", "-d", IMAGE, "sleep", "1000"), "shim:", engine.host.exec_root
    )
    theirs = None
    if dockerd is not None:
        run = dockerd.docker("run", "-d", IMAGE, "sleep", "1000")
        theirs = _median(run, "containerd-shim", dockerd.root)
    name = "memory of an idle container's shim"
    yield Row(name, "MB", ours, theirs, limit=BUDGET, note=peers.note)


def _median(run: list[str], name: str, root: Path) -> float:
    """Start containers and return the median memory in MB of the processes called so."""
    for _ in range(CONTAINERS):
        command(run)
    time.sleep(2)  # what starting left behind has been given back by then
    return statistics.median(map(_proportional, _called(name, root)))


def _called(name: str, root: Path) -> set[int]:
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                ours = bytes(root) in (entry / "cmdline").read_bytes()
                if ours and (entry / "comm").read_text().startswith(name):
                    found.add(int(entry.name))
            except OSError:
                continue
    return found


def _proportional(pid: int) -> float:
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = re.search(r"^Pss:\s+(\d+) kB", rollup, re.M)
    assert found is not None
    return int(found[1]) / 1024
