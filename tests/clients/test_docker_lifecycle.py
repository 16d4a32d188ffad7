"""The real docker client against our socket: what happens to containers that exist."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
import time

from drivetrain.testing.hosts import Host, eventually


def state(host: Host, name: str, field: str) -> str:
    return host.docker("inspect", "-f", f"{{{{.State.{field}}}}}", name).stdout.strip()


def test_ps_shows_running_ones_and_all_of_them(host: Host) -> None:
    host.docker("run", "-d", "--name", "up", "busybox", "sleep", "1000")
    host.docker("run", "--name", "down", "busybox", "true")
    host.docker("create", "--name", "new", "busybox")
    names = host.docker("ps", "--format", "{{.Names}}").stdout.split()
    assert names == ["up"]
    everything = host.docker("ps", "-a", "--format", "{{.Names}} {{.State}} {{.Image}}").stdout
    assert sorted(everything.splitlines()) == [
        "down exited busybox",
        "new created busybox",
        "up running busybox",
    ]
    assert "Up " in host.docker("ps", "--format", "{{.Status}}").stdout
    filtered = host.docker("ps", "-a", "-f", "status=created", "--format", "{{.Names}}").stdout
    assert filtered == "new\n"
    ended = host.docker("ps", "-a", "-f", "exited=0", "--format", "{{.Names}}").stdout
    assert ended == "down\n"


def test_logs_whole_tail_times_and_since(host: Host) -> None:
    host.docker("run", "--name", "c", "busybox", "sh", "-c", "for i in 1 2 3; do echo $i; done")
    assert host.docker("logs", "c").stdout == "1\n2\n3\n"
    assert host.docker("logs", "--tail", "2", "c").stdout == "2\n3\n"
    stamped = host.docker("logs", "-t", "--tail", "1", "c").stdout
    assert stamped.endswith("Z 3\n")
    assert host.docker("logs", "--since", "1h", "c").stdout == "1\n2\n3\n"
    assert host.docker("logs", "--until", "1h", "c").stdout == ""


def test_logs_follow_ends_with_the_container(host: Host) -> None:
    script = "for i in $(seq 20); do echo $i; sleep 0.1; done"
    host.docker("run", "-d", "--name", "c", "busybox", "sh", "-c", script)
    followed = host.docker("logs", "-f", "c").stdout
    assert followed == "".join(f"{number}\n" for number in range(1, 21))


def test_exec_in_a_running_container(host: Host) -> None:
    host.docker("run", "-d", "--name", "c", "-e", "A=1", "busybox", "sleep", "1000")
    script = 'echo "$A $B $(pwd) $(id -u)"; echo err >&2; exit 7'
    chosen = ["-e", "B=2", "-w", "/tmp", "-u", "5"]
    result = host.docker("exec", *chosen, "c", "sh", "-c", script, check=False)
    assert (result.stdout, result.stderr, result.returncode) == ("1 2 /tmp 5\n", "err\n", 7)
    assert host.docker("exec", "-i", "c", "cat", data=b"x" * 100_000).stdout == "x" * 100_000
    host.docker("exec", "-d", "c", "touch", "/tmp/made")
    eventually(
        lambda: host.docker("exec", "c", "ls", "/tmp").stdout == "made\n",
        "the detached command ran",
    )
    missing = host.docker("exec", "c", "no-such-command", check=False)
    assert missing.returncode == 127
    stopped = host.docker("exec", "nobody", "true", check=False)
    assert "No such container: nobody" in stopped.stderr


def test_attach_sees_what_is_written_from_then_on(host: Host) -> None:
    host.docker("run", "-d", "-i", "--name", "c", "busybox", "cat")
    attached = host.docker("attach", "c", data=b"hello\n")
    assert attached.stdout == "hello\n"
    eventually(lambda: state(host, "c", "Status") == "exited", "cat ended with its input")


def test_stop_kill_restart_pause(host: Host) -> None:
    script = "trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.1; done"
    host.docker("run", "-d", "--name", "c", "busybox", "sh", "-c", script)
    eventually(lambda: host.docker("logs", "c").stdout == "ready\n", "it is ready")
    host.docker("stop", "c")
    assert state(host, "c", "ExitCode") == "3"
    assert host.docker("logs", "c").stdout == "ready\nbye\n"
    host.docker("restart", "-t", "0", "c")
    assert state(host, "c", "Running") == "true"
    host.docker("pause", "c")
    assert state(host, "c", "Status") == "paused"
    host.docker("unpause", "c")
    host.docker("kill", "c")
    assert host.docker("wait", "c").stdout == "137\n"
    again = host.docker("kill", "c", check=False)
    assert "is not running" in again.stderr


def test_a_stop_signal_of_ones_own(host: Host) -> None:
    script = "trap 'exit 9' USR1; echo ready; while :; do sleep 0.1; done"
    host.docker("run", "-d", "--stop-signal", "USR1", "--name", "c", "busybox", "sh", "-c", script)
    eventually(lambda: host.docker("logs", "c").stdout == "ready\n", "it is ready")
    host.docker("stop", "c")
    assert state(host, "c", "ExitCode") == "9"


def test_wait_tells_the_exit_code_to_all(host: Host) -> None:
    host.docker("run", "-d", "-i", "--name", "c", "busybox", "sh", "-c", "read x; exit 5")
    codes: list[str] = []
    waiters = [
        threading.Thread(target=lambda: codes.append(host.docker("wait", "c").stdout))
        for _ in range(4)
    ]
    for waiter in waiters:
        waiter.start()
    time.sleep(0.5)
    host.docker("attach", "c", data=b"go\n", check=False)
    for waiter in waiters:
        waiter.join(60)
    assert codes == ["5\n"] * 4


def test_rm_refuses_a_running_one_and_force_removes_it(host: Host) -> None:
    host.docker("run", "-d", "--name", "c", "busybox", "sleep", "1000")
    refused = host.docker("rm", "c", check=False)
    assert refused.returncode == 1
    assert "container is running" in refused.stderr
    host.docker("rm", "-f", "c")
    assert "No such container: c" in host.docker("rm", "c", check=False).stderr
    assert host.leftovers() == []


def test_rename_and_update_and_top(host: Host) -> None:
    host.docker("run", "-d", "--name", "a", "busybox", "sleep", "1000")
    host.docker("rename", "a", "b")
    assert host.docker("ps", "--format", "{{.Names}}").stdout == "b\n"
    host.docker("update", "--restart", "always", "-m", "100m", "--memory-swap", "200m", "b")
    policy = host.docker("inspect", "-f", "{{.HostConfig.RestartPolicy.Name}}", "b").stdout
    assert policy == "always\n"
    assert "sleep 1000" in host.docker("top", "b").stdout


def test_cp_in_and_out(host: Host, tmp_path: object) -> None:
    host.docker("create", "--name", "c", "busybox")
    source = f"{tmp_path}/file"
    with open(source, "w") as file:
        file.write("content\n")
    host.docker("cp", source, "c:/etc/file")
    host.docker("cp", "c:/etc/file", f"{tmp_path}/back")
    with open(f"{tmp_path}/back") as file:
        assert file.read() == "content\n"
    missing = host.docker("cp", "c:/no/such", f"{tmp_path}/x", check=False)
    assert "Could not find the file /no/such in container c" in missing.stderr


def test_diff_commit_export_and_images(host: Host) -> None:
    host.docker("run", "--name", "c", "busybox", "sh", "-c", "echo x > /new; rm /etc/group")
    assert set(host.docker("diff", "c").stdout.splitlines()) == {"A /new", "C /etc", "D /etc/group"}
    host.docker("commit", "-c", 'CMD ["cat", "/new"]', "c", "made:1")
    assert host.docker("run", "--rm", "made:1").stdout == "x\n"
    exported = subprocess.run(
        [*host.docker_command, "export", "c"], capture_output=True, check=True
    ).stdout
    listed = subprocess.run(["tar", "t"], input=exported, capture_output=True, check=True).stdout
    assert b"new\n" in listed
    assert b"etc/group\n" not in listed
    saved = subprocess.run(
        [*host.docker_command, "save", "made:1"], capture_output=True, check=True
    ).stdout
    host.clear()
    host.docker("rmi", "made:1")
    assert "made:1" in host.docker("load", data=saved).stdout
    assert host.docker("run", "--rm", "made:1").stdout == "x\n"
    assert len(host.docker("history", "-q", "made:1").stdout.split()) == 2
    host.clear()
    host.docker("rmi", "made:1")


def test_an_image_in_use_is_not_removed(host: Host) -> None:
    host.docker("create", "--name", "c", "busybox")
    refused = host.docker("rmi", "busybox", check=False)
    assert refused.returncode == 1
    assert "is using" in refused.stderr


def test_events_tell_the_life_of_a_container(host: Host) -> None:
    since = str(time.time())
    host.docker("run", "--rm", "--name", "c", "--network", "none", "busybox", "true")
    eventually(lambda: host.docker("ps", "-aq").stdout == "", "it removed itself")
    events = host.docker(
        "events", "--since", since, "--until", str(time.time() + 1), "--format", "{{json .}}"
    ).stdout
    actions = [
        event["Action"]
        for event in map(json.loads, events.splitlines())
        if event["Type"] == "container"
    ]
    assert actions[0] == "create"
    assert [action for action in actions if action in ("start", "die", "destroy")] == [
        "start",
        "die",
        "destroy",
    ]


def test_a_client_that_is_interrupted_passes_the_signal_on(host: Host) -> None:
    script = "trap 'echo got; exit 4' INT; echo ready; while :; do sleep 0.1; done"
    client = subprocess.Popen(
        [*host.docker_command, "run", "--rm", "--name", "c", "busybox", "sh", "-c", script],
        stdout=subprocess.PIPE,
    )
    assert client.stdout is not None
    assert client.stdout.readline() == b"ready\n"
    client.send_signal(signal.SIGINT)
    assert client.stdout.read() == b"got\n"
    assert client.wait(60) == 4
    client.stdout.close()


def test_info_and_version(host: Host) -> None:
    info = json.loads(host.docker("info", "--format", "{{json .}}").stdout)
    assert info["Driver"] == "overlay2"
    assert info["LoggingDriver"] == "json-file"
    assert {"bridge", "host", "none"} <= set(info["Plugins"]["Network"])
    version = json.loads(host.docker("version", "--format", "{{json .}}").stdout)
    assert version["Server"]["ApiVersion"] == "1.50"
    assert version["Server"]["MinAPIVersion"] == "1.24"
