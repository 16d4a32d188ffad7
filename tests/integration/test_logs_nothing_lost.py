"""Every record reaches every driver's receiver, in order and once, whatever happens to it."""

from __future__ import annotations

import json
import random
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from drivetrain.testing.hosts import Host, eventually
from drivetrain.testing.logreceivers import (
    Collector,
    Fluentd,
    GelfTcp,
    Journal,
    Receiver,
    Rsyslog,
)

PHASES = 4
#: Records of each stream in a phase; 100,000 altogether, with the pieces of long lines on top.
RECORDS = 12_500
PIECE = 16 << 10
RECEIVERS: dict[str, type[Receiver]] = {
    "syslog": Rsyslog,
    "fluentd": Fluentd,
    "gelf": GelfTcp,
    "splunk": Collector,
    "journald": Journal,
}
SCRIPT = """
for i in 0 1 2 3; do
  while [ ! -e /d/go.$i ]; do sleep 0.1; done
  cat /d/stdout.$i & cat /d/stderr.$i >&2; wait
  touch /d/done.$i.$(hostname)
done
while :; do sleep 1; done
"""


def lines_of(stream: str, phase: int) -> list[bytes]:
    """Numbered lines of 0 bytes to 1 MB, some not UTF-8, and runs of newlines only."""
    chance = random.Random(f"{stream}{phase}")
    odd = bytes(byte for byte in range(1, 256) if byte not in b"\n\r")
    found: list[bytes] = []
    for number in range(RECORDS):
        head = b"%s.%d.%d " % (stream.encode(), phase, number)
        match number % 1000:
            case 100:
                found.append(head + bytes(chance.choices(odd, k=chance.randrange(400))))
            case 200 | 201 | 202:
                found.append(b"")
            case 300:
                found.append(head + b"z" * chance.randrange(60_000))
            case _:
                found.append(head)
    found[500] = b"m" * (1 << 20)
    return found


def pieces(lines: list[bytes], limit: int = PIECE) -> list[str]:
    """The records that lines become, as text."""
    return [
        line[start : start + limit].decode("utf-8", "replace")
        for line in lines
        for start in (range(0, len(line), limit) if line else (0,))
    ]


@pytest.fixture(scope="module")
def data() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="nl-", dir="/tmp") as name:
        folder = Path(name)
        for phase in range(PHASES):
            for stream in ("stdout", "stderr"):
                lines = lines_of(stream, phase)
                (folder / f"{stream}.{phase}").write_bytes(b"\n".join(lines) + b"\n")
        yield folder


def expected(stream: str, phases: int = PHASES, limit: int = PIECE) -> list[str]:
    lines = [line for phase in range(phases) for line in lines_of(stream, phase)]
    return pieces(lines, limit)


def statuses(host: Host, name: str) -> list[dict[str, object]]:
    document = json.loads(host.docker("inspect", name).stdout)[0]
    found: list[dict[str, object]] = document["LogDrivers"]
    return found


def start(host: Host, name: str, data: Path, *options: str) -> float:
    """Start the container that writes; returns how many seconds that took."""
    begun = time.monotonic()
    host.engine(
        "run", "-d", "--name", name, "--hostname", name, "-v", f"{data}:/d", *options,
        "busybox", "sh", "-c", SCRIPT,
    )  # fmt: skip
    return time.monotonic() - begun


def delivered(receivers: dict[str, Receiver], phases: int) -> None:
    count = sum(len(expected(stream, phases)) for stream in ("stdout", "stderr"))
    for name, receiver in receivers.items():
        eventually(lambda r=receiver: r.count() >= count, f"{name} has {count} records", 120)


def same(name: str, found: list[str], wanted: list[str]) -> None:
    """Assert equality with a message that can be read."""
    for place, (one, other) in enumerate(zip(found, wanted, strict=False)):
        assert one == other, f"{name}: record {place} is {one[:60]!r} and not {other[:60]!r}"
    assert len(found) == len(wanted), f"{name}: {len(found)} records instead of {len(wanted)}"


@pytest.mark.timeout(280)
def test_nothing_is_lost_while_receivers_are_away_slow_and_restarted(
    fresh_host: Host, data: Path
) -> None:
    host = fresh_host
    host.start()
    host.load_busybox()
    receivers: dict[str, Receiver] = {}
    folders = [tempfile.TemporaryDirectory(prefix="rx-", dir="/tmp") for _ in RECEIVERS]
    try:
        for (name, kind), folder in zip(RECEIVERS.items(), folders, strict=True):
            receivers[name] = kind(Path(folder.name), host.inside)
        # The receivers are down when the containers start: nobody waits for them.
        for name, receiver in receivers.items():
            options = [f"--log-opt={key}={value}" for key, value in receiver.options.items()]
            assert start(host, name, data, f"--log-driver={name}", *options) < 30
            id_ = host.docker("inspect", "-f", "{{.Id}}", name).stdout.strip()
            receiver.container_id = id_
        start(host, "files", data, "--log-driver=json-file", "--log-driver=local")
        whole = ["--log-driver=local", "--log-opt=max-line-size=2m", "--log-opt=mode=non-blocking"]
        start(host, "whole", data, *whole, "--log-opt=max-buffer-size=64m")
        for receiver in receivers.values():
            receiver.start()

        (data / "go.0").touch()
        delivered(receivers, 1)

        for receiver in receivers.values():
            receiver.stop()
        (data / "go.1").touch()
        eventually(
            lambda: all(statuses(host, name)[0]["Error"] for name in receivers),
            "inspect says that the receivers are away",
        )
        for receiver in receivers.values():
            receiver.start()
        delivered(receivers, 2)

        for receiver in receivers.values():
            receiver.freeze()
        (data / "go.2").touch()
        time.sleep(7)
        for receiver in receivers.values():
            receiver.thaw()
        delivered(receivers, 3)

        for receiver in receivers.values():
            receiver.stop()
        (data / "go.3").touch()
        names = (*receivers, "files", "whole")
        eventually(lambda: all((data / f"done.3.{n}").exists() for n in names), "all is written")
        host.kill()
        host.start()
        begun = time.monotonic()
        host.docker("kill", *receivers)
        assert time.monotonic() - begun < 60
        for receiver in receivers.values():
            receiver.start()
        delivered(receivers, PHASES)
        for name, receiver in receivers.items():
            records = receiver.received()
            for stream in ("stdout", "stderr"):
                texts = [record.text for record in records if record.stream == stream]
                same(f"{name} {stream}", texts, expected(stream))
            assert statuses(host, name)[0]["DroppedLines"] == 0
        check_files(host)
    finally:
        for receiver in receivers.values():
            receiver.close()
        for folder in folders:
            folder.cleanup()


def check_files(host: Host) -> None:
    for name in ("files", "whole", "syslog", "splunk"):
        logs = host.docker("logs", name)
        for stream, output in (("stdout", logs.stdout), ("stderr", logs.stderr)):
            lines = [line for phase in range(PHASES) for line in lines_of(stream, phase)]
            text = (b"\n".join(lines) + b"\n").decode(errors="replace")
            same(f"{name} {stream}", output.split("\n"), text.split("\n"))
