"""Log drivers of running containers: several at once, receivers that are down, reading."""

from __future__ import annotations

import json
import os
import signal
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from drivetrain.testing.hosts import Host, eventually
from drivetrain.testing.logreceivers import Fluentd, Rsyslog


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="rx-", dir="/tmp") as name:
        yield Path(name)


@pytest.fixture
def rsyslog(host: Host, folder: Path) -> Iterator[Rsyslog]:
    """A receiver that is not started yet."""
    receiver = Rsyslog(folder, host.inside)
    yield receiver
    receiver.close()


def options(receiver: Rsyslog | Fluentd) -> list[str]:
    return [f"--log-opt={key}={value}" for key, value in receiver.options.items()]


def inspect(host: Host, name: str) -> dict[str, object]:
    document: dict[str, object] = json.loads(host.docker("inspect", name).stdout)[0]
    return document


def status(host: Host, name: str, driver: str) -> dict[str, object]:
    drivers = inspect(host, name)["LogDrivers"]
    assert isinstance(drivers, list)
    found: dict[str, object] = next(each for each in drivers if each["Driver"] == driver)
    return found


def fetch(host: Host, path: str) -> str:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(host.socket))
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: e\r\nConnection: close\r\n\r\n".encode())
        with connection.makefile("rb") as file:
            return file.read().decode()


def test_several_drivers_get_every_record(host: Host, rsyslog: Rsyslog, folder: Path) -> None:
    fluentd = Fluentd(folder, host.inside)
    rsyslog.start()
    fluentd.start()
    try:
        host.engine(
            "run", "--name", "many",
            "--log-driver", "json-file", "--log-driver", "syslog", "--log-driver", "fluentd",
            "--log-opt", "json-file:max-size=1m", "--log-opt", "max-file=2",
            "--log-opt", "tag={{.Name}}", "--log-opt", "syslog:tag=other",
            *options(rsyslog), *options(fluentd), "busybox", "sh", "-c", "seq 1000; echo bad >&2",
        )  # fmt: skip
        wanted = [str(number) for number in range(1, 1001)]
        for receiver, tag in ((rsyslog, "other["), (fluentd, "many")):
            records = receiver.wait(1001)
            assert [r.text for r in records if r.stream == "stdout"] == wanted
            assert [r.text for r in records if r.stream == "stderr"] == ["bad"]
            assert tag in records[0].raw
    finally:
        fluentd.close()
    assert host.docker("logs", "many").stdout.split() == wanted
    config = inspect(host, "many")["HostConfig"]
    assert isinstance(config, dict)
    assert config["LogConfig"] == {
        "Type": "json-file",
        "Config": {"max-size": "1m", "max-file": "2", "tag": "{{.Name}}"},
    }
    assert [each["Type"] for each in config["ExtraLogConfigs"]] == ["syslog", "fluentd"]
    assert config["ExtraLogConfigs"][0]["Config"]["tag"] == "other"


def test_records_of_a_container_that_has_ended_arrive_later(host: Host, rsyslog: Rsyslog) -> None:
    host.engine(
        "run", "--name", "gone", "--log-driver", "syslog", *options(rsyslog), "busybox", "seq", "9"
    )
    assert "refused" in str(status(host, "gone", "syslog")["Error"])
    assert int(str(status(host, "gone", "syslog")["WaitingBytes"])) > 0
    assert host.docker("logs", "gone").stdout.split() == [str(n) for n in range(1, 10)]
    rsyslog.start()
    assert [record.text for record in rsyslog.wait(9)] == [str(n) for n in range(1, 10)]
    eventually(lambda: not status(host, "gone", "syslog")["WaitingBytes"], "nothing waits")


def test_records_outlive_the_daemon_and_the_container(host: Host, rsyslog: Rsyslog) -> None:
    for name in ("one", "two"):
        host.engine(
            "run", "--rm", "--name", name, "--log-driver", "syslog", *options(rsyslog),
            "busybox", "echo", f"from {name}",
        )  # fmt: skip
    assert not host.docker("ps", "-aq").stdout
    assert host.stop() == 0
    host.start()
    rsyslog.start()
    assert sorted(record.text for record in rsyslog.wait(2)) == ["from one", "from two"]
    place = host.data_root / "undelivered"
    eventually(lambda: not list(place.iterdir()), "nothing is kept any more")


def test_a_strict_start_needs_the_receiver(host: Host, rsyslog: Rsyslog) -> None:
    strict = ["--log-driver", "syslog", "--log-opt", "strict-start=true", *options(rsyslog)]
    refused = host.engine("run", "--rm", *strict, "busybox", "true", check=False)
    assert refused.returncode != 0
    assert "cannot connect to tcp://127.0.0.1" in refused.stderr
    rsyslog.start()
    host.engine("run", "--rm", *strict, "busybox", "echo", "there")
    assert [record.text for record in rsyslog.wait(1)] == ["there"]


def test_what_happens_to_a_receiver_is_told_in_events_and_metrics(
    host: Host, rsyslog: Rsyslog
) -> None:
    begun = str(time.time() - 1)
    host.engine(
        "run", "-d", "--name", "told", "--log-driver", "syslog", "--log-opt", "spool-size=1m",
        *options(rsyslog), "busybox", "sh", "-c", "yes 0123456789 | head -n 300000; sleep 100",
    )  # fmt: skip
    eventually(
        lambda: int(str(status(host, "told", "syslog")["DroppedLines"])) > 100_000,
        "the oldest lines are given up",
    )

    def told() -> list[str]:
        arguments = ("events", "--since", begun, "--until", str(time.time()))
        return host.docker(*arguments, "--format", "{{.Action}}").stdout.split()

    eventually(lambda: {"log-unavailable", "log-dropped"} <= set(told()), "both events")
    rsyslog.start()
    eventually(lambda: "log-available" in told(), "the receiver is back")
    dropped = int(str(status(host, "told", "syslog")["DroppedLines"]))
    eventually(lambda: not status(host, "told", "syslog")["WaitingBytes"], "all is delivered")
    # What was in the driver's hands when its segment was given up has arrived after all.
    dropped = int(str(status(host, "told", "syslog")["DroppedLines"]))
    rsyslog.wait(300_000 - dropped)
    assert rsyslog.count() == 300_000 - dropped
    metrics = fetch(host, "/metrics")
    assert f'engine_log_dropped_lines_total{{name="told",driver="syslog"}} {dropped}' in metrics


def test_a_spool_that_blocks_makes_the_container_wait(host: Host, rsyslog: Rsyslog) -> None:
    script = "yes 0123456789 | head -n 400000; echo end; sleep 100"
    host.engine(
        "run", "-d", "--name", "waits", "--log-driver", "syslog", "--log-opt", "spool-size=1m",
        "--log-opt", "spool-full=block", *options(rsyslog), "busybox", "sh", "-c", script,
    )  # fmt: skip
    eventually(
        lambda: int(str(status(host, "waits", "syslog")["WaitingBytes"])) >= 1 << 20, "it is full"
    )
    assert "end" not in host.docker("logs", "--tail", "1", "waits").stdout
    assert "yes" in host.docker("top", "waits").stdout
    rsyslog.start()
    rsyslog.wait(400_001)
    assert rsyslog.received()[-1].text == "end"
    assert status(host, "waits", "syslog")["DroppedLines"] == 0


def test_a_killed_shim_takes_no_record_with_it(host: Host, rsyslog: Rsyslog) -> None:
    script = "seq 100000; sleep 100"
    host.engine(
        "run", "-d", "--name", "killed", "--log-driver", "json-file", "--log-driver", "syslog",
        *options(rsyslog), "busybox", "sh", "-c", script,
    )  # fmt: skip
    eventually(
        lambda: host.docker("logs", "--tail", "1", "killed").stdout == "100000\n", "all is logged"
    )
    shim = shim_of(int(host.docker("inspect", "-f", "{{.State.Pid}}", "killed").stdout))
    os.kill(shim, signal.SIGKILL)
    eventually(
        lambda: "Exited" in host.docker("ps", "-a", "--filter", "name=killed").stdout,
        "its end is noted",
    )
    rsyslog.start()
    wanted = [str(number) for number in range(1, 100_001)]
    assert [record.text for record in rsyslog.wait(100_000)] == wanted
    assert host.docker("logs", "killed").stdout.split() == wanted


def shim_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.mark.parametrize(
    "driver", [["json-file"], ["local"], ["syslog"], ["none", "local"], ["syslog", "json-file"]]
)
def test_logs_has_all_its_options_whatever_the_driver(
    host: Host, rsyslog: Rsyslog, driver: list[str]
) -> None:
    drivers = [f"--log-driver={name}" for name in driver]
    extra = options(rsyslog) if "syslog" in driver else []
    script = (
        "echo one; sleep 1.2; echo two >&2; sleep 1.2; echo three; "
        "while [ ! -e /go ]; do sleep 0.1; done; echo four"
    )
    host.engine(
        "run", "-d", "--name", "read", "--label", "team=blue", *drivers, *extra,
        "--log-opt", "labels=team", "busybox", "sh", "-c", script,
    )  # fmt: skip
    eventually(lambda: "three" in host.docker("logs", "read").stdout, "three lines")
    stamped = host.docker("logs", "-t", "read").stdout.splitlines()
    moment = stamped[1].split()[0]
    assert host.docker("logs", "--since", moment, "read").stdout == "three\n"
    assert host.docker("logs", "--until", stamped[0].split()[0], "read").stdout == "one\n"
    assert host.docker("logs", "--tail", "2", "read").stderr == "two\n"
    assert host.docker("logs", "--details", "--tail", "1", "read").stdout == "team=blue three\n"
    host.docker("exec", "read", "touch", "/go")
    assert host.docker("logs", "-f", "--tail", "1", "read").stdout.split()[-1] == "four"


def test_a_cache_can_be_bounded_and_switched_off(host: Host, rsyslog: Rsyslog) -> None:
    syslog = ["--log-driver", "syslog", *options(rsyslog)]
    cache = ["--log-opt=cache-max-size=64k", "--log-opt=cache-max-file=2"]
    host.engine("run", "--name", "bounded", *syslog, *cache, "busybox", "seq", "200000")
    lines = host.docker("logs", "bounded").stdout.split()
    assert lines[-1] == "200000"
    assert len(lines) < 100_000
    host.engine("run", "--name", "off", *syslog, "--log-opt=cache-disabled=1", "busybox", "true")
    refused = host.docker("logs", "off", check=False)
    assert "does not support reading" in refused.stderr


def test_lines_may_stay_whole(host: Host) -> None:
    script = "head -c 300000 /dev/zero | tr '\\0' x; echo; echo end"
    given = ["--log-opt", "max-line-size=1m"]
    host.engine("run", "--name", "whole", *given, "busybox", "sh", "-c", script)
    file = Path(str(inspect(host, "whole")["LogPath"]))
    sizes = [len(json.loads(line)["log"]) for line in file.read_text().splitlines()]
    assert sizes == [300_001, 4]
