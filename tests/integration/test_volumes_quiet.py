"""Files that are being copied do not change meanwhile: nobody starts or goes on writing them."""

import os
import socket
import threading

import pytest
from tests.volumes import Service

from drivetrain.errors import InUse
from drivetrain.testing.hosts import Host, eventually
from drivetrain_engine.containers.volumefiles import export_volume
from drivetrain_engine.volumes import copies


@pytest.fixture
def service(tmp_path):
    service = Service(tmp_path)
    yield service
    service.clear()


@pytest.fixture
def volumes(service):
    service.volumes.create("data")
    (service.volumes.mount("data", "c1") / "file").write_text("before")
    service.volumes.unmount("data", "c1")
    return service.volumes


def in_thread(work):
    results = []
    thread = threading.Thread(target=lambda: results.append(work()))
    thread.start()
    return thread, results


@pytest.fixture
def held_copy(monkeypatch):
    """Copies of files that begin, and go on when they are let."""
    begun, go_on, copy_up = threading.Event(), threading.Event(), copies.copy_up

    def waiting(path, source):
        begun.set()
        assert go_on.wait(60)
        return copy_up(path, source)

    monkeypatch.setattr(copies, "copy_up", waiting)
    return begun, go_on


def test_a_container_that_starts_waits_until_the_copy_is_made(volumes, held_copy):
    begun, go_on = held_copy
    copying, _ = in_thread(lambda: volumes.contents.copy("clone", "data", "copy"))
    assert begun.wait(60)
    starting, places = in_thread(lambda: volumes.mount("data", "c2"))
    assert not places and starting.is_alive()
    assert [one["Name"] for one in volumes.list()[0]] == ["data"], "a list does not"
    go_on.set()
    starting.join(60)
    (places[0] / "file").write_text("after")
    copying.join(60)
    assert (volumes.mount("copy", "c3") / "file").read_text() == "before"


def test_a_container_that_goes_on_before_the_copy_begins_keeps_it_from_being_made(volumes):
    volumes.mount("data", "c1")
    paused = {"c1"}

    def unpaused_meanwhile():
        volumes.check_going_on("nobody")
        paused.clear()
        return paused

    with (
        pytest.raises(InUse, match=r"in use - \[c1\]"),
        volumes.mounted_quiet("data", "copier", unpaused_meanwhile),
    ):
        pass
    volumes.check_going_on("c1")


def test_paused_containers_stay_so_while_files_are_copied(volumes):
    volumes.mount("data", "c1")
    with volumes.mounted_quiet("data", "copier", lambda: {"c1"}):
        with pytest.raises(InUse, match="data is being copied, and container c1 may write it"):
            volumes.check_going_on("c1")
        volumes.check_going_on("c2")
    volumes.check_going_on("c1")


def test_nobody_mounts_a_volume_that_is_exported_and_all_may_afterwards(volumes):
    pieces = export_volume(volumes, "data", tuple)
    next(pieces)
    with pytest.raises(InUse, match="volume data is being copied"):
        volumes.mount("data", "c1")
    pieces.close()
    volumes.mount("data", "c1")
    with pytest.raises(InUse, match="pause"):
        next(export_volume(volumes, "data", tuple))
    volumes.unmount("data", "c1")


def test_two_containers_that_start_at_once_fill_a_volume_once(volumes, tmp_path):
    image = tmp_path / "image"
    image.mkdir()
    for number in range(300):
        (image / str(number)).write_text(str(number))
    volumes.create("new")
    path = volumes.mount("new", "c1")
    threads = [in_thread(lambda: volumes.copy_up(path, image)) for _ in range(6)]
    for thread, _ in threads:
        thread.join(60)
    assert sorted(made for _, results in threads for made in results) == [False] * 5 + [True]
    assert len(os.listdir(path)) == 300


def test_a_paused_container_goes_on_when_the_export_is_done():
    with Host() as host:
        host.start("--storage-driver", "vfs")
        host.load_busybox()
        run = ("run", "-d", "--network=none", "-v", "data:/v", "busybox", "sh", "-c")
        user = host.docker(*run, "dd if=/dev/zero of=/v/f bs=1M count=64; sleep 1000")
        name = user.stdout.strip()
        host.docker("exec", name, "sh", "-c", "until pidof sleep; do sleep 0.1; done")
        host.docker("pause", name)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(host.socket))
            client.sendall(b"GET /engine/volumes/data/export HTTP/1.1\r\nHost: e\r\n\r\n")
            assert client.recv(12) == b"HTTP/1.1 200"
            for refused in (["unpause", name], ["stop", name], [*run, "true"]):
                done = host.docker(*refused, check=False)
                assert "volume data is being copied" in done.stderr, done
            state = host.docker("inspect", "-f", "{{.State.Status}}", name).stdout
            assert state == "paused\n"
            # another volume, the same command
            host.docker("run", "--rm", "--network=none", "-v", "other:/v", "busybox", "true")
        # the client is gone
        eventually(lambda: host.docker("unpause", name, check=False).returncode == 0, "it goes on")
        host.docker("rm", "-f", name)
