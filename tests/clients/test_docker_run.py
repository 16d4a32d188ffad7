"""The real docker client against our socket: starting containers."""

from __future__ import annotations

import json
import subprocess

import pytest

from drivetrain.testing.hosts import Host, eventually


def test_run_prints_what_the_container_prints(host: Host) -> None:
    result = host.docker("run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2")
    assert (result.stdout, result.stderr) == ("out\n", "err\n")


def test_the_exit_code_is_the_containers(host: Host) -> None:
    assert (
        host.docker("run", "--rm", "busybox", "sh", "-c", "exit 42", check=False).returncode == 42
    )


def test_a_command_that_does_not_exist_gives_127(host: Host) -> None:
    result = host.docker("run", "--rm", "busybox", "no-such-command", check=False)
    assert result.returncode == 127
    assert "executable file not found" in result.stderr
    assert host.docker("ps", "-aq").stdout == ""


def test_a_file_that_cannot_be_executed_gives_126(host: Host) -> None:
    result = host.docker("run", "--rm", "busybox", "/etc/passwd", check=False)
    assert result.returncode == 126
    assert "permission denied" in result.stderr


def test_standard_input_reaches_the_container_and_its_end_too(host: Host) -> None:
    result = host.docker("run", "--rm", "-i", "busybox", "cat", data=b"a\nb\n" * 5000)
    assert result.stdout == "a\nb\n" * 5000


def test_a_terminal_is_a_terminal(host: Host) -> None:
    command = [*host.docker_command, "run", "--rm", "-t", "busybox", "sh", "-c", "tty; echo done"]
    done = subprocess.run(
        ["script", "-qec", " ".join(f"'{word}'" for word in command), "/dev/null"],
        capture_output=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
    )
    assert b"/dev/pts/0\r" in done.stdout
    assert b"done\r" in done.stdout


def test_environment_user_directory_hostname_and_labels(host: Host) -> None:
    script = 'echo "$GREETING $(id -u):$(id -g) $(pwd) $(hostname)"'
    result = host.docker(
        "run", "--name", "box", "-e", "GREETING=hi", "-u", "12:34", "-w", "/some/where",
        "--hostname", "there", "--label", "a=b", "busybox", "sh", "-c", script,
    )  # fmt: skip
    assert result.stdout == "hi 12:34 /some/where there\n"
    assert host.docker("inspect", "-f", "{{.Config.Labels.a}}", "box").stdout == "b\n"


def test_an_environment_file(host: Host, tmp_path: object) -> None:
    path = f"{tmp_path}/env"
    with open(path, "w") as file:
        file.write("# comment\nONE=1\nTWO=two words\n")
    result = host.docker("run", "--rm", "--env-file", path, "busybox", "env")
    assert {"ONE=1", "TWO=two words"} <= set(result.stdout.splitlines())


def test_entrypoint_and_command(host: Host) -> None:
    result = host.docker("run", "--rm", "--entrypoint", "echo", "busybox", "a", "b")
    assert result.stdout == "a b\n"


def test_a_read_only_root_and_a_tmpfs(host: Host) -> None:
    script = "touch /file 2>&1; touch /t/file && grep ' /t ' /proc/mounts"
    result = host.docker(
        "run",
        "--rm",
        "--read-only",
        "--tmpfs",
        "/t:size=1m,mode=1770",
        "busybox",
        "sh",
        "-c",
        script,
    )
    assert "Read-only file system" in result.stdout
    assert "size=1024k" in result.stdout


def test_capabilities_are_dockers_and_can_be_changed(host: Host) -> None:
    script = "grep CapEff /proc/self/status | cut -f2"
    plain = host.docker("run", "--rm", "busybox", "sh", "-c", script).stdout.strip()
    assert plain == "00000000a80425fb"
    fewer = host.docker("run", "--rm", "--cap-drop", "ALL", "busybox", "sh", "-c", script)
    assert fewer.stdout.strip() == "0000000000000000"
    more = host.docker("run", "--rm", "--cap-add", "NET_ADMIN", "busybox", "sh", "-c", script)
    assert int(more.stdout, 16) == int(plain, 16) | 1 << 12


def test_a_privileged_container_has_the_hosts_devices(host: Host) -> None:
    script = "ls /dev | wc -l; grep Seccomp: /proc/self/status"
    plain = host.docker("run", "--rm", "busybox", "sh", "-c", script).stdout.split()
    privileged = host.docker("run", "--rm", "--privileged", "busybox", "sh", "-c", script)
    assert int(privileged.stdout.split()[0]) > int(plain[0])
    assert (plain[-1], privileged.stdout.split()[-1]) == ("2", "0")


def test_system_calls_outside_the_profile_are_refused(host: Host) -> None:
    result = host.docker("run", "--rm", "busybox", "unshare", "-U", "true", check=False)
    assert result.returncode != 0
    assert "not permitted" in result.stderr


def test_limits_reach_the_cgroup_and_the_process(host: Host) -> None:
    host.docker(
        "run", "-d", "--name", "box", "-m", "64m", "--cpus", "0.5", "--pids-limit", "50",
        "--ulimit", "nofile=123:456", "busybox", "sleep", "1000",
    )  # fmt: skip
    assert host.docker("exec", "box", "sh", "-c", "ulimit -n").stdout == "123\n"
    limits = json.loads(host.docker("inspect", "box").stdout)[0]["HostConfig"]
    assert (limits["Memory"], limits["NanoCpus"], limits["PidsLimit"]) == (1 << 26, 5 * 10**8, 50)
    pid = host.docker("inspect", "-f", "{{.State.Pid}}", "box").stdout.strip()
    with open(f"/proc/{pid}/cgroup") as file:
        groups = dict(line.strip().split(":")[1:] for line in file)
    with open(f"/sys/fs/cgroup/memory{groups['memory']}/memory.limit_in_bytes") as file:
        assert int(file.read()) == 1 << 26
    with open(f"/sys/fs/cgroup/pids{groups['pids']}/pids.max") as file:
        assert file.read() == "50\n"


def test_too_much_memory_ends_the_container_and_is_told(host: Host) -> None:
    script = "x=a; while true; do x=$x$x; done"
    result = host.docker(
        "run", "--name", "box", "-m", "16m", "--memory-swap", "16m", "busybox", "sh", "-c", script,
        check=False,
    )  # fmt: skip
    assert result.returncode == 137
    assert host.docker("inspect", "-f", "{{.State.OOMKilled}}", "box").stdout == "true\n"


def test_init_reaps_and_passes_signals(host: Host) -> None:
    host.docker("run", "-d", "--init", "--name", "box", "busybox", "sleep", "1000")
    assert "init" in host.docker("exec", "box", "cat", "/proc/1/cmdline").stdout
    host.docker("stop", "-t", "20", "box")
    assert host.docker("inspect", "-f", "{{.State.ExitCode}}", "box").stdout == "143\n"


def test_an_unknown_image_is_named_with_the_next_step(host: Host) -> None:
    result = host.docker("run", "--rm", "nothing-here", check=False)
    assert result.returncode == 125
    assert "nothing-here" in result.stderr


def test_a_name_is_taken_once(host: Host) -> None:
    host.docker("create", "--name", "box", "busybox")
    result = host.docker("create", "--name", "box", "busybox", check=False)
    assert 'The container name "/box" is already in use' in result.stderr


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--network", "no-such-network"], "no-such-network"),
        (["--log-driver", "no-such-driver"], "no-such-driver"),
        (["--log-opt", "max-sise=1m"], "max-sise"),
        (["--storage-opt", "sise=1G"], "sise"),
        (["--cap-add", "NO_SUCH"], "NO_SUCH"),
        (["-v", "relative/path:/x"], "relative/path"),
        (["-m", "1m"], "6MB"),
        (["--security-opt", "nonsense=1"], "nonsense"),
    ],
)
def test_a_wrong_value_is_named_and_leaves_no_container(
    host: Host, arguments: list[str], complaint: str
) -> None:
    result = host.docker("run", *arguments, "busybox", "true", check=False)
    assert result.returncode in (125, 1)
    assert complaint in result.stderr
    eventually(
        lambda: host.docker("ps", "-aq").stdout == "" or complaint == "no-such-network",
        "it is gone",
    )


def test_a_restart_policy_starts_it_again(host: Host) -> None:
    host.docker(
        "run", "-d", "--name", "box", "--restart", "on-failure:2", "busybox", "sh", "-c", "exit 3"
    )

    def count() -> str:
        return host.docker(
            "inspect", "-f", "{{.RestartCount}} {{.State.Status}}", "box"
        ).stdout.strip()

    eventually(lambda: count() == "2 exited", "two restarts")
