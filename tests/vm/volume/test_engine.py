"""Containers on an NFS volume, while the server goes away and comes back."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest
from tests.vm.volume.servers import NfsServer

from drivetrain.testing.filesystems import run
from drivetrain.testing.hosts import Host, eventually

SERVER, CLIENT = "10.77.0.1", "10.77.0.2"


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    run("modprobe", "veth")
    with Host() as host:
        run("ip", "link", "add", "files0", "type", "veth", "peer", "name", "files1",
            "netns", host.netns)  # fmt: skip
        run("ip", "address", "add", f"{SERVER}/24", "dev", "files0")
        run("ip", "link", "set", "files0", "up")
        host.run_in_network("ip", "address", "add", f"{CLIENT}/24", "dev", "files1")
        host.run_in_network("ip", "link", "set", "files1", "up")
        host.start("--storage-driver", "vfs")
        host.load_busybox()
        yield host


def test_a_server_that_is_stopped_is_noticed_by_its_users_alone(
    host: Host, nfs_server: NfsServer
) -> None:
    place = nfs_server.directory("container")
    (place / "file").write_text("far\n")
    host.docker("volume", "create", "-d", "nfs", "-o", f"share={SERVER}:/container", "far")
    start = ("run", "-d", "--network", "none", "--name")
    host.docker(*start, "user", "-v", "far:/v", "busybox", "sleep", "1000")
    host.docker(*start, "other", "-v", "near:/v", "busybox", "sleep", "1000")
    assert host.docker("exec", "user", "cat", "/v/file").stdout == "far\n"
    host.docker("exec", "user", "sh", "-c", "echo made > /v/made")
    assert (place / "made").read_text() == "made\n"
    nfs_server.stop()
    try:
        writing = subprocess.Popen(
            [*host.docker_command, "exec", "user", "sh", "-c", "echo x > /v/new"],
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        host.docker("exec", "other", "touch", "/v/x")
        assert host.docker("exec", "user", "echo", "on").stdout == "on\n"
        assert "user" in host.docker("ps").stdout
        assert "far" in host.docker("volume", "ls", "-q").stdout
        said = writing.communicate(timeout=100)[1]
        assert writing.returncode != 0 and "nput/output error" in said
    finally:
        nfs_server.start()

    def back() -> bool:
        return host.docker("exec", "user", "cat", "/v/file", check=False).stdout == "far\n"

    eventually(back, "the same container reads the file again", 100)
    host.docker("rm", "-f", "user", "other")
    host.docker("volume", "rm", "far", "near")
    assert (place / "file").exists()
