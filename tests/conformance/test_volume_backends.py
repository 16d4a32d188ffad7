"""The volume drivers tmpfs, sshfs and btrfs, each against the real thing."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.sshd import Sshd
from tests.volumes import Service

from drivetrain.calling import Driver
from drivetrain.errors import InvalidArgument, NotSupported, Unavailable
from drivetrain.host import mounts
from drivetrain.options import Options, masked, parse_options
from drivetrain.registry import Registry
from drivetrain.testing.hosts import eventually
from drivetrain.volume import VolumeHooks


def opened(name: str, root: Path) -> Driver[VolumeHooks]:
    driver = Registry().volume(name)
    driver.call.volume_probe()
    driver.call.volume_open(root)
    return driver


def options(driver: Driver[VolumeHooks], **given: str) -> Options:
    return parse_options(f"volume driver {driver.name}", driver.call.volume_options(), given)


@pytest.fixture
def root() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="vol-", dir="/tmp"))
    yield made
    for entry in reversed(mounts.mount_table()):
        if str(entry.target).startswith(f"{made}/"):
            mounts.unmount(Path(entry.target))
    shutil.rmtree(made)


def test_a_tmpfs_has_the_size_the_mode_and_the_owner_asked_for(root: Path) -> None:
    driver = opened("tmpfs", root)
    chosen = options(driver, size="1m", mode="750", uid="7", gid="8", noexec="true")
    driver.call.volume_create("v", chosen)
    path = driver.call.volume_mount("v", chosen)
    found = path.stat()
    assert (found.st_mode & 0o7777, found.st_uid, found.st_gid) == (0o750, 7, 8)
    with pytest.raises(OSError) as full, (path / "big").open("wb") as file:
        file.write(b"x" * (2 << 20))
    assert full.value.errno == errno.ENOSPC
    assert driver.call.volume_mount("v", chosen) == path
    assert (path / "big").exists()
    driver.call.volume_unmount("v", chosen)
    driver.call.volume_unmount("v", chosen)
    assert not mounts.is_mounted(path)
    driver.call.volume_remove("v", chosen)
    assert list(root.iterdir()) == []


def test_a_tmpfs_refuses_a_mode_that_is_none(root: Path) -> None:
    driver = opened("tmpfs", root)
    with pytest.raises(InvalidArgument, match="mode='rw'"):
        driver.call.volume_create("v", options(driver, mode="rw"))


@pytest.fixture
def btrfs(root: Path) -> Iterator[Path]:
    image = root / "image"
    with image.open("wb") as file:
        file.truncate(256 << 20)
    subprocess.run(["mkfs.btrfs", "-q", image], check=True)
    place = root / "fs"
    place.mkdir()
    subprocess.run(["mount", "-o", "loop", image, place], check=True)
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_subvolume_its_snapshot_and_its_clone_are_independent(btrfs: Path) -> None:
    driver = opened("btrfs", btrfs)
    chosen = options(driver)
    driver.call.volume_create("v", chosen)
    path = driver.call.volume_mount("v", chosen)
    (path / "file").write_text("one")
    driver.call.volume_snapshot("v", "snap", chosen)
    driver.call.volume_snapshot("v", "snap", chosen)
    (path / "file").write_text("two")
    driver.call.volume_clone("snap", "copy", chosen)
    copy = driver.call.volume_mount("copy", chosen)
    (copy / "file").write_text("three")
    assert [(btrfs / name / "file").read_text() for name in ("v", "snap", "copy")] == [
        "two", "one", "three",
    ]  # fmt: skip
    with pytest.raises(OSError, match="Read-only"):
        (btrfs / "snap" / "new").touch()
    subprocess.run(["btrfs", "-q", "subvolume", "create", copy / "inner"], check=True)
    for name in ("v", "snap", "copy", "gone"):
        driver.call.volume_remove(name, chosen)
    assert list(btrfs.iterdir()) == []


def test_a_subvolumes_size_is_enforced(btrfs: Path) -> None:
    driver = opened("btrfs", btrfs)
    chosen = options(driver, size="8m")
    driver.call.volume_create("v", chosen)
    path = driver.call.volume_mount("v", chosen)
    with pytest.raises(OSError) as full, (path / "big").open("wb") as file:
        file.write(os.urandom(16 << 20))
        os.fsync(file.fileno())
    assert full.value.errno in (errno.EDQUOT, errno.ENOSPC)
    driver.call.volume_remove("v", chosen)


def test_btrfs_refuses_another_file_system(root: Path) -> None:
    driver = opened("btrfs", root)
    with pytest.raises(NotSupported, match="not on btrfs"):
        driver.call.volume_create("v", options(driver))
    assert list(root.iterdir()) == []


@pytest.fixture
def sshd() -> Iterator[Sshd]:
    folder = Path(tempfile.mkdtemp(prefix="sshd-", dir="/tmp"))
    server = Sshd(folder)
    yield server
    server.stop()
    shutil.rmtree(folder)


def test_a_directory_of_an_ssh_server(root: Path, sshd: Sshd, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("remote")
    driver = opened("sshfs", root)
    chosen = options(driver, **sshd.options(tmp_path))
    driver.call.volume_create("v", chosen)
    path = driver.call.volume_mount("v", chosen)
    assert (path / "file").read_text() == "remote"
    (path / "made").write_text("here")
    assert (tmp_path / "made").read_text() == "here"
    assert driver.call.volume_mount("v", chosen) == path
    driver.call.volume_unmount("v", chosen)
    driver.call.volume_remove("v", chosen)
    assert list(root.iterdir()) == []
    assert (tmp_path / "file").exists()


def test_an_ssh_server_that_is_down_is_said_in_bounded_time(root: Path, sshd: Sshd) -> None:
    driver = opened("sshfs", root)
    chosen = options(driver, **sshd.options(root))
    driver.call.volume_create("v", chosen)
    sshd.stop()
    with pytest.raises(Unavailable, match="cannot mount"):
        driver.call.volume_mount("v", chosen)
    driver.call.volume_remove("v", chosen)


def test_an_ssh_server_that_goes_away_keeps_nobody_else_waiting(sshd: Sshd, tmp_path: Path) -> None:
    (tmp_path / "remote").mkdir()
    service = Service(tmp_path)
    try:
        service.volumes.create("far", "sshfs", sshd.options(tmp_path / "remote"))
        service.volumes.create("near")
        path = service.volumes.mount("far", "c1")
        (path / "file").write_text("x")
        sshd.stop()
        faults: list[OSError] = []

        def use() -> None:
            try:
                (path / "new").write_text("y")
            except OSError as error:
                faults.append(error)

        user = threading.Thread(target=use, daemon=True)
        user.start()
        service.volumes.mount("near", "c2")
        assert [shown["Name"] for shown in service.volumes.list()[0]] == ["far", "near"]
        assert service.volumes.inspect("far")["Mountpoint"] == str(path)
        user.join(60)
        assert len(faults) == 1, "whoever uses the volume gets an error"
        sshd.start()

        def usable() -> bool:
            try:
                return (path / "file").read_text() == "x"
            except OSError:
                return False

        eventually(usable, "the volume works again by itself")
        service.volumes.unmount("far", "c1")
        service.volumes.remove("far")
    finally:
        service.clear()


def test_a_password_is_secret_and_never_on_a_command_line(root: Path) -> None:
    driver = opened("sshfs", root)
    chosen = options(driver, sshcmd="me@host:", password="geheim")
    assert masked(driver.call.volume_options(), chosen.given)["password"] == "***"
    assert not any("geheim" in word for word in driver.instance._command(chosen, root))  # type: ignore[attr-defined]


@pytest.mark.parametrize("text", ["-oProxyCommand=x:", "no-path", "", "a b:/x"])
def test_a_wrong_ssh_directory_is_named(root: Path, text: str) -> None:
    driver = opened("sshfs", root)
    with pytest.raises(InvalidArgument, match="sshcmd"):
        driver.call.volume_create("v", options(driver, sshcmd=text))


def test_an_nfs_share_becomes_a_bounded_mount(root: Path) -> None:
    driver = Registry().volume("nfs")
    driver.call.volume_open(root)
    chosen = options(driver, share="localhost:/export/a", version="4.1", o="noatime")
    driver.call.volume_create("v", chosen)
    mount = driver.instance.mount_for("v", chosen)  # type: ignore[attr-defined]
    assert mount.source == "localhost:/export/a"
    assert {"soft", "vers=4.1", "noatime"} <= set(mount.options)
    with pytest.raises(InvalidArgument, match="share='x'"):
        driver.call.volume_create("w", options(driver, share="x"))
