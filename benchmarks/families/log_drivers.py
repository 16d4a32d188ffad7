"""Lines through each log driver until its receiver has them all, from 1 and from 20 containers."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

from benchmarks.logsink import KINDS, Sink
from benchmarks.measuring import Measured, interleave
from benchmarks.peers import Dockerd, Engine, Peers
from benchmarks.table import Row
from benchmarks.writers import Writers, line_of, number_lines, processor, wait
from drivetrain.testing.logreceivers import Journal

MANY = 20
ROUNDS = 1
#: Lines of a round; slow drivers get fewer.
LINES = {"json-file": 200_000, "local": 200_000, "syslog": 100_000, "journald": 20_000}
FEW = 30_000
DRIVERS = ("json-file", "local", "syslog", "journald", "gelf", "fluentd", "splunk")
MODES = {"blocking": (), "non-blocking": ("mode=non-blocking", "max-buffer-size=64m")}
#: Lower bounds of lines a second, as parts of dockerd's.
BUDGETS = {"json-file": 1.7, "journald": 1.5}


def measure(peers: Peers) -> Iterator[Row]:
    """Measure lines a second, processor time, and the memory of containers for every driver."""
    engines = [engine for engine in (peers.engine, peers.dockerd) if engine is not None]
    folder = peers.engine.host.root / "lines"
    folder.mkdir(mode=0o711)
    for number in range(1 + ROUNDS):
        for part in ("one", "many"):
            number_lines(folder, f"{part}{number}", max(LINES.values()))
    for driver in DRIVERS:
        for mode, options in MODES.items():
            with ExitStack() as stack:
                works = {
                    engine.name: _Work(stack, engine, driver, options, folder) for engine in engines
                }
                yield from _rows(f"{driver}, {mode}", driver, works, peers.note)


class _Work:
    """One engine with one driver: its containers, and what takes their records."""

    def __init__(
        self, stack: ExitStack, engine: Engine | Dockerd, driver: str,
        options: tuple[str, ...], folder: Path,
    ) -> None:  # fmt: skip
        self._engine = engine
        self._sink: Sink | None = None
        chosen = list(options)
        if driver in KINDS:
            self._sink = stack.enter_context(closing(Sink(driver, engine.inside)))
            chosen += self._sink.options
            chosen += KINDS[driver].dockerd if isinstance(engine, Dockerd) else ()
        elif driver == "journald":
            start_journal(stack)
        else:
            chosen.append("max-size=1g")
        arguments = [f"--log-driver={driver}", *(f"--log-opt={option}" for option in chosen)]
        self.writers = stack.enter_context(closing(Writers(engine, folder, MANY, arguments)))
        self._arrived = self.writers.journalled if driver == "journald" else self.writers.logged
        #: Seconds of processors, of each round.
        self.spent: dict[int, list[float]] = {}

    def writing(self, places: int, count: int) -> Measured:
        """Return a work: so many containers write so many lines together."""
        part = "one" if places == 1 else "many"
        each = count // places
        turn = 0

        def work() -> float:
            nonlocal turn
            file = f"{part}{turn}"
            turn += 1
            before = self._sink.count() if self._sink else 0
            spent, begin = processor(self._engine), time.perf_counter()
            self.writers.write(places, each, file)
            if self._sink is not None:
                sink = self._sink
                wait(lambda: sink.count() - before >= each * places)
            else:
                last = line_of(file, each - 1)
                for place in range(places):
                    wait(lambda place=place: self._arrived(place, last))
            taken = time.perf_counter() - begin
            self.spent.setdefault(places, []).append(processor(self._engine) - spent)
            return taken

        return work


def start_journal(stack: ExitStack) -> None:
    """Start the journal, one for both: there is one on a machine."""
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="rb-", dir="/tmp"))
    journal = Journal(Path(folder))
    if not journal.ready():
        journal.start()
        stack.callback(journal.close)


def _rows(title: str, driver: str, works: dict[str, _Work], note: str) -> Iterator[Row]:
    count = LINES.get(driver, FEW)
    for places in (1, MANY):
        turns = {name: work.writing(places, count) for name, work in works.items()}
        taken = interleave(turns, ROUNDS)
        who = f"{title}, {places} container{'s'[: places - 1]}"
        speeds = {name: count / seconds for name, seconds in taken.items()}
        spent = {name: min(work.spent[places]) * 1e6 / count for name, work in works.items()}
        yield Row(
            who, "lines/s", speeds["engine"], speeds.get("dockerd"),
            ratio=BUDGETS.get(driver, 1.0), more=True, note=note,
        )  # fmt: skip
        yield Row("  processor per line", "µs", spent["engine"], spent.get("dockerd"), ratio=1.0)
    grown = {name: work.writers.memory / 1e6 for name, work in works.items()}
    yield Row("  memory of a container", "MB", grown["engine"], grown.get("dockerd"), ratio=1.0)
