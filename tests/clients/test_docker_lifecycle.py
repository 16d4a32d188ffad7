"""The real docker client against our socket: what happens to containers that exist."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
import time
from pathlib import Path

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
    host.docker("run", "--name", "box", "busybox", "sh", "-c", "for i in 1 2 3; do echo $i; done")
    assert host.docker("logs", "box").stdout == "1\n2\n3\n"
    assert host.docker("logs", "--tail", "2", "box").stdout == "2\n3\n"
    stamped = host.docker("logs", "-t", "--tail", "1", "box").stdout
    assert stamped.endswith("Z 3\n")
    assert host.docker("logs", "--since", "1h", "box").stdout == "1\n2\n3\n"
    assert host.docker("logs", "--until", "1h", "box").stdout == ""


def test_logs_end_as_the_output_did(host: Host) -> None:
    host.docker("run", "--name", "box", "busybox", "printf", "one\ntwo")
    assert host.docker("logs", "box").stdout == "one\ntwo"
    assert host.docker("logs", "--tail", "1", "box").stdout == "two"


def test_logs_follow_ends_with_the_container(host: Host) -> None:
    script = "for i in $(seq 20); do echo $i; sleep 0.1; done"
    host.docker("run", "-d", "--name", "box", "busybox", "sh", "-c", script)
    followed = host.docker("logs", "-f", "box").stdout
    assert followed == "".join(f"{number}\n" for number in range(1, 21))


def test_exec_in_a_running_container(host: Host) -> None:
    host.docker("run", "-d", "--name", "box", "-e", "A=1", "busybox", "sleep", "1000")
    script = 'echo "$A $B $(pwd) $(id -u)"; echo err >&2; exit 7'
    chosen = ["-e", "B=2", "-w", "/tmp", "-u", "5"]
    result = host.docker("exec", *chosen, "box", "sh", "-c", script, check=False)
    assert (result.stdout, result.stderr, result.returncode) == ("1 2 /tmp 5\n", "err\n", 7)
    assert host.docker("exec", "-i", "box", "cat", data=b"x" * 100_000).stdout == "x" * 100_000
    host.docker("exec", "-d", "box", "touch", "/tmp/made")
    eventually(
        lambda: host.docker("exec", "box", "ls", "/tmp").stdout == "made\n",
        "the detached command ran",
    )
    missing = host.docker("exec", "box", "no-such-command", check=False)
    assert missing.returncode == 127
    stopped = host.docker("exec", "nobody", "true", check=False)
    assert "No such container: nobody" in stopped.stderr


def test_attach_sees_what_is_written_from_then_on(host: Host) -> None:
    # `run -d -i` would keep the input open after its first client, and cat with it.
    host.docker("create", "-i", "--name", "box", "busybox", "cat")
    host.docker("start", "box")
    attached = host.docker("attach", "box", data=b"hello\n")
    assert attached.stdout == "hello\n"
    eventually(lambda: state(host, "box", "Status") == "exited", "cat ended with its input")


def test_stop_kill_restart_pause(host: Host) -> None:
    script = "trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.1; done"
    host.docker("run", "-d", "--name", "box", "busybox", "sh", "-c", script)
    eventually(lambda: host.docker("logs", "box").stdout == "ready\n", "it is ready")
    host.docker("stop", "box")
    assert state(host, "box", "ExitCode") == "3"
    assert host.docker("logs", "box").stdout == "ready\nbye\n"
    host.docker("restart", "-t", "0", "box")
    assert state(host, "box", "Running") == "true"
    host.docker("pause", "box")
    assert state(host, "box", "Status") == "paused"
    host.docker("unpause", "box")
    host.docker("kill", "box")
    assert host.docker("wait", "box").stdout == "137\n"
    again = host.docker("kill", "box", check=False)
    assert "is not running" in again.stderr


def test_a_stop_signal_of_ones_own(host: Host) -> None:
    script = "trap 'exit 9' USR1; echo ready; while :; do sleep 0.1; done"
    host.docker(
        "run", "-d", "--stop-signal", "USR1", "--name", "box", "busybox", "sh", "-c", script
    )
    eventually(lambda: host.docker("logs", "box").stdout == "ready\n", "it is ready")
    host.docker("stop", "box")
    assert state(host, "box", "ExitCode") == "9"


def test_wait_tells_the_exit_code_to_all(host: Host) -> None:
    host.docker("run", "-d", "-i", "--name", "box", "busybox", "sh", "-c", "read x; exit 5")
    codes: list[str] = []
    waiters = [
        threading.Thread(target=lambda: codes.append(host.docker("wait", "box").stdout))
        for _ in range(4)
    ]
    for waiter in waiters:
        waiter.start()
    time.sleep(0.5)
    host.docker("attach", "box", data=b"go\n", check=False)
    for waiter in waiters:
        waiter.join(60)
    assert codes == ["5\n"] * 4


def test_rm_refuses_a_running_one_and_force_removes_it(host: Host) -> None:
    host.docker("run", "-d", "--name", "box", "busybox", "sleep", "1000")
    refused = host.docker("rm", "box", check=False)
    assert refused.returncode == 1
    assert "container is running" in refused.stderr
    host.docker("rm", "-f", "box")
    assert "No such container: box" in host.docker("rm", "box", check=False).stderr
    assert host.leftovers() == []


def test_rename_and_update_and_top(host: Host) -> None:
    host.docker("run", "-d", "--name", "aa", "busybox", "sleep", "1000")
    host.docker("rename", "aa", "bb")
    assert host.docker("ps", "--format", "{{.Names}}").stdout == "bb\n"
    host.docker("update", "--restart", "always", "-m", "100m", "--memory-swap", "200m", "bb")
    policy = host.docker("inspect", "-f", "{{.HostConfig.RestartPolicy.Name}}", "bb").stdout
    assert policy == "always\n"
    assert "sleep 1000" in host.docker("top", "bb").stdout


def test_cp_in_and_out(host: Host, tmp_path: object) -> None:
    host.docker("create", "--name", "box", "busybox")
    source = f"{tmp_path}/file"
    with open(source, "w") as file:
        file.write("content\n")
    host.docker("cp", source, "box:/etc/file")
    host.docker("cp", "box:/etc/file", f"{tmp_path}/back")
    with open(f"{tmp_path}/back") as file:
        assert file.read() == "content\n"
    missing = host.docker("cp", "box:/no/such", f"{tmp_path}/x", check=False)
    assert "Could not find the file /no/such in container box" in missing.stderr


def test_diff_commit_export_and_images(host: Host) -> None:
    host.docker("run", "--name", "box", "busybox", "sh", "-c", "echo x > /new; rm /etc/group")
    assert set(host.docker("diff", "box").stdout.splitlines()) == {
        "A /new",
        "C /etc",
        "D /etc/group",
    }
    host.docker("commit", "-c", 'CMD ["cat", "/new"]', "box", "made:1")
    assert host.docker("run", "--rm", "made:1").stdout == "x\n"
    exported = subprocess.run(
        [*host.docker_command, "export", "box"], capture_output=True, check=True
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


def test_inspect_tells_where_a_containers_files_are(host: Host) -> None:
    host.docker("run", "-d", "--name", "box", "busybox", "sh", "-c", "echo mine >/file; sleep 1000")
    data = json.loads(host.docker("inspect", "-f", "{{json .GraphDriver.Data}}", "box").stdout)
    assert set(data) == {"LowerDir", "UpperDir", "WorkDir", "MergedDir"}
    upper = Path(data["UpperDir"])
    eventually(lambda: (upper / "file").exists(), "the file")
    assert (upper / "file").read_text() == "mine\n"
    assert Path(data["LowerDir"], "bin/busybox").exists()
    assert Path(data["MergedDir"]).is_mount()
    host.docker("kill", "box")
    host.docker("wait", "box")
    data = json.loads(host.docker("inspect", "-f", "{{json .GraphDriver.Data}}", "box").stdout)
    assert "MergedDir" not in data


def test_disk_usage_counts_the_containers_of_an_image(host: Host) -> None:
    host.docker("create", "busybox")
    host.docker("run", "busybox", "true")
    shown = json.loads(host.docker("system", "df", "-v", "--format", "{{json .}}").stdout)
    assert [image["Containers"] for image in shown["Images"]] == ["2"]


def test_an_image_in_use_is_not_removed(host: Host) -> None:
    host.docker("create", "--name", "box", "busybox")
    refused = host.docker("rmi", "busybox", check=False)
    assert refused.returncode == 1
    assert "is using" in refused.stderr


def test_events_tell_the_life_of_a_container(host: Host) -> None:
    since = str(time.time())
    host.docker("run", "--rm", "--name", "box", "--network", "none", "busybox", "true")
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
        [*host.docker_command, "run", "--rm", "--name", "box", "busybox", "sh", "-c", script],
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
