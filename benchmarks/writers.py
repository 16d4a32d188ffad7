"""Containers that wait, and write numbered lines when they are told to."""

from __future__ import annotations

import os
import re
import subprocess
import time
import urllib.parse
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.measuring import PATIENCE, command
from benchmarks.peers import IMAGE, Api, Dockerd, Engine

LENGTH = 100
#: No polling: a container that waits costs nothing.
SCRIPT = "while :; do read count file < /d/$0 && head -n $count /d/$file; done"


def number_lines(folder: Path, name: str, count: int) -> None:
    """Write a file of lines; each says its file and its number."""
    head = name.encode()
    lines = (b"%b.%0*d\n" % (head, LENGTH - len(head) - 2, n) for n in range(count))
    (folder / name).write_bytes(b"".join(lines))


def line_of(name: str, number: int) -> bytes:
    """Return a line of such a file."""
    return b"%b.%0*d" % (name.encode(), LENGTH - len(name) - 2, number)


class Writers:
    """Some containers of one engine with the same log options.

    Args:
        engine: whose.
        folder: with the files of lines.
        count: how many containers.
        options: of the log, for ``docker run``.
    """

    def __init__(
        self, engine: Engine | Dockerd, folder: Path, count: int, options: Sequence[str]
    ) -> None:
        self._engine = engine
        self._gates = [folder / f"{engine.name}.{place}" for place in range(count)]
        for gate in self._gates:
            os.mkfifo(gate)
        before = memory(engine)

        def start(gate: Path) -> str:
            run = ["run", "-d", "--network=none", "-v", f"{folder}:/d", *options, IMAGE]
            return command(engine.docker(*run, "sh", "-c", SCRIPT, gate.name)).strip()

        with ThreadPoolExecutor(4) as pool:
            self.containers = list(pool.map(start, self._gates))
        self.api = Api(engine.socket)
        #: Bytes that one more container takes, with its log driver.
        self.memory = (memory(engine) - before) / count

    def write(self, places: int, count: int, file: str) -> None:
        """Have the first so many containers write the first lines of a file, all at once."""
        for gate in self._gates[:places]:
            with gate.open("w") as writing:
                writing.write(f"{count} {file}\n")

    def logged(self, place: int, line: bytes) -> bool:
        """Whether a line is the last of a container's log, as the engine reads it."""
        path = f"/containers/{self.containers[place]}/logs?stdout=1&tail=1"
        return line in self.api.get(path)

    def journalled(self, place: int, line: bytes) -> bool:
        """Whether a line is the last of a container in the journal."""
        match = f"CONTAINER_ID_FULL={self.containers[place]}"
        found = subprocess.run(
            ["journalctl", "-q", "-n1", "-ocat", "--no-pager", match], capture_output=True
        )
        return line in found.stdout

    def close(self) -> None:
        """Remove them."""
        self.api.close()
        command(self._engine.docker("rm", "-f", *self.containers))
        for gate in self._gates:
            gate.unlink()


def wait(condition: Callable[[], bool]) -> None:
    """Look every few milliseconds whether it holds.

    Raises:
        RuntimeError: it takes too long.
    """
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError("records do not arrive")
        time.sleep(0.005)


def processor(engine: Engine | Dockerd) -> float:
    """Return the seconds that the processes of an engine have used; not those of containers."""
    ticks = 0
    for pid in engine.processes():
        try:
            stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ticks += int(stat[11]) + int(stat[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def memory(engine: Engine | Dockerd) -> float:
    """Return the bytes of memory of the processes of an engine, as their proportional share."""
    total = 0
    for pid in engine.processes():
        try:
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue
        found = re.search(r"^Pss:\s+(\d+) kB", rollup, re.M)
        total += int(found[1]) * 1024 if found else 0
    return total


def since(seconds: float) -> str:
    """Return a moment for the API's ``since``."""
    return urllib.parse.quote(f"{seconds:.9f}")
