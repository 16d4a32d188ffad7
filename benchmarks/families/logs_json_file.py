"""A million lines through the json-file driver, and back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from benchmarks.measuring import Measured, calling, command, interleave
from benchmarks.peers import IMAGE, Dockerd, Engine, Peers
from benchmarks.table import Row

LINES = 1_000_000
LENGTH = 100
ROUNDS = 3
BUDGET = 0.35


def measure(peers: Peers) -> Iterator[Row]:
    """Measure a container that writes the lines, until it has ended, and reading them."""
    engines = [engine for engine in (peers.engine, peers.dockerd) if engine is not None]
    lines = peers.engine.host.root / "lines"
    lines.write_bytes(b"".join(b"%0*d\n" % (LENGTH - 1, number) for number in range(LINES)))
    written = interleave({e.name: _writing(e, lines) for e in engines}, ROUNDS)
    read: dict[str, Measured] = {}
    for engine in engines:
        container = command(engine.docker("ps", "-lq")).strip()
        output = command(engine.docker("logs", container)).encode()
        assert output == lines.read_bytes(), f"{engine.name} lost lines"
        read[engine.name] = calling(engine.docker("logs", container))
    reading = interleave(read, ROUNDS, warm=0)
    for what, taken in (("json-file, 1 M lines of 100 bytes", written), ("docker logs", reading)):
        title = what if taken is written else f"{what} of those lines"
        yield Row(title, "s", taken["engine"], taken.get("dockerd"), ratio=BUDGET, note=peers.note)


def _writing(engine: Engine | Dockerd, lines: Path) -> Measured:
    # dockerd's files have no limit unless one is given; ours keep the last 100 MB.
    unlimited = ["--log-opt", "max-size=0"] if isinstance(engine, Engine) else []
    mount = ["-v", f"{lines}:/lines:ro"]

    def work() -> None:
        container = command(
            engine.docker("run", "-d", *unlimited, *mount, IMAGE, "cat", "/lines")
        ).strip()
        command(engine.docker("wait", container))

    return work
