"""An engine whose default is the devicemapper driver, as its users see it."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from tests.vm.storage import pools

from drivetrain.testing.hosts import Host, eventually

OPTIONS = ("dm.loopdatasize=256m", "dm.loopmetadatasize=8m", "dm.basesize=64m", "dm.fs=ext4")
FLAGS = ("--storage-driver=devicemapper", *(f"--storage-opt={option}" for option in OPTIONS))


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with Host() as host:
        host.start(*FLAGS)
        host.load_busybox()
        yield host
    eventually(lambda: pools.devices() == [], "the pool goes with the daemon")
    eventually(lambda: pools.run("losetup", "--list") == "", "and its loop devices")


def no_layer_is_active() -> bool:
    return all(name.endswith("-pool") for name in pools.devices())


def test_what_a_container_wrote_outlives_a_stop_a_killed_daemon_and_in_an_image_itself(
    host: Host,
) -> None:
    plain = ("--network", "none", "--name", "c")
    host.docker("run", "-d", *plain, "busybox", "sh", "-c", "echo kept > /file; exec sleep 1000")
    assert "/dev/dm-" in host.docker("exec", "c", "grep", " / ", "/proc/mounts").stdout
    host.docker("stop", "-t", "0", "c")
    eventually(no_layer_is_active, "the device of a stopped container is not active")
    host.docker("start", "c")
    host.kill()
    host.start(*FLAGS)
    assert host.docker("exec", "c", "cat", "/file").stdout == "kept\n"
    assert host.docker("diff", "c").stdout == "A /file\n"
    host.docker("commit", "c", "made")
    host.docker("rm", "-f", "c")
    eventually(no_layer_is_active, "the device of a removed container is gone")
    made = host.docker("run", "--rm", "--network", "none", "made", "cat", "/file").stdout
    assert made == "kept\n"
    host.docker("rmi", "made")


def test_info_shows_the_pool_and_that_files_are_not_for_production(host: Host) -> None:
    info = json.loads(host.docker("info", "--format", "{{json .}}").stdout)
    assert info["Driver"] == "devicemapper"
    status = dict(info["DriverStatus"])
    assert status["Base Device Size"] == "67.11MB"
    assert status["Data Space Total"] == "268.4MB"
    shown = host.engine("info").stdout
    assert "Storage Driver: devicemapper" in shown
    assert "not for production" in shown


def test_a_full_pool_is_said_and_harms_no_other_container(host: Host) -> None:
    run = ("run", "--network", "none", "--name")
    keep = "dd if=/dev/urandom of=/kept bs=1M count=8; md5sum /kept > /sum; sync; exec sleep 1000"
    host.docker(*run, "good", "-d", "busybox", "sh", "-c", keep)
    whole = ("exec", "good", "md5sum", "-c", "/sum")
    eventually(lambda: host.docker(*whole, check=False).returncode == 0, "it is written")
    size = ("--storage-opt", "size=512m")
    fill = ("dd", "if=/dev/zero", "of=/big", "bs=1M", "conv=fsync")
    filled = host.docker(*run, "greedy", *size, "busybox", *fill, check=False)
    assert filled.returncode == 1 and "/big" in filled.stderr
    refused = host.docker(*run, "more", "busybox", "true", check=False)
    assert refused.returncode == 125
    assert "has 0.0% of its data free, less than dm.min_free_space=10%" in refused.stderr
    assert host.docker("ps", "-a", "--format", "{{.Names}}").stdout.split() == ["greedy", "good"]
    assert host.docker("inspect", "-f", "{{.State.ExitCode}}", "greedy").stdout == "1\n"
    assert host.docker(*whole).stdout == "/kept: OK\n"
    # Room is added: to a pool in files, when nothing uses it.
    host.docker("stop", "-t", "0", "good")
    host.stop()
    host.start(*(flag.replace("datasize=256m", "datasize=384m") for flag in FLAGS))
    assert (
        dict(json.loads(host.docker("info", "--format", "{{json .DriverStatus}}").stdout))[
            "Data Space Total"
        ]
        == "402.7MB"
    )
    host.docker("start", "good")
    assert host.docker(*whole).stdout == "/kept: OK\n"
    host.docker(*run, "more", "busybox", "true")
    host.docker("rm", "-f", "good", "greedy", "more")
