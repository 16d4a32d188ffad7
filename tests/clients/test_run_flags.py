"""Each flag of ``run`` shows inside the container, with docker's client and with ours."""

from __future__ import annotations

import json

import pytest

from drivetrain.testing.hosts import Host

#: Flags, the command inside, and what it prints. ``{root}`` is a folder of the test.
INSIDE: dict[str, tuple[list[str], str, str]] = {
    "--env": (["-e", "A=1", "-e", "B=x y"], 'echo "$A $B"', "1 x y\n"),
    "--env-file": (["--env-file", "{root}/env"], 'echo "$C $D"', "3 four five\n"),
    "--workdir": (["-w", "/made/here"], "pwd", "/made/here\n"),
    "--user": (["-u", "7:8"], "id -u; id -g", "7\n8\n"),
    "--volume": (["-v", "{root}/shared:/in:ro"], "cat /in/file; touch /in/x 2>/dev/null || echo ro",
                 "shared\nro\n"),
    "--mount bind": (["--mount", "type=bind,source={root}/shared,target=/in"], "cat /in/file",
                     "shared\n"),
    "--mount volume": (["--mount", "type=volume,target=/in"], "touch /in/x && ls /in", "x\n"),
    "--mount tmpfs": (["--mount", "type=tmpfs,target=/in,tmpfs-size=1m"],
                      "df -k /in | tail -1 | awk '{{print $1, $2}}'", "tmpfs 1024\n"),
    "--tmpfs": (["--tmpfs", "/in:size=2m,mode=700"],
                "stat -c %a /in; df -k /in | tail -1 | awk '{{print $2}}'", "700\n2048\n"),
    "--network none": (["--network", "none"], "ls /sys/class/net", "lo\n"),
    "--hostname": (["--hostname", "me"], "hostname; grep -c me /etc/hosts", "me\n1\n"),
    "--cap-add": (["--cap-add", "NET_ADMIN"], "ip link add dev d0 type bridge && echo made",
                  "made\n"),
    "--cap-drop": (["--cap-drop", "ALL"], "grep CapEff /proc/self/status",
                   "CapEff:\t0000000000000000\n"),
    "--privileged": (["--privileged"], "grep Seccomp: /proc/self/status; [ -w /sys ] && echo rw",
                     "Seccomp:\t0\nrw\n"),
    "--read-only": (["--read-only"], "touch /x 2>/dev/null || echo refused", "refused\n"),
    "--security-opt seccomp": (["--security-opt", "seccomp=unconfined"],
                               "grep Seccomp: /proc/self/status", "Seccomp:\t0\n"),
    "--security-opt no-new-privileges": (["--security-opt", "no-new-privileges"],
                                         "grep NoNewPrivs /proc/self/status", "NoNewPrivs:\t1\n"),
    "--memory": (["-m", "64m"], "cat /sys/fs/cgroup/memory/memory.limit_in_bytes", "67108864\n"),
    "--cpus": (["--cpus", "0.5"],
               "cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu/cpu.cfs_period_us",
               "50000\n100000\n"),
    "--pids-limit": (["--pids-limit", "50"], "cat /sys/fs/cgroup/pids/pids.max", "50\n"),
    "--ulimit": (["--ulimit", "nofile=123:456"], "ulimit -n; ulimit -Hn", "123\n456\n"),
    "--entrypoint": (["--entrypoint", "/bin/echo"], "", "-c \n"),
    "--init": (["--init"], "[ $$ != 1 ] && echo child", "child\n"),
}  # fmt: skip

#: Flags that show in ``inspect``, and where.
SHOWN = {
    "--label": (["--label", "a=b"], "{{json .Config.Labels}}", {"a": "b"}),
    "--name": (["--name", "me"], "{{json .Name}}", "/me"),
    "--log-driver": (["--log-driver", "none"], "{{json .HostConfig.LogConfig.Type}}", "none"),
    "--log-opt": (
        ["--log-opt", "max-size=1m"], "{{json .HostConfig.LogConfig.Config}}", {"max-size": "1m"}
    ),
    "--restart": (
        ["--restart", "on-failure:3"],
        "{{json .HostConfig.RestartPolicy}}",
        {"Name": "on-failure", "MaximumRetryCount": 3},
    ),
    "--stop-signal": (["--stop-signal", "USR1"], "{{json .Config.StopSignal}}", "USR1"),
    "-i -t": (["-it"], "{{json .Config.Tty}}", True),
}  # fmt: skip


@pytest.mark.parametrize("client", ["docker", "engine"])
@pytest.mark.parametrize("flag", INSIDE)
def test_a_flag_is_seen_inside(host: Host, client: str, flag: str) -> None:
    flags, script, expected = INSIDE[flag]
    (host.root / "env").write_text("# comment\nC=3\nD=four five\n")
    (host.root / "shared").mkdir(exist_ok=True)
    (host.root / "shared" / "file").write_text("shared\n")
    given = [word.replace("{root}", str(host.root)) for word in flags]
    command = ["-c", script.replace("{{", "{").replace("}}", "}")]
    command = command if flag == "--entrypoint" else ["sh", *command]
    run = getattr(host, client)
    assert run("run", "--rm", *given, "busybox", *command).stdout == expected


@pytest.mark.parametrize("client", ["docker", "engine"])
@pytest.mark.parametrize("flag", SHOWN)
def test_a_flag_is_remembered(host: Host, client: str, flag: str) -> None:
    flags, form, expected = SHOWN[flag]
    run = getattr(host, client)
    name = run("create", *flags, "busybox", "true").stdout.strip()
    assert json.loads(run("inspect", "-f", form, name).stdout) == expected


@pytest.mark.parametrize("client", ["docker", "engine"])
def test_published_ports_are_chosen_or_given(host: Host, client: str) -> None:
    run = getattr(host, client)
    run("run", "-d", "--name", "box", "-P", "--expose", "80", "-p", "127.0.0.1:8081:81/udp",
        "busybox", "sleep", "1000")  # fmt: skip
    lines = run("port", "box").stdout.splitlines()
    assert "81/udp -> 127.0.0.1:8081" in lines
    assert any(line.startswith("80/tcp -> 0.0.0.0:") for line in lines)


@pytest.mark.parametrize("client", ["docker", "engine"])
def test_an_option_that_the_storage_driver_does_not_have_is_named(host: Host, client: str) -> None:
    refused = getattr(host, client)(
        "run", "--rm", "--storage-opt", "colour=red", "busybox", "true", check=False
    )
    assert refused.returncode == 125
    assert "colour" in refused.stderr
    assert host.docker("ps", "-aq").stdout == ""
