"""Our own command line against a real daemon: containers from run to rm."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

from tests.terminal import Terminal

from drivetrain.testing.hosts import Host, eventually

FOREVER = "while :; do sleep 1; done"


def test_run_shows_both_streams_and_returns_the_exit_status(host: Host) -> None:
    script = "echo out; echo err >&2; exit 7"
    done = host.engine("run", "--rm", "busybox", "sh", "-c", script, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "err\n")
    assert host.engine("ps", "-aq").stdout == ""


def test_faults_before_and_at_the_start_have_dockers_exit_codes(host: Host) -> None:
    def code(*arguments: str) -> int:
        return host.engine("run", "--rm", *arguments, check=False).returncode

    assert code("busybox", "no-such-command") == 127
    assert code("busybox", "/etc/passwd") == 126
    assert code("no-such-image", "true") == 125
    assert code("-m", "lots", "busybox", "true") == 125


def test_stdin_reaches_the_container_to_its_end(host: Host) -> None:
    data = os.urandom(300_000).hex().encode()
    done = host.engine("run", "--rm", "-i", "busybox", "sh", "-c", "cat | md5sum", data=data)
    expected = subprocess.run(["md5sum"], input=data, capture_output=True, check=True).stdout
    assert done.stdout.split()[0] == expected.decode().split()[0]


def test_a_lot_of_output_arrives_whole(host: Host) -> None:
    done = host.engine("run", "--rm", "busybox", "seq", "200000")
    assert done.stdout == "".join(f"{number}\n" for number in range(1, 200001))


def test_a_terminal_is_raw_has_our_size_and_follows_it(host: Host) -> None:
    command = [*host.engine_command, "run", "--rm", "-it", "busybox", "sh"]
    with Terminal(command, rows=33, columns=99) as terminal:
        terminal.expect(b"# ")
        terminal.type(b"stty size; echo done$((1+1))\n")
        terminal.expect(b"33 99")
        terminal.expect(b"done2")
        terminal.resize(20, 70)
        terminal.type(b"until [ \"$(stty size)\" = '20 70' ]; do :; done; echo resized$((1+1))\n")
        terminal.expect(b"resized2")
        terminal.type(b"exit 5\n")
        assert terminal.wait() == 5


def test_the_detach_keys_leave_the_container_running(host: Host) -> None:
    command = [*host.engine_command, "run", "-it", "--name", "kept", "busybox", "sh"]
    with Terminal(command) as terminal:
        terminal.expect(b"# ")
        terminal.type(b"\x10\x11")
        assert terminal.wait() == 0
    assert host.engine("exec", "kept", "echo", "alive").stdout == "alive\n"
    with Terminal([*host.engine_command, "attach", "--detach-keys", "ctrl-a,d", "kept"]) as again:
        again.type(b"echo a$((1+1))b\n")
        again.expect(b"a2b")
        again.type(b"\x01d")
        assert again.wait() == 0
    assert host.engine("inspect", "-f", "{{.State.Running}}", "kept").stdout == "true\n"


def test_signals_go_to_the_container(host: Host) -> None:
    script = "trap 'echo caught; exit 9' TERM; echo ready; " + FOREVER
    client = subprocess.Popen(
        [*host.engine_command, "run", "--rm", "busybox", "sh", "-c", script],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )
    assert client.stdout is not None
    assert client.stdout.readline() == b"ready\n"
    client.send_signal(signal.SIGTERM)
    out, _ = client.communicate(timeout=60)
    assert (out, client.returncode) == (b"caught\n", 9)


def test_a_reader_that_leaves_ends_the_command_quietly(host: Host) -> None:
    host.engine("run", "--name", "c1", "busybox", "seq", "100000")
    words = " ".join(f"'{word}'" for word in [*host.engine_command, "logs", "c1"])
    done = subprocess.run(
        f"{words} | head -n 1", shell=True, capture_output=True, timeout=60, check=True
    )
    assert (done.stdout, done.stderr) == (b"1\n", b"")


def test_start_attached_shows_the_output_again(host: Host) -> None:
    host.engine("create", "--name", "c1", "-i", "busybox", "sh", "-c", "cat; exit 3")
    done = host.engine("start", "-ai", "c1", check=False, data=b"typed\n")
    assert (done.returncode, done.stdout) == (3, "typed\n")
    assert host.engine("start", "c1").stdout == "c1\n"


def test_exec_streams_and_statuses(host: Host) -> None:
    host.engine("run", "-d", "--name", "c1", "busybox", "sh", "-c", FOREVER)
    assert host.engine("exec", "-i", "c1", "cat", data=b"in\n").stdout == "in\n"
    assert host.engine("exec", "c1", "sh", "-c", "exit 4", check=False).returncode == 4
    assert host.engine("exec", "c1", "no-such", check=False).returncode in (126, 127)
    done = host.engine("exec", "-e", "A=1", "-w", "/tmp", "c1", "sh", "-c", "echo $A $PWD")
    assert done.stdout == "1 /tmp\n"


def test_a_life_in_the_order_of_its_commands(host: Host) -> None:
    created = host.engine("create", "--name", "c1", "busybox", "sh", "-c", FOREVER).stdout
    assert len(created.strip()) == 64
    steps = ["start", "pause", "unpause", "restart -t 0", "kill", "start", "stop -t 0"]
    for step in steps:
        assert host.engine(*step.split(), "c1").stdout == "c1\n"
    host.engine("rename", "c1", "d1")
    assert host.engine("ps", "-a", "--format", "{{.Names}} {{.State}}").stdout == "d1 exited\n"
    assert host.engine("rm", "d1").stdout == "d1\n"
    refused = host.engine("rm", "d1", check=False)
    assert (refused.returncode, "No such container: d1" in refused.stderr) == (1, True)


def test_logs_follow_until_the_end(host: Host) -> None:
    script = "for i in 1 2 3; do echo $i; sleep 0.2; done"
    host.engine("run", "-d", "--name", "c1", "busybox", "sh", "-c", script)
    assert host.engine("logs", "-f", "c1").stdout == "1\n2\n3\n"
    assert host.engine("logs", "--tail", "1", "c1").stdout == "3\n"
    stamped = host.engine("logs", "-t", "c1").stdout.splitlines()
    assert [line.split()[1] for line in stamped] == ["1", "2", "3"]


def test_cp_by_the_rules_of_cp(host: Host, tmp_path: Path) -> None:
    host.engine("run", "-d", "--name", "c1", "busybox", "sh", "-c", FOREVER)
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "file").write_text("hello")
    (tmp_path / "d" / "link").symlink_to("file")
    host.engine("cp", str(tmp_path / "d"), "c1:/tmp")
    host.engine("cp", str(tmp_path / "d" / "file"), "c1:/tmp/renamed")
    listed = host.engine("exec", "c1", "sh", "-c", "cd /tmp; find . | sort; cat renamed d/link")
    assert listed.stdout == ".\n./d\n./d/file\n./d/link\n./renamed\nhellohello"
    host.engine("cp", "c1:/tmp/d", str(tmp_path / "back"))
    assert (tmp_path / "back" / "file").read_text() == "hello"
    assert (tmp_path / "back" / "link").readlink() == Path("file")
    host.engine("cp", "c1:/tmp/d/.", str(tmp_path))
    assert (tmp_path / "file").read_text() == "hello"
    missing = host.engine("cp", "c1:/no/such", str(tmp_path), check=False)
    assert missing.returncode == 1
    assert "/no/such" in missing.stderr


def test_looking_at_a_container(host: Host) -> None:
    host.engine("run", "-d", "--name", "c1", "busybox", "sleep", "1000")
    assert "sleep 1000" in host.engine("top", "c1").stdout
    head, line = host.engine("stats", "--no-stream", "c1").stdout.splitlines()
    assert head.startswith("CONTAINER ID   NAME")
    assert " c1 " in line
    assert host.engine("port", "c1").stdout == ""
    host.engine("update", "--pids-limit", "50", "c1")
    found = json.loads(host.engine("inspect", "c1").stdout)[0]
    assert found["HostConfig"]["PidsLimit"] == 50


def test_waiters_and_events(host: Host) -> None:
    host.engine("run", "-d", "--name", "waited", "busybox", "sh", "-c", FOREVER)
    waiter = subprocess.Popen([*host.engine_command, "wait", "waited"], stdout=subprocess.PIPE)
    host.engine("kill", "waited")
    out, _ = waiter.communicate(timeout=60)
    assert out == b"137\n"
    lines = host.engine(
        "events", "--since", "5m", "--until", "0s", "--filter", "container=waited", "--format",
        "{{.Action}}",
    ).stdout.split("\n")  # fmt: skip
    wanted = ["create", "start", "kill", "die"]
    assert [action for action in lines if action in wanted] == wanted


def test_ps_filters_and_sizes(host: Host) -> None:
    host.engine("run", "--name", "ended", "--label", "k=v", "busybox", "true")
    host.engine("run", "-d", "--name", "on", "busybox", "sh", "-c", FOREVER)
    names = ["ps", "-a", "--format", "{{.Names}}"]
    assert host.engine(*names, "--filter", "status=exited").stdout == "ended\n"
    assert host.engine(*names, "--filter", "label=k=v").stdout == "ended\n"
    assert host.engine(*names, "-n", "1").stdout == "on\n"
    assert "virtual" in host.engine("ps", "-s").stdout
    assert host.engine("container", "prune", "-f").stdout.startswith("Deleted Containers:\n")
    assert host.engine(*names).stdout == "on\n"


def test_a_command_line_that_is_killed_leaves_the_container(host: Host) -> None:
    client = subprocess.Popen(
        [*host.engine_command, "run", "--name", "c1", "busybox", "sh", "-c", f"echo up; {FOREVER}"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )
    assert client.stdout is not None
    assert client.stdout.readline() == b"up\n"
    client.kill()
    client.communicate(timeout=60)
    assert host.engine("inspect", "-f", "{{.State.Running}}", "c1").stdout == "true\n"
    eventually(lambda: host.engine("exec", "c1", "echo", "x").stdout == "x\n", "exec works")
