"""NFS against a server of this kernel: the drivers nfs and local, and a server that stops."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.volumes import Service

from drivetrain.errors import Unavailable
from drivetrain.host import mounts
from drivetrain.storage import Mount
from drivetrain.testing.hosts import eventually
from drivetrain.testing.volume import VolumeConformance

SHARE = "127.0.0.1:/"


def run(*command: object) -> None:
    subprocess.run([str(word) for word in command], check=True, timeout=60)


class Server:
    """The kernel's NFS server, version 4 only, which exports one directory."""

    def __init__(self, share: Path) -> None:
        self.share = share
        for name in ("nfsd", "nfs", "nfsv4"):
            run("modprobe", name)
        mounts.mount((Mount("tmpfs", "tmpfs"),), Path("/var/lib/nfs"))
        for name in ("etab", "rmtab", "xtab", "state"):
            Path("/var/lib/nfs", name).touch()
        Path("/var/lib/nfs/v4recovery").mkdir()
        mounts.mount((Mount("nfsd", "nfsd"),), Path("/proc/fs/nfsd"))
        # no wait for clients of an earlier life
        Path("/proc/fs/nfsd/nfsv4gracetime").write_text("10\n")
        Path("/proc/fs/nfsd/nfsv4leasetime").write_text("10\n")
        self.mountd = subprocess.Popen(["rpc.mountd", "-F", "-N", "2", "-N", "3"])
        run("exportfs", "-i", "-o", "rw,no_root_squash,fsid=0,insecure,async", f"127.0.0.1:{share}")
        self.start()

    def start(self) -> None:
        run("rpc.nfsd", "-N", "3", "-V", "4", "--no-udp", "4")

    def stop(self) -> None:
        run("rpc.nfsd", "0")

    def close(self) -> None:
        self.stop()
        self.mountd.terminate()
        self.mountd.wait()
        mounts.unmount(Path("/proc/fs/nfsd"))
        mounts.unmount(Path("/var/lib/nfs"))


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    share = Path("/tmp/share")
    share.mkdir()
    mounts.mount((Mount("tmpfs", "tmpfs", ("mode=755",)),), share)
    server = Server(share)
    yield server
    server.close()
    mounts.unmount(share)


class OnServer(VolumeConformance):
    @pytest.fixture(autouse=True)
    def _server(self, server: Server) -> None:
        self.share = server.share

    # the data is the server's
    test_removing_takes_the_data_away = None


class TestNfs(OnServer):
    driver = "nfs"

    def volume_options(self, name: str) -> dict[str, str]:
        (self.share / f"{self.root.name}-{name}").mkdir(exist_ok=True)
        return {"share": f"{SHARE}{self.root.name}-{name}"}


class TestLocalOfTypeNfs(OnServer):
    driver = "local"

    def volume_options(self, name: str) -> dict[str, str]:
        (self.share / f"{self.root.name}-{name}").mkdir(exist_ok=True)
        device = f":/{self.root.name}-{name}"
        return {"type": "nfs4", "device": device, "o": "addr=localhost,vers=4.2,soft,timeo=50"}


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    service = Service(tmp_path)
    yield service
    service.clear()


def test_a_server_that_stops_gives_an_error_and_comes_back_by_itself(
    server: Server, service: Service
) -> None:
    (server.share / "cut").mkdir()
    options = {"share": f"{SHARE}cut", "o": "timeo=20,retrans=1,acregmax=0,acdirmax=0"}
    service.volumes.create("cut", "nfs", options)
    service.volumes.create("plain")
    path = service.volumes.mount("cut", "c1")
    (path / "file").write_text("x")
    server.stop()
    faults: list[OSError] = []

    def look() -> None:
        try:
            os.sync()
            (path / "new").write_text("y")
        except OSError as error:
            faults.append(error)

    user = threading.Thread(target=look, daemon=True)
    user.start()
    # others go on meanwhile
    service.volumes.mount("plain", "c2")
    assert [shown["Name"] for shown in service.volumes.list()[0]] == ["cut", "plain"]
    assert service.volumes.inspect("cut")["Driver"] == "nfs"
    user.join(120)
    assert len(faults) == 1, "whoever uses the volume gets an error"
    service.volumes.create("late", "nfs", options)
    with pytest.raises(Unavailable):
        service.volumes.mount("late", "c3")
    server.start()

    def usable() -> bool:
        try:
            return (path / "file").read_text() == "x"
        except OSError:
            return False

    eventually(usable, "the volume works again", timeout=120)
    assert service.volumes.mount("late", "c3").is_dir()
