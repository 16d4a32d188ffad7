"""The nfs driver, and nfs by the local driver, against the kernel's server."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from tests.vm.volume.servers import NfsServer
from tests.volumes import Service

from drivetrain.errors import Unavailable
from drivetrain.host import mounts
from drivetrain.storage import Mount
from drivetrain.testing.hosts import eventually
from drivetrain.testing.volume import VolumeConformance


class TestNfs(VolumeConformance):
    driver = "nfs"
    # the files are the server's
    test_removing_takes_the_data_away = None

    @pytest.fixture(autouse=True)
    def _server(self, nfs_server: NfsServer, request: pytest.FixtureRequest) -> None:
        self.server = nfs_server
        self.folder = request.node.name

    def volume_options(self, name: str) -> Mapping[str, str]:
        self.server.directory(self.folder)
        self.server.directory(f"{self.folder}/{name}")
        return {"share": f"localhost:/{self.folder}/{name}"}

    def test_removing_leaves_the_files_of_the_server_alone(self) -> None:
        volume = self.made()
        (volume.mount() / "file").write_text("x")
        volume.remove()
        assert (self.server.exported / self.folder / "data" / "file").read_text() == "x"


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    service = Service(tmp_path)
    yield service
    service.clear()


def mounted_options(path: Path) -> tuple[str, ...]:
    return next(one.super_options for one in mounts.mount_table() if one.target == str(path))


LOCAL = {
    # for the kernel this is version 3, as it is with Docker; PATH: where it is on the server
    "nfs": {"type": "nfs", "device": ":PATH", "o": "addr=localhost,nolock"},
    "nfs version 4": {"type": "nfs", "device": ":/here", "o": "addr=127.0.0.1,nfsvers=4,soft"},
    "nfs4": {"type": "nfs4", "device": "localhost:/here", "o": "rw"},
    "nfs4 without options": {"type": "nfs4", "device": "127.0.0.1:/here"},
}


@pytest.mark.parametrize("options", LOCAL.values(), ids=LOCAL)
def test_the_local_driver_mounts_nfs_as_docker_users_write_it(
    service: Service, nfs_server: NfsServer, options: dict[str, str]
) -> None:
    place = nfs_server.directory("here")
    (place / "file").write_text("remote")
    given = {**options, "device": options["device"].replace("PATH", str(place))}
    service.volumes.create("data", options=given)
    path = service.volumes.mount("data", "c1")
    assert (path / "file").read_text() == "remote"
    (path / "made").write_text("here")
    assert (place / "made").read_text() == "here"
    service.volumes.unmount("data", "c1")
    assert service.mounted() == []
    service.volumes.remove("data")
    assert (place / "made").exists()


@pytest.mark.parametrize("version", ["3", "4.0", "4.1", "4.2"])
def test_every_version_of_the_protocol(
    service: Service, nfs_server: NfsServer, version: str
) -> None:
    place = nfs_server.directory("here")
    path = f"{place}" if version == "3" else "/here"
    service.volumes.create(
        "data", "nfs", {"share": f"127.0.0.1:{path}", "version": version, "o": "noatime"}
    )
    mounted = service.volumes.mount("data", "c1")
    (mounted / "file").write_text(version)
    assert (place / "file").read_text() == version
    assert {f"vers={version}", "soft"} <= set(mounted_options(mounted))
    service.volumes.unmount("data", "c1")


@pytest.mark.parametrize(
    ("driver", "options"),
    [
        ("nfs", {"share": "files.test:/here"}),
        ("local", {"type": "nfs4", "device": ":/here", "o": "addr=files.test"}),
    ],
)
def test_the_server_is_looked_up_at_each_mount(
    service: Service, nfs_server: NfsServer, tmp_path: Path, driver: str, options: dict[str, str]
) -> None:
    nfs_server.directory("here")
    names = tmp_path / "hosts"
    names.write_text("127.0.0.1 files.test\n")
    mounts.mount((Mount("bind", str(names), ("bind",)),), Path("/etc/hosts"))
    try:
        service.volumes.create("data", driver, options)
        for address in ("127.0.0.1", "127.0.0.2"):
            names.write_text(f"{address} files.test\n")
            path = service.volumes.mount("data", "c1")
            assert f"addr={address}" in mounted_options(path)
            service.volumes.unmount("data", "c1")
        names.write_text("")
        with pytest.raises(Unavailable, match=r"files\.test"):
            service.volumes.mount("data", "c1")
    finally:
        mounts.unmount(Path("/etc/hosts"))


def failing(work: Callable[[], object]) -> tuple[threading.Thread, list[BaseException]]:
    """Start what is to fail, in a thread."""
    faults: list[BaseException] = []

    def attempt() -> None:
        try:
            work()
        except (OSError, Unavailable) as error:
            faults.append(error)

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    return thread, faults


@pytest.mark.parametrize("fault", ["stopped", "cut off"])
def test_a_server_that_goes_away_keeps_nobody_else_waiting(
    service: Service, nfs_server: NfsServer, fault: str
) -> None:
    nfs_server.directory("here")
    volumes = service.volumes
    for name in ("far", "later"):
        volumes.create(name, "nfs", {"share": "127.0.0.1:/here"})
    path = volumes.mount("far", "c1")
    (path / "file").write_text("x")
    back = nfs_server.start if fault == "stopped" else nfs_server.join
    (nfs_server.stop if fault == "stopped" else nfs_server.cut)()
    try:
        user, said = failing(lambda: (path / "new").write_text("y"))
        mounting, refused = failing(lambda: volumes.mount("later", "c3"))
        near = volumes.create("near")["Name"]
        (volumes.mount(near, "c2") / "file").write_text("z")
        volumes.unmount(near, "c2")
        assert [one["Name"] for one in volumes.list()[0]] == ["far", "later", "near"]
        assert volumes.inspect("far")["Mountpoint"] == str(path)
        assert {one["Name"] for one in volumes.usage()} == {"far", "later", "near"}
        user.join(100)
        assert len(said) == 1, "who uses the volume gets an error"
        mounting.join(100)
        assert len(refused) == 1 and "later" in str(refused[0])
    finally:
        back()

    def usable() -> bool:
        try:
            return (path / "file").read_text() == "x"
        except OSError:
            return False

    eventually(usable, "the volume works again by itself", 100)
    (path / "new").write_text("y")
    os.sync()
    for name, container in (("far", "c1"), ("later", "c3")):
        if name == "later":
            volumes.mount(name, container)
        volumes.unmount(name, container)
        volumes.remove(name)
    assert service.mounted() == []


def test_a_volume_of_a_server_that_is_gone_can_be_unmounted_and_removed(
    service: Service, nfs_server: NfsServer
) -> None:
    nfs_server.directory("here")
    service.volumes.create("data", "nfs", {"share": "127.0.0.1:/here"})
    service.volumes.mount("data", "c1")
    nfs_server.stop()
    try:
        service.volumes.unmount("data", "c1")
        service.volumes.remove("data")
        assert service.mounted() == []
    finally:
        nfs_server.start()
