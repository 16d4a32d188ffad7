"""Limits of size, and what throw-away containers may lose, as users see them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from drivetrain.testing.hosts import Host


@pytest.fixture(scope="module", params=["overlay2", "vfs"])
def host(request: pytest.FixtureRequest) -> Iterator[Host]:
    with Host() as host:
        host.start("--storage-driver", request.param)
        host.load_busybox()
        yield host


def loop_devices(host: Host) -> list[str]:
    found = subprocess.check_output(["losetup", "--list", "--noheadings", "-O", "BACK-FILE"])
    return [line for line in found.decode().splitlines() if line.startswith(f"{host.root}/")]


FILL = "dd if=/dev/zero of=/big bs=1M count=64 2>&1; rm /big; echo room > /small && cat /small"


def test_a_container_is_told_when_its_limit_is_reached_and_goes_on(host: Host) -> None:
    limited = ["--network", "none", "--storage-opt", "size=32m"]
    out = host.engine("run", "--rm", *limited, "busybox", "sh", "-c", FILL).stdout
    assert "No space left on device" in out
    assert out.endswith("room\n")
    assert loop_devices(host) == []


def test_a_limited_container_survives_the_daemon_and_leaves_nothing(host: Host) -> None:
    limited = ["--network", "none", "--storage-opt", "size=32m"]
    host.engine("run", "-d", "--name", "c", *limited, "busybox", "sleep", "1000")
    host.kill()
    host.start()
    assert len(loop_devices(host)) == 1
    host.engine("exec", "c", "sh", "-c", "echo kept > /file")
    host.engine("restart", "-t", "0", "c")
    assert host.engine("exec", "c", "cat", "/file").stdout == "kept\n"
    assert host.engine("diff", "c").stdout == "A /file\n"
    host.engine("rm", "-f", "c")
    assert loop_devices(host) == []


def test_what_a_limit_cannot_be_is_said(host: Host) -> None:
    create = ["create", "--network", "none", "--storage-opt"]
    small = host.engine(*create, "size=1k", "busybox", check=False)
    assert "size: 1024 bytes are too few" in small.stderr
    unknown = host.engine(*create, "sise=1g", "busybox", check=False)
    assert "unknown option 'sise' (did you mean size?)" in unknown.stderr


def test_only_throw_away_containers_are_not_written_out() -> None:
    with Host() as host:
        host.start("--storage-driver", "overlay2")
        host.load_busybox()
        show = ["busybox", "grep", "overlay / ", "/proc/mounts"]
        gone = host.engine("run", "--rm", "--network", "none", *show).stdout
        kept = host.engine("run", "--network", "none", *show).stdout
        assert "volatile" in gone
        assert "volatile" not in kept


def test_drivers_that_cannot_be_say_why() -> None:
    with Host() as host, pytest.raises(AssertionError, match="the kernel module of ZFS"):
        host.start("--storage-driver", "zfs")
