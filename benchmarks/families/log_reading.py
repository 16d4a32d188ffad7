"""Reading logs back: whole, the end, since a moment, and how soon a follow has a line."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

from benchmarks.families.log_drivers import start_journal
from benchmarks.logsink import KINDS, Sink
from benchmarks.measuring import Measured, calling, interleave, milliseconds
from benchmarks.peers import Dockerd, Engine, Peers
from benchmarks.table import Row
from benchmarks.writers import Writers, line_of, number_lines, wait

ROUNDS = 3
FOLLOWS = 15
#: Lines that are there; those of syslog are in the read cache.
LINES = {"json-file": 100_000, "local": 100_000, "journald": 10_000, "syslog": 100_000}
LAST = "last"


def measure(peers: Peers) -> Iterator[Row]:
    """Measure docker's client with each engine."""
    engines = [engine for engine in (peers.engine, peers.dockerd) if engine is not None]
    folder = peers.engine.host.root / "lines"
    folder.mkdir(mode=0o711)
    number_lines(folder, "all", max(LINES.values()))
    number_lines(folder, LAST, 1)
    for driver in LINES:
        with ExitStack() as stack:
            logs = {engine.name: _Log(stack, engine, driver, folder) for engine in engines}
            yield from _rows(driver, logs, peers.note)


class _Log:
    """A container that has written its lines with one engine."""

    def __init__(
        self, stack: ExitStack, engine: Engine | Dockerd, driver: str, folder: Path
    ) -> None:
        options: list[str] = []
        if driver in KINDS:
            options = stack.enter_context(closing(Sink(driver, engine.inside))).options
        elif driver == "journald":
            start_journal(stack)
        arguments = [f"--log-driver={driver}", *(f"--log-opt={option}" for option in options)]
        self._engine = engine
        self._writers = stack.enter_context(closing(Writers(engine, folder, 1, arguments)))
        self.container = self._writers.containers[0]
        count = LINES[driver]
        self._writers.write(1, count, "all")
        last = line_of("all", count - 1)
        wait(lambda: self._writers.logged(0, last))
        time.sleep(1.1)
        self._moment = f"{time.time():.9f}"
        self._writers.write(1, 1, LAST)
        wait(lambda: self._writers.logged(0, line_of(LAST, 0)))

    def reading(self, *options: str) -> Measured:
        """Return a work: ``docker logs`` with options."""
        return calling(self._engine.docker("logs", *options, self.container))

    def since(self) -> Measured:
        """Return a work: the last line alone, by its time."""
        return self.reading("--since", self._moment)

    def follow(self) -> float:
        """Return the seconds from telling the container to write a line to reading it."""
        with socket.socket(socket.AF_UNIX) as link:
            link.connect(str(self._engine.socket))
            path = f"/containers/{self.container}/logs?stdout=1&follow=1&tail=1"
            link.sendall(f"GET {path} HTTP/1.1\r\nHost: e\r\n\r\n".encode())
            self._until(link, 1)
            time.sleep(0.05)
            begin = time.perf_counter()
            self._writers.write(1, 1, LAST)
            self._until(link, 1)
            return time.perf_counter() - begin

    @staticmethod
    def _until(link: socket.socket, count: int) -> None:
        data = b""
        while data.count(line_of(LAST, 0)) < count:
            data += link.recv(65536)


def _rows(driver: str, logs: dict[str, _Log], note: str) -> Iterator[Row]:
    count = LINES[driver]
    cached = " (read cache)" if driver in KINDS else ""
    works = {
        f"all of {count:,} lines": {name: log.reading() for name, log in logs.items()},
        "--tail 10": {name: log.reading("--tail", "10") for name, log in logs.items()},
        "--since the last line": {name: log.since() for name, log in logs.items()},
        "--follow, until a line is there": {name: log.follow for name, log in logs.items()},
    }
    for title, turns in works.items():
        rounds = FOLLOWS if "follow" in title else ROUNDS
        taken = {name: milliseconds(s) for name, s in interleave(turns, rounds).items()}
        yield Row(
            f"logs, {driver}{cached}: {title}", "ms", taken["engine"], taken.get("dockerd"),
            ratio=1.0, note=note,
        )  # fmt: skip
