"""A whole daemon: its start, its reload, its end, and what it refuses."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from drivetrain.testing.hosts import Host, eventually


@pytest.fixture
def host() -> Iterator[Host]:
    with Host() as made:
        yield made


def ask(host: Host, method: str, path: str) -> Any:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(60)
        client.connect(str(host.socket))
        client.sendall(f"{method} {path} HTTP/1.1\r\nHost: e\r\nConnection: close\r\n\r\n".encode())
        data = b""
        while piece := client.recv(65536):
            data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    if b"application/json" in head:
        return json.loads(body)
    return body


def run_daemon(host: Host, *flags: str) -> subprocess.CompletedProcess[str]:
    """Run a daemon that is expected to end by itself, soon."""
    return subprocess.run(
        [*host.engine_command, *flags], capture_output=True, text=True, timeout=120, check=False
    )


def test_it_tells_about_itself_and_cleans_up_at_the_end(host: Host) -> None:
    host.start("--storage-driver", "vfs", "--label", "zone=a")
    info = ask(host, "GET", "/v1.47/info")
    assert (info["Driver"], info["Labels"]) == ("vfs", ["zone=a"])
    assert (info["Containers"], info["LoggingDriver"]) == (0, "json-file")
    assert info["DockerRootDir"] == str(host.data_root)
    assert info["NCPU"] >= 1 and info["MemTotal"] > 0 and info["ID"]
    version = ask(host, "GET", "/version")
    assert (version["ApiVersion"], version["MinAPIVersion"]) == ("1.50", "1.24")
    pidfile = host.exec_root / "engine.pid"
    assert int(pidfile.read_text()) == host.pid
    assert host.stop() == 0
    assert not host.socket.exists()
    assert not pidfile.exists()


def test_drivers_are_described_with_their_options(host: Host) -> None:
    host.start("--storage-driver", "vfs")
    drivers = ask(host, "GET", "/engine/drivers")
    assert {"family": "storage", "name": "vfs", "default": True, "state": "ok"}.items() <= next(
        each for each in drivers if each["name"] == "vfs"
    ).items()
    found = ask(host, "GET", "/engine/drivers/volume/local")
    assert "volume_mount" in found["hooks"]
    assert {option["name"] for option in found["options"]} >= {"type", "device", "o"}
    metrics = ask(host, "GET", "/metrics").decode()
    assert 'engine_containers{state="running"} 0' in metrics
    assert "# TYPE engine_requests_total counter" in metrics


def test_a_second_daemon_on_the_same_roots_is_refused(host: Host) -> None:
    host.start("--storage-driver", "vfs")
    refused = run_daemon(host, "--storage-driver", "vfs")
    assert refused.returncode == 1
    assert f"used by another daemon (process {host.pid})" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert host.answers()


def test_a_daemon_that_was_killed_can_be_started_again(host: Host) -> None:
    host.start("--storage-driver", "vfs")
    identity = ask(host, "GET", "/info")["ID"]
    host.kill()
    assert host.socket.exists()
    host.start("--storage-driver", "vfs")
    assert ask(host, "GET", "/info")["ID"] == identity


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--storage-driver", "no-such"), "No such storage driver: no-such"),
        (("--log-driver", "no-such"), "No such log driver: no-such"),
        (("--default-runtime", "no-such"), "specified default runtime no-such does not exist"),
        (("--log-opt", "colour=red"), "colour"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(
    host: Host, flags: tuple[str, ...], message: str
) -> None:
    refused = run_daemon(host, *flags)
    assert refused.returncode != 0
    assert message in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not host.socket.exists()


def test_daemon_json_and_flags_must_not_say_the_same(host: Host) -> None:
    host.config_file.write_text('{"log-level": "info", "storage-driver": "vfs"}')
    refused = run_daemon(host, "--log-level", "debug")
    assert refused.returncode == 1
    assert "log-level: (from flag: debug, from file: info)" in refused.stderr
    host.start()
    assert ask(host, "GET", "/info")["Driver"] == "vfs"


def test_a_hangup_reloads_what_may_change(host: Host) -> None:
    host.config_file.write_text('{"labels": ["a=1"], "debug": false}')
    host.start("--storage-driver", "vfs")
    host.config_file.write_text('{"labels": ["a=2"], "debug": true, "live-restore": false}')
    os.kill(host.pid, signal.SIGHUP)
    eventually(lambda: ask(host, "GET", "/info")["Labels"] == ["a=2"], "the labels are reloaded")
    info = ask(host, "GET", "/info")
    assert (info["Debug"], info["LiveRestoreEnabled"]) == (True, False)
    host.config_file.write_text('{"labels": "broken')
    os.kill(host.pid, signal.SIGHUP)
    eventually(lambda: "is not reloaded" in host.log_tail(), "the broken file is told")
    assert ask(host, "GET", "/info")["Labels"] == ["a=2"]


def test_an_idle_daemon_leaves_when_nothing_runs(host: Host) -> None:
    host.start("--storage-driver", "vfs", "--idle-timeout", "2")
    host.load_busybox()
    host.docker("run", "-d", "--name", "busy", "--network", "none", "busybox", "sleep", "1000")
    pid = host.pid
    with pytest.raises(AssertionError):
        eventually(lambda: not os.path.exists(f"/proc/{pid}"), "it stays", timeout=6)
    host.docker("rm", "-f", "busy")
    eventually(lambda: not os.path.exists(f"/proc/{pid}/exe"), "it leaves")
    assert not host.socket.exists()
    assert host.stop() == 0


def test_without_live_restore_the_containers_end_with_the_daemon(host: Host) -> None:
    host.start("--storage-driver", "vfs", "--live-restore=false")
    host.load_busybox()
    host.docker("run", "-d", "--name", "cc", "--network", "none", "busybox", "sleep", "1000")
    pid = host.docker("inspect", "-f", "{{.State.Pid}}", "cc").stdout.strip()
    assert host.stop() == 0
    assert not os.path.exists(f"/proc/{pid}")
    host.start("--storage-driver", "vfs")
    assert host.docker("inspect", "-f", "{{.State.Status}}", "cc").stdout.strip() == "exited"


def test_with_live_restore_they_live_on(host: Host) -> None:
    host.start("--storage-driver", "vfs")
    host.load_busybox()
    host.docker("run", "-d", "--name", "cc", "--network", "none", "busybox", "sleep", "1000")
    pid = host.docker("inspect", "-f", "{{.State.Pid}}", "cc").stdout.strip()
    assert host.stop() == 0
    assert os.path.exists(f"/proc/{pid}")
    host.start("--storage-driver", "vfs")
    assert host.docker("inspect", "-f", "{{.State.Pid}}", "cc").stdout.strip() == pid


def test_following_clients_that_leave_cost_nothing(host: Host) -> None:
    host.start("--storage-driver", "vfs")
    host.load_busybox()
    host.docker("run", "-d", "--name", "cc", "--network", "none", "busybox", "sleep", "1000")
    before = ask(host, "GET", "/info")
    for _ in range(5):
        for path in (
            "/containers/cc/logs?follow=1&stdout=1",
            "/events",
            "/containers/cc/stats",
            "/containers/cc/wait",
            "/containers/cc/attach?stream=1&stdout=1",
        ):
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(60)
                client.connect(str(host.socket))
                method = "POST" if path.endswith("wait") or "attach" in path else "GET"
                client.sendall(f"{method} {path} HTTP/1.1\r\nHost: e\r\n\r\n".encode())
                assert client.recv(12) == b"HTTP/1.1 200"

    def settled() -> bool:
        now = ask(host, "GET", "/info")
        return (
            now["NEventsListener"] <= before["NEventsListener"]
            and now["NFd"] <= before["NFd"] + 3
            and now["NGoroutines"] <= before["NGoroutines"] + 10
        )

    eventually(settled, "listeners, descriptors and threads are as before")


@pytest.mark.parametrize(
    ("engine", "sign"),
    [
        ("Docker", "image/overlay2/repositories.json"),
        ("Docker", "network/files/local-kv.db"),
        ("Podman", "overlay-images/images.lock"),
        ("containerd", "io.containerd.metadata.v1.bolt/meta.db"),
    ],
)
def test_a_data_root_of_another_engine_is_told_and_left_alone(
    host: Host, engine: str, sign: str
) -> None:
    file = host.data_root / sign
    file.parent.mkdir(parents=True)
    file.touch()
    before = sorted(host.data_root.rglob("*"))
    ended = run_daemon(host)
    assert ended.returncode == 1
    assert f"{host.data_root} is a data root of {engine}, and was left as it is" in ended.stderr
    assert sorted(host.data_root.rglob("*")) == before


def test_a_data_root_of_a_newer_version_is_told(host: Host) -> None:
    host.data_root.mkdir(parents=True, exist_ok=True)
    with sqlite3.connect(host.data_root / "state.db") as connection:
        connection.execute("PRAGMA user_version=999")
    ended = run_daemon(host)
    assert ended.returncode == 1
    assert "was written by a newer version of the engine (format 999" in ended.stderr
