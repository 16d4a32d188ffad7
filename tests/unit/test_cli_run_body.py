"""What ``engine run`` and ``engine create`` ask the API for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from drivetrain_engine.cli import runbody
from drivetrain_engine.cli.commands.run import create_command
from drivetrain_engine.cli.errors import UsageError


def body(*arguments: str) -> dict[str, Any]:
    """The body of ``engine create ARGUMENTS``, by the command's own parser."""
    context = create_command.make_context("create", list(arguments))
    flags = dict(context.params)
    image, rest = flags.pop("image"), flags.pop("arguments")
    return runbody.create_body(flags, image, rest, rm=flags.pop("rm"))


def test_a_plain_run_attaches_both_outputs_and_sets_little_else() -> None:
    assert body("busybox", "echo", "-n", "hi") == {
        "Image": "busybox",
        "Cmd": ["echo", "-n", "hi"],
        "AttachStdout": True,
        "AttachStderr": True,
        "HostConfig": {
            "NetworkMode": "default",
            "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
        },
        "NetworkingConfig": {"EndpointsConfig": {}},
    }


def test_options_behind_the_image_belong_to_the_command() -> None:
    assert body("busybox", "ls", "--rm", "-it", "--name=x")["Cmd"] == [
        "ls",
        "--rm",
        "-it",
        "--name=x",
    ]
    assert body("--", "busybox", "-x")["Cmd"] == ["-x"]


def test_boolean_flags_take_true_and_false_as_docker_s_do() -> None:
    assert body("--privileged=false", "-t=true", "b")["Tty"] is True
    assert "Privileged" not in body("--privileged=false", "b")["HostConfig"]
    assert body("--privileged=true", "b")["HostConfig"]["Privileged"] is True
    # The value of another option only looks like one.
    assert body("-e", "--rm=false", "--rm", "b")["HostConfig"]["AutoRemove"] is True


def test_interactive_closes_stdin_with_the_client() -> None:
    found = body("-it", "busybox")
    assert (found["OpenStdin"], found["StdinOnce"], found["AttachStdin"]) == (True, True, True)


def test_detached_attaches_nothing() -> None:
    context = create_command.make_context("create", ["-i", "b"])
    flags = dict(context.params)
    found = runbody.create_body(flags, "b", (), detach=True)
    assert found["OpenStdin"] is True
    assert "AttachStdout" not in found
    assert "StdinOnce" not in found


def test_attach_names_streams() -> None:
    found = body("-a", "stdout", "-a", "STDIN", "b")
    assert found["AttachStdin"]
    assert found["AttachStdout"]
    assert "AttachStderr" not in found
    with pytest.raises(UsageError, match="stdin, stdout or stderr"):
        body("-a", "keyboard", "b")


def test_environment_files_come_first_and_bare_names_are_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "env"
    file.write_text("# comment\n\nA=from file\nHERE\nNOT_SET_ANYWHERE\n")
    monkeypatch.setenv("HERE", "yes")
    monkeypatch.delenv("NOT_SET_ANYWHERE", raising=False)
    found = body("-e", "A=1", "--env-file", str(file), "-e", "HERE", "b")
    assert found["Env"] == ["A=from file", "HERE=yes", "A=1", "HERE=yes"]


def test_entrypoint_is_one_word_and_may_be_emptied() -> None:
    assert body("--entrypoint", "/bin/e", "b")["Entrypoint"] == ["/bin/e"]
    assert body("--entrypoint", "", "b")["Entrypoint"] == [""]
    assert "Entrypoint" not in body("b")


def test_the_first_network_is_the_mode_and_gets_the_simple_flags() -> None:
    found = body(
        "--network", "front", "--network", "name=back,alias=db,ip=10.1.1.1,driver-opt=k=v",
        "--ip", "10.0.0.9", "--network-alias", "web", "--mac-address", "02:00:00:00:00:09", "b",
    )  # fmt: skip
    assert found["HostConfig"]["NetworkMode"] == "front"
    assert found["NetworkingConfig"]["EndpointsConfig"] == {
        "front": {
            "IPAMConfig": {"IPv4Address": "10.0.0.9"},
            "Aliases": ["web"],
            "MacAddress": "02:00:00:00:00:09",
        },
        "back": {
            "Aliases": ["db"],
            "IPAMConfig": {"IPv4Address": "10.1.1.1"},
            "DriverOpts": {"k": "v"},
        },
    }


@pytest.mark.parametrize("mode", ["none", "host", "container:other"])
def test_modes_are_no_endpoints(mode: str) -> None:
    found = body("--network", mode, "b")
    assert found["HostConfig"]["NetworkMode"] == mode
    assert found["NetworkingConfig"]["EndpointsConfig"] == {}


def test_limits() -> None:
    config = body(
        "-m", "64m", "--memory-swap", "-1", "--cpus", "1.5", "--pids-limit", "10", "--cpuset-cpus",
        "0", "--ulimit", "nofile=10:20", "--ulimit", "core=-1", "--shm-size", "1g", "b",
    )["HostConfig"]  # fmt: skip
    assert config["Memory"] == 64 << 20
    assert config["MemorySwap"] == -1
    assert config["NanoCpus"] == 1_500_000_000
    assert config["PidsLimit"] == 10
    assert config["CpusetCpus"] == "0"
    assert config["ShmSize"] == 1 << 30
    assert config["Ulimits"] == [
        {"Name": "nofile", "Soft": 10, "Hard": 20},
        {"Name": "core", "Soft": -1, "Hard": -1},
    ]


def test_capabilities_get_their_prefix() -> None:
    config = body("--cap-add", "net_admin", "--cap-add", "CAP_SYS_TIME", "--cap-drop", "all", "b")
    assert config["HostConfig"]["CapAdd"] == ["CAP_NET_ADMIN", "CAP_SYS_TIME"]
    assert config["HostConfig"]["CapDrop"] == ["ALL"]


def test_health_checks_are_in_nanoseconds() -> None:
    found = body("--health-cmd", "x y", "--health-interval", "1m30s", "--health-retries", "4", "b")
    assert found["Healthcheck"] == {
        "Test": ["CMD-SHELL", "x y"],
        "Interval": 90_000_000_000,
        "Retries": 4,
    }
    assert body("--no-healthcheck", "b")["Healthcheck"] == {"Test": ["NONE"]}


def test_a_seccomp_profile_is_sent_by_content(tmp_path: Path) -> None:
    profile = tmp_path / "p.json"
    profile.write_text('{ "defaultAction": "SCMP_ACT_ALLOW" }')
    config = body("--security-opt", f"seccomp={profile}", "b")["HostConfig"]
    assert config["SecurityOpt"] == ['seccomp={"defaultAction":"SCMP_ACT_ALLOW"}']
    with pytest.raises(UsageError, match="no-such-file"):
        body("--security-opt", "seccomp=/no-such-file", "b")


def test_the_storage_driver_of_a_container() -> None:
    config = body("--storage-driver", "vfs", "--storage-opt", "size=1G", "b")["HostConfig"]
    assert config["StorageDriver"] == "vfs"
    assert config["StorageOpt"] == {"size": "1G"}


def test_hosts_names_and_addresses() -> None:
    config = body("--add-host", "a:1.1.1.1", "--add-host", "b=::1", "--add-host", "c:[::2]", "b")
    assert config["HostConfig"]["ExtraHosts"] == ["a:1.1.1.1", "b:::1", "c:::2"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-m", "lots", "b"], "a size such as"),
        (["--restart", "sometimes", "b"], "restart policy"),
        (["--rm", "--restart", "always", "b"], "--restart and --rm"),
        (["--ulimit", "nofile=20:10", "b"], "above the hard limit"),
        (["--log-opt", "max-size", "b"], "key=value"),
        (["--add-host", "a", "b"], "name:address"),
        (["--network-alias", "x", "b"], "add --network"),
        (["--network", "alias=x", "b"], "name= is required"),
        (["--cpus", "many", "b"], "a number is needed"),
        (["--device-read-bps", "sda", "b"], "/device:value"),
        (["--no-healthcheck", "--health-cmd", "x", "b"], "conflicts"),
        (["--env-file", "/no/such", "b"], "/no/such"),
        (["--health-interval", "often", "b"], "a duration such as"),
    ],
)
def test_wrong_values_are_named(arguments: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said) as error:
        body(*arguments)
    assert error.value.exit_code == 125


def test_the_help_names_every_flag_of_the_issue() -> None:
    text = CliRunner().invoke(create_command, ["--help"]).output
    wanted = (
        "-i -t --name -e --env-file -w -u -v --mount --tmpfs -p -P --network --ip --hostname"
        " --entrypoint --cap-add --cap-drop --privileged --read-only --security-opt -m"
        " --memory-swap --cpus --cpuset-cpus --pids-limit --ulimit --label --log-driver --log-opt"
        " --storage-opt --restart --stop-signal --stop-timeout --init --device --group-add"
        " --sysctl --shm-size --ipc --pid --uts --add-host --dns --dns-search --dns-option --link"
        " --volumes-from --network-alias --expose --cidfile --health-cmd --no-healthcheck"
        " --runtime --annotation --cgroup-parent --userns --pull --rm"
    )
    missing = [flag for flag in wanted.split() if flag not in text]
    assert missing == []
