"""The daemon is killed while containers run and log, and a new one goes on where it was."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.audit import Audit

from drivetrain.testing.hosts import Host, eventually

Json = dict[str, Any]


@pytest.fixture(scope="module")
def engine_host() -> Iterator[Host]:
    with Host() as host:
        host.start("--cgroup-parent", f"/{host.netns}")
        host.load_busybox()
        yield host
        group = host.netns
    for parent in (*Path("/sys/fs/cgroup").glob(f"*/{group}"), Path("/sys/fs/cgroup", group)):
        if parent.is_dir():
            parent.rmdir()


def begin_again(host: Host) -> None:
    host.start("--cgroup-parent", f"/{host.netns}")


def run(host: Host, name: str, *flags: str, script: str) -> None:
    # The last word marks its processes, for the audit.
    host.docker("run", "-d", "--name", name, *flags, "busybox", "sh", "-c", script, host.netns)


def inspect(host: Host, name: str) -> Json:
    found: Json = json.loads(host.docker("inspect", name).stdout)[0]
    return found


def state(host: Host, name: str) -> Json:
    found: Json = inspect(host, name)["State"]
    return found


def alive(pid: int) -> bool:
    """Whether a process runs; one that nobody has waited for yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_running_containers_are_found_and_can_be_used_as_before(host: Host) -> None:
    script = "trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.05; done"
    run(host, "box", "-p", "127.0.0.1::80", "-v", "/data", script=script)
    run(host, "frozen", script="while :; do sleep 0.05; done")
    host.docker("pause", "frozen")
    before = inspect(host, "box")
    host.kill()
    assert alive(before["State"]["Pid"])
    begin_again(host)
    after = inspect(host, "box")
    for key in ("State", "NetworkSettings", "Mounts", "RestartCount"):
        assert after[key] == before[key], key
    assert host.docker("exec", "box", "echo", "here").stdout == "here\n"
    assert "while" in host.docker("top", "box").stdout
    assert state(host, "frozen")["Status"] == "paused"
    host.docker("unpause", "frozen")
    host.docker("stop", "box")
    assert state(host, "box")["ExitCode"] == 3
    assert host.docker("logs", "box").stdout == "up\nbye\n"
    host.docker("start", "box")
    assert state(host, "box")["Status"] == "running"
    assert Audit(host, host.netns, host.netns).faults() == []


def test_a_shim_that_leaves_takes_nothing_that_the_next_run_may_have(host: Host) -> None:
    # Its folder went after its note: a restart in between had made the folder, and lost it.
    run(host, "box", script="sleep 1000")
    found = inspect(host, "box")
    folder = host.exec_root / "c" / found["Id"][:20]
    host.kill()
    os.kill(found["State"]["Pid"], signal.SIGKILL)
    eventually(lambda: not (folder / "note.json").exists(), "the shim has left")
    eventually(lambda: f"shim:{found['Id'][:10]}" not in names_of_processes(), "its process, too")
    assert list(folder.iterdir()) == []
    begin_again(host)
    assert state(host, "box")["ExitCode"] == 137
    host.docker("start", "box")
    assert state(host, "box")["Status"] == "running"


def names_of_processes() -> set[str]:
    found = set()
    for file in Path("/proc").glob("[0-9]*/comm"):
        with contextlib.suppress(OSError):
            found.add(file.read_text().strip())
    return found


def test_input_of_a_container_still_reaches_it(host: Host) -> None:
    script = "read word; echo got $word; exit 4"
    host.docker("run", "-di", "--name", "box", "busybox", "sh", "-c", script)
    host.kill()
    begin_again(host)
    attached = host.docker("attach", "box", data=b"hello\n", check=False)
    assert (attached.stdout, attached.returncode) == ("got hello\n", 4)
    assert state(host, "box")["ExitCode"] == 4


class Follower:
    """A client of ``logs -f`` that comes back, as ``stern`` or a collector does.

    It asks for what is not older than its last line, and leaves out what it has of that moment.
    """

    def __init__(self, host: Host, name: str) -> None:
        self._host = host
        self._name = name
        self.lines: list[tuple[str, str]] = []
        self.connections = 0

    def follow(self) -> None:
        """Read until the stream ends."""
        last = self.lines[-1][0] if self.lines else ""
        skip = sum(1 for moment, _ in self.lines if moment == last)
        since = ["--since", last] if last else []
        client = subprocess.Popen(
            [*self._host.docker_command, "logs", "-f", "-t", *since, self._name],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.connections += 1
        assert client.stdout is not None
        with client.stdout:
            for line in client.stdout:
                if not line.endswith("\n"):
                    break  # cut by the kill: it comes again
                if skip:
                    skip -= 1
                    continue
                moment, _, text = line.rstrip("\n").partition(" ")
                self.lines.append((moment, text))
        client.wait(60)


def test_a_follower_that_comes_back_sees_every_line_once(host: Host) -> None:
    count = 4000
    script = f"i=0; while [ $i -lt {count} ]; do echo line $i; i=$((i+1)); usleep 500; done"
    run(host, "box", script=script)
    follower = Follower(host, "box")
    for _ in range(3):
        reader = threading.Thread(target=follower.follow)
        seen = len(follower.lines)
        reader.start()
        eventually(lambda seen=seen: len(follower.lines) > seen + 50, "lines arrive")
        host.kill()
        reader.join(60)
        assert not reader.is_alive()
        time.sleep(0.3)
        begin_again(host)
    follower.follow()
    assert [text for _, text in follower.lines] == [f"line {number}" for number in range(count)]
    assert follower.connections == 4
    everything = host.docker("logs", "box").stdout.splitlines()
    assert everything == [f"line {number}" for number in range(count)]
    assert state(host, "box")["ExitCode"] == 0


def test_statuses_of_what_ended_while_no_daemon_lived(host: Host) -> None:
    wait = "while [ ! -e /gate/open ]; do sleep 0.05; done"
    gate = host.root / "gate"
    gate.mkdir(exist_ok=True)
    (gate / "open").unlink(missing_ok=True)
    ends = {"good": "exit 0", "bad": "exit 41", "killed": "kill -9 $$"}
    for name, end in ends.items():
        run(host, name, "-v", f"{gate}:/gate", script=f"{wait}; echo {name}; {end}")
    run(host, "gone", "--rm", "-v", f"{gate}:/gate", script=f"{wait}; exit 0")
    run(host, "shimless", script="while :; do sleep 0.05; done")
    pids = [state(host, name)["Pid"] for name in [*ends, "gone"]]
    longest = state(host, "shimless")["Pid"]
    shim = int(Path(f"/proc/{longest}/stat").read_text().rpartition(")")[2].split()[1])
    host.kill()
    (gate / "open").touch()
    eventually(lambda: not any(map(alive, pids)), "they ended")
    between = datetime.now(UTC)
    subprocess.run(["kill", "-9", str(shim)], check=True)
    time.sleep(1)
    begin_again(host)
    # PID 1 of a container gets no SIGKILL from itself: the shell goes on to its end.
    assert {name: state(host, name)["ExitCode"] for name in ends} == {
        "good": 0,
        "bad": 41,
        "killed": 0,
    }
    for name in ends:
        found = state(host, name)
        assert (found["Status"], found["Error"]) == ("exited", "")
        assert datetime.fromisoformat(found["FinishedAt"][:26] + "+00:00") <= between
        assert host.docker("logs", name).stdout == f"{name}\n"
        assert host.docker("wait", name).stdout == f"{found['ExitCode']}\n"
    assert host.docker("ps", "-aq", "-f", "name=gone").stdout == ""
    assert not alive(longest), "without its shim it cannot go on"
    assert state(host, "shimless")["ExitCode"] == 137
    assert Audit(host, host.netns, host.netns).faults() == []


def test_rm_after_a_kill_leaves_nothing(host: Host) -> None:
    host.docker("network", "create", "mine")
    flags = ("--network", "mine", "-p", "0.0.0.0::80", "-v", "/data", "--ipc", "shareable")
    run(host, "running", *flags, script="while :; do sleep 0.05; done")
    run(host, "ended", *flags, script="exit 0")
    eventually(lambda: state(host, "ended")["Status"] == "exited", "it ended")
    host.kill()
    begin_again(host)
    host.docker("rm", "-fv", "running", "ended")
    host.docker("network", "rm", "mine")
    eventually(
        lambda: Audit(host, host.netns, host.netns).faults() == [], "nothing is left", timeout=20
    )
    assert Audit(host, host.netns, host.netns).containers == {}


def test_restart_policies_go_on_with_the_new_daemon(host: Host) -> None:
    """What Docker does: see its manual on start policies."""
    loop = "while :; do sleep 0.05; done"
    gate = host.root / "gate2"
    gate.mkdir(exist_ok=True)
    once = "if [ -e /gate/$0 ]; then while :; do sleep 0.05; done; fi; touch /gate/$0; "
    wait = "while [ ! -e /gate/open ]; do sleep 0.05; done; "
    bind = ("-v", f"{gate}:/gate")
    host.docker("run", "-d", "--name", "always-stopped", "--restart", "always", "busybox",
                "sh", "-c", loop)  # fmt: skip
    host.docker("run", "-d", "--name", "unless-stopped", "--restart", "unless-stopped", "busybox",
                "sh", "-c", loop)  # fmt: skip
    host.docker("stop", "-t", "0", "always-stopped", "unless-stopped")
    policies = {
        "always": ("always", "exit 0"),
        "unless": ("unless-stopped", "exit 0"),
        "failed": ("on-failure", "exit 9"),
        "succeeded": ("on-failure", "exit 0"),
        "never": ("no", "exit 9"),
    }
    for name, (policy, end) in policies.items():
        host.docker("run", "-d", "--name", name, "--restart", policy, *bind, "busybox",
                    "sh", "-c", once + wait + end, name)  # fmt: skip
    host.docker("create", "--name", "created", "--restart", "always", "busybox", "true")
    for name in policies:
        eventually(lambda name=name: (gate / name).exists(), f"{name} runs")
    pids = [state(host, name)["Pid"] for name in policies]
    host.kill()
    (gate / "open").touch()
    eventually(lambda: not any(map(alive, pids)), "they ended")
    begin_again(host)
    wanted = {
        "always-stopped": "running",
        "unless-stopped": "exited",
        "always": "running",
        "unless": "running",
        "failed": "running",
        "succeeded": "exited",
        "never": "exited",
        "created": "created",
    }

    def found() -> dict[str, str]:
        return {name: state(host, name)["Status"] for name in wanted}

    eventually(lambda: found() == wanted, "every policy is obeyed", timeout=20)
    counts = {name: inspect(host, name)["RestartCount"] for name in policies}
    assert counts == {"always": 1, "unless": 1, "failed": 1, "succeeded": 0, "never": 0}


def test_containers_of_two_storage_drivers_live_side_by_side(fresh_host: Host) -> None:
    host = fresh_host
    host.start()
    host.load_busybox()
    script = "echo mine > /file; cat /file; while :; do sleep 0.05; done"
    host.engine("--storage-driver", "overlay2", "run", "-d", "--name", "over", "busybox",
                "sh", "-c", script)  # fmt: skip
    host.stop()
    host.start("--storage-driver", "vfs")
    host.engine("--storage-driver", "vfs", "run", "-d", "--name", "copy", "busybox",
                "sh", "-c", script)  # fmt: skip

    def drivers() -> dict[str, str]:
        form = "{{.GraphDriver.Name}}"
        return {name: host.docker("inspect", "-f", form, name).stdout.strip()
                for name in ("over", "copy")}  # fmt: skip

    for _ in range(2):
        assert drivers() == {"over": "overlay2", "copy": "vfs"}
        for name in ("over", "copy"):
            assert host.docker("exec", name, "cat", "/file").stdout == "mine\n"
            types = host.docker("exec", name, "cat", "/proc/mounts").stdout.splitlines()[0].split()
            assert (types[2] == "overlay") == (name == "over")
            host.docker("restart", "-t", "0", name)
        host.kill()
        host.start()
    assert "vfs" in host.docker("info", "-f", "{{.Driver}}").stdout, "the last choice is kept"
    for name in ("over", "copy"):
        assert "A /file" in host.docker("diff", name).stdout
        host.docker("rm", "-f", name)
    assert host.leftovers() == []


def test_one_daemon_runs_containers_of_both_drivers_on_request(fresh_host: Host) -> None:
    host = fresh_host
    host.start("--storage-driver", "overlay2")
    host.load_busybox()
    for name in ("vfs", "overlay2"):
        done = host.engine("--storage-driver", name, "run", "--name", name, "busybox", "echo", name)
        assert done.stdout == f"{name}\n"
        assert inspect(host, name)["GraphDriver"]["Name"] == name
