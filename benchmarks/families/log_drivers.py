"""Lines through each log driver until its receiver has them all, from 1 and from 20 containers."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from benchmarks.measuring import Measured, command, interleave
from benchmarks.peers import IMAGE, Dockerd, Engine, Peers
from benchmarks.table import Row
from drivetrain.testing.logreceivers import Fluentd, GelfTcp, Journal, Receiver, Rsyslog

LINES = 20_000
LENGTH = 100
ROUNDS = 1
MANY = 20
#: Of dockerd's time; the journal takes its own, whoever sends.
BUDGETS = {"json-file": 0.6, "journald": 0.67}
FILES: tuple[str, ...] = ("json-file", "local")
RECEIVERS: dict[str, type[Receiver]] = {
    "syslog": Rsyslog,
    "fluentd": Fluentd,
    "gelf": GelfTcp,
    "journald": Journal,
}
MODES = {"blocking": (), "non-blocking": ("mode=non-blocking", "max-buffer-size=64m")}


def measure(peers: Peers) -> Iterator[Row]:
    """Measure every driver in both modes, and json-file and fluentd with many containers."""
    engines = [engine for engine in (peers.engine, peers.dockerd) if engine is not None]
    folder = peers.engine.host.root
    content = b"".join(b"%0*d\n" % (LENGTH - 1, number) for number in range(LINES))
    (folder / "lines").write_bytes(content)
    for driver in (*FILES, *RECEIVERS):
        for mode, options in MODES.items():
            for count in (1, MANY) if driver in ("json-file", "fluentd") else (1,):
                with ExitStack() as stack:
                    works = {
                        engine.name: _writing(stack, engine, driver, options, folder, count)
                        for engine in engines
                    }
                    taken = interleave(works, ROUNDS, warm=1)
                yield Row(
                    f"{driver}, {mode}: {LINES:,} lines from {count} container{'s'[: count - 1]}",
                    "s", taken["engine"], taken.get("dockerd"),
                    ratio=BUDGETS.get(driver, 1.0), note=peers.note,
                )  # fmt: skip


def _writing(
    stack: ExitStack, engine: Engine | Dockerd, driver: str, options: tuple[str, ...],
    folder: Path, count: int,
) -> Measured:  # fmt: skip
    receiver = _receiver(stack, engine, driver)
    chosen = [*options, *(f"{k}={v}" for k, v in (receiver.options if receiver else {}).items())]
    if driver in FILES:
        chosen.append("max-size=1g")
    arguments = [f"--log-driver={driver}", *(f"--log-opt={option}" for option in chosen)]
    expected = 0
    each = LINES // count

    def work() -> None:
        nonlocal expected
        made = [
            command(
                engine.docker(
                    "run", "-d", "-v", f"{folder}:/d:ro", *arguments, IMAGE,
                    "head", "-n", str(each), "/d/lines",
                )
            ).strip()
            for _ in range(count)
        ]  # fmt: skip
        command(engine.docker("wait", *made))
        if receiver is not None:
            journal = isinstance(receiver, Journal)
            receiver.container_id = made[-1]
            expected = LINES if journal else expected + each * count
            receiver.arrived(expected)

    return work


def _receiver(stack: ExitStack, engine: Engine | Dockerd, driver: str) -> Receiver | None:
    if driver not in RECEIVERS:
        return None
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="rb-", dir="/tmp"))
    kind = RECEIVERS[driver]
    receiver = kind(Path(folder), engine.inside)
    if kind is Journal:
        # One for both: there is one journal on a machine.
        if not receiver.ready():
            receiver.start()
            stack.callback(receiver.close)
        return receiver
    receiver.start()
    stack.callback(receiver.close)
    return receiver
