"""A command that finds no daemon starts one; options that contradict a running one are told."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from drivetrain.testing.hosts import Host, eventually


@pytest.fixture
def idle(fresh_host: Host) -> Host:
    """A host without a daemon, but with a configuration."""
    fresh_host.config_file.write_text("{}")
    return fresh_host


def daemons(host: Host) -> list[int]:
    """The processes that are the host's daemon: none of their arguments is a subcommand."""
    found = []
    for pid, command in host.processes():
        words = command.split()
        if "drivetrain_engine.cli" in words and "--idle-timeout" in command:
            found.append(pid)
    return [pid for pid in found if _parent(pid) not in found]


def _parent(pid: int) -> int:
    text = Path(f"/proc/{pid}/stat").read_text()
    return int(text.rpartition(")")[2].split()[1])


def end(host: Host) -> None:
    import os
    import signal

    for pid in daemons(host):
        os.kill(pid, signal.SIGTERM)
    eventually(lambda: not host.answers(), "the daemon ends")


def test_a_command_starts_a_daemon_with_the_given_options(idle: Host) -> None:
    assert not idle.answers()
    found = idle.engine("--label", "made=here", "info", "--format", "{{json .Labels}}")
    assert found.stdout == '["made=here"]\n'
    assert idle.answers()
    assert (idle.exec_root / "engine.log").exists()
    end(idle)


def test_many_commands_at_once_start_one_daemon(idle: Host) -> None:
    clients = [
        subprocess.Popen([*idle.engine_command, "ps", "-q"], stderr=subprocess.PIPE)
        for _ in range(4)
    ]
    for client in clients:
        _, err = client.communicate(timeout=120)
        assert (client.returncode, err) == (0, b"")
    assert len(daemons(idle)) == 1
    end(idle)


def test_a_daemon_that_nobody_needs_leaves(idle: Host) -> None:
    idle.engine("--idle-timeout", "1", "ps")
    eventually(lambda: not daemons(idle), "the daemon leaves")  # a ping would keep it
    assert idle.engine("--idle-timeout", "1", "ps", "-q").stdout == ""
    eventually(lambda: not daemons(idle), "and leaves again")


def test_a_daemon_that_cannot_start_says_why(idle: Host) -> None:
    done = idle.engine("--storage-driver", "nosuch", "ps", check=False)
    assert done.returncode == 125
    assert "the daemon did not start" in done.stderr
    assert "nosuch" in done.stderr
    assert "Traceback" not in done.stderr
    assert not idle.answers()


def test_contradicting_options_say_what_runs(idle: Host) -> None:
    idle.engine("--storage-driver", "vfs", "ps")
    assert idle.engine("--storage-driver", "vfs", "ps", "-q").stdout == ""
    done = idle.engine("--storage-driver", "overlay2", "ps", check=False)
    assert done.returncode == 125
    assert "--storage-driver is vfs there, not overlay2" in done.stderr
    other = idle.engine("--live-restore=false", "ps", check=False)
    assert other.returncode == 125
    assert "--live-restore is true there, not false" in other.stderr
    end(idle)


def test_the_configuration_file_decides_where_the_daemon_is(idle: Host) -> None:
    idle.config_file.write_text('{"labels": ["from=file"]}')
    assert idle.engine("info", "-f", "{{json .Labels}}").stdout == '["from=file"]\n'
    end(idle)
