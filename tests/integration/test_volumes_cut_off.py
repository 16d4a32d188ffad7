"""A backend goes away while a container uses it: only who needs it notices, and it comes back."""

import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from tests.sshd import Sshd

from drivetrain.testing.hosts import Host, eventually


@pytest.fixture(scope="module")
def host():
    with Host() as host:
        host.start("--storage-driver", "vfs")
        host.load_busybox()
        yield host


@pytest.fixture
def sshd(host):
    folder = Path(tempfile.mkdtemp(prefix="sshd-", dir="/tmp"))
    server = Sshd(folder, host.inside)
    yield server
    server.stop()
    shutil.rmtree(folder)


def test_an_ssh_server_that_is_stopped_is_noticed_by_its_users_alone(host, sshd, tmp_path):
    (tmp_path / "file").write_text("far\n")
    options = [f"--opt={key}={value}" for key, value in sshd.options(tmp_path).items()]
    for name in ("far", "later"):
        host.docker("volume", "create", "-d", "sshfs", *options, name)
    run = ("run", "--network=none", "-v")
    user = host.docker(*run, "far:/v", "-d", "busybox", "sleep", "1000").stdout.strip()
    near = host.docker(*run, "near:/v", "-d", "busybox", "sleep", "1000").stdout.strip()
    assert host.docker("exec", user, "cat", "/v/file").stdout == "far\n"
    sshd.stop()
    reading, starting = (
        subprocess.Popen(
            [*host.docker_command, *words],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for words in (
            ("exec", user, "cat", "/v/file"),
            (*run, "later:/v", "--rm", "busybox", "true"),
        )
    )  # fmt: skip
    # others go on, and so does all that needs no file of the volume
    assert host.docker("exec", near, "sh", "-c", "echo x > /v/f; cat /v/f").stdout == "x\n"
    assert host.docker(*run, "other:/v", "--rm", "busybox", "echo", "on").stdout == "on\n"
    assert host.docker("exec", user, "echo", "on").stdout == "on\n"
    assert user[:12] in host.docker("ps").stdout
    host.docker("inspect", user)
    assert "far" in host.docker("volume", "ls", "-q").stdout.split()
    host.docker("volume", "inspect", "far")
    host.docker("system", "df", "-v")
    # whoever needs it is told
    assert reading.communicate(timeout=60)[1] != "" and reading.returncode == 1
    assert "volume later: cannot mount" in starting.communicate(timeout=60)[1]
    assert starting.returncode == 125
    sshd.start()

    def back():
        return host.docker("exec", user, "cat", "/v/file", check=False).stdout == "far\n"

    eventually(back, "the same container reads the file again")
    host.docker(*run, "later:/v", "--rm", "busybox", "touch", "/v/new")
    assert (tmp_path / "new").exists()
    # a container whose volume is dead can be removed
    sshd.stop()
    host.docker("rm", "-f", user, near)
    host.docker("volume", "rm", "far", "later", "near", "other")
    sshd.start()
