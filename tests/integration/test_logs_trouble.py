"""Logs when processes are killed in mid-stream, and when the disk is full."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from drivetrain.testing.hosts import Host, eventually
from drivetrain.testing.logreceivers import Rsyslog


@pytest.fixture
def rsyslog(fresh_host: Host) -> Iterator[Rsyslog]:
    """A receiver that is not started yet."""
    with tempfile.TemporaryDirectory(prefix="rx-", dir="/tmp") as name:
        receiver = Rsyslog(Path(name), fresh_host.inside)
        yield receiver
        receiver.close()


def syslog_of(receiver: Rsyslog) -> list[str]:
    return ["--log-driver=syslog", *(f"--log-opt={k}={v}" for k, v in receiver.options.items())]


def waiting(host: Host, name: str) -> tuple[int, int]:
    """The bytes that wait for the receiver, and the lines that were given up."""
    status = json.loads(host.docker("inspect", name).stdout)[0]["LogDrivers"]
    for each in status:
        if each["Driver"] == "syslog":
            return int(each["WaitingBytes"]), int(each["DroppedLines"])
    return 0, 0  # its shim was killed, and nothing waits


def settled(receiver: Rsyslog) -> bool:
    """Whether records came, and no more of them within a second."""
    before = receiver.count()
    time.sleep(1)
    return 0 < before == receiver.count()


def test_a_shim_that_is_killed_in_mid_stream_leaves_what_was_read_in_order(
    fresh_host: Host, rsyslog: Rsyslog
) -> None:
    host = fresh_host
    host.start()
    host.load_busybox()
    host.engine(
        "run", "-d", "--name", "cut", "--log-driver=json-file", *syslog_of(rsyslog),
        "busybox", "seq", "100000000",
    )  # fmt: skip
    eventually(lambda: waiting(host, "cut")[0] > 200_000, "it is in mid-stream")
    pid = int(host.docker("inspect", "-f", "{{.State.Pid}}", "cut").stdout)
    shim = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(shim, signal.SIGKILL)
    listed = ("ps", "-a", "--filter", "name=cut")
    eventually(lambda: "Exited" in host.docker(*listed).stdout, "its end is noted")
    assert waiting(host, "cut")[0] > 0
    rsyslog.start()
    eventually(lambda: waiting(host, "cut")[0] == 0, "all is delivered")
    eventually(lambda: settled(rsyslog), "the receiver has written what it took")
    sent = [int(record.text) for record in rsyslog.received()]
    # The oldest may have gone, if the machine was quick: the spool is bounded.
    assert sent == list(range(sent[0], sent[0] + len(sent)))
    kept = [int(line) for line in host.docker("logs", "cut").stdout.split()]
    assert kept == list(range(kept[0], kept[0] + len(kept)))
    # Both drivers are given each batch one after the other, which the kill may have parted.
    assert abs(kept[-1] - sent[-1]) < 300_000


def test_a_full_disk_neither_stops_a_container_nor_mixes_its_records(
    fresh_host: Host, rsyslog: Rsyslog
) -> None:
    host = fresh_host
    place = host.data_root / "containers"
    place.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", place], check=True)
    try:
        host.start()
        host.load_busybox()
        host.engine(
            "run", "--name", "full", *syslog_of(rsyslog), "--log-opt=cache-disabled=1",
            "busybox", "seq", "1000000",
        )  # fmt: skip
        assert waiting(host, "full")[1] > 0
        rsyslog.start()
        eventually(lambda: waiting(host, "full")[0] == 0, "what is left is delivered")
        dropped = waiting(host, "full")[1]
        sent = [int(record.text) for record in rsyslog.wait(1_000_000 - dropped)]
        assert sent == list(range(dropped + 1, 1_000_001))
        host.clear()
        host.stop()
    finally:
        subprocess.run(["umount", place], check=True)
