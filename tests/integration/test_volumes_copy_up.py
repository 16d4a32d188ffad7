"""Image content copied into an empty volume, with everything that a file has."""

import os
import stat

import pytest
from tests.volumes import TMPFS, Service

from drivetrain.errors import AlreadyExists, NotFound, Unavailable


@pytest.fixture
def service(tmp_path):
    service = Service(tmp_path)
    yield service
    service.clear()


@pytest.fixture
def volumes(service):
    return service.volumes


def test_copying_keeps_everything_that_a_file_has(volumes, tmp_path):
    source = tmp_path / "image"
    (source / "folder").mkdir(parents=True)
    file = source / "folder" / "file"
    file.write_bytes(b"content")
    os.setxattr(file, "user.note", b"x")
    os.chown(file, 12, 34)
    file.chmod(0o4711)
    os.setxattr(file, "security.capability", bytes.fromhex("0100000200200000" + "00" * 12))
    os.utime(file, ns=(1_000_000_001, 2_000_000_002))
    os.link(file, source / "same")
    (source / "link").symlink_to("/etc/passwd")
    os.chown(source / "link", 5, 6, follow_symlinks=False)
    os.mknod(source / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mkfifo(source / "pipe")
    with open(source / "sparse", "wb") as sparse:
        sparse.seek(64 << 20)
        sparse.write(b"end")
    source.chmod(0o750)
    os.chown(source, 7, 8)
    volumes.create("data")
    path = volumes.mount("data", "c1")
    assert volumes.copy_up(path, source) is True

    copied = os.stat(path / "folder" / "file")
    assert (copied.st_uid, copied.st_gid, copied.st_mode & 0o7777) == (12, 34, 0o4711)
    assert copied.st_mtime_ns == 2_000_000_002
    assert os.getxattr(path / "same", "user.note") == b"x"
    assert len(os.getxattr(path / "same", "security.capability")) == 20
    assert os.stat(path / "same").st_ino == copied.st_ino
    assert os.readlink(path / "link") == "/etc/passwd"
    assert os.lstat(path / "link").st_uid == 5
    assert os.stat(path / "null").st_rdev == os.makedev(1, 3)
    assert stat.S_ISFIFO(os.lstat(path / "pipe").st_mode)
    assert os.stat(path / "sparse").st_size == (64 << 20) + 3
    assert os.stat(path / "sparse").st_blocks * 512 < 1 << 20
    assert (path / "sparse").read_bytes()[-3:] == b"end"
    root = os.stat(path)
    assert (root.st_uid, root.st_gid, root.st_mode & 0o7777) == (7, 8, 0o750)
    assert os.listxattr(path) == []


def test_a_volume_with_content_is_left_alone(volumes, tmp_path):
    source = tmp_path / "image"
    source.mkdir()
    (source / "file").write_text("image")
    volumes.create("data")
    path = volumes.mount("data", "c1")
    (path / "mine").write_text("mine")
    assert volumes.copy_up(path, source) is False
    assert os.listdir(path) == ["mine"]


def test_a_source_that_is_no_directory_is_nothing_to_copy(volumes, tmp_path):
    volumes.create("data")
    path = volumes.mount("data", "c1")
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to("/etc")
    for name in ("missing", "file", "link"):
        assert volumes.copy_up(path, tmp_path / name) is False
    assert os.listdir(path) == []


def test_a_copy_that_does_not_fit_leaves_the_volume_empty(volumes, tmp_path):
    source = tmp_path / "image"
    source.mkdir()
    (source / "small").write_text("x")
    (source / "big").write_bytes(os.urandom(4 << 20))
    volumes.create("data", options=TMPFS)
    path = volumes.mount("data", "c1")
    with pytest.raises(OSError, match="No space"):
        volumes.copy_up(path, source)
    assert os.listdir(path) == []


def test_a_copy_that_a_crash_ended_is_made_anew(volumes, tmp_path):
    source = tmp_path / "image"
    source.mkdir()
    (source / "file").write_text("whole")
    volumes.create("data")
    path = volumes.mount("data", "c1")
    (path / "file").write_text("ha")
    os.setxattr(path, "trusted.drivetrain.copying", b"1")
    assert volumes.copy_up(path, source) is True
    assert (path / "file").read_text() == "whole"
    (path / "file").write_text("mine")
    assert volumes.copy_up(path, source) is False


def test_a_clone_has_the_content_and_goes_its_own_way(volumes):
    volumes.create("data", labels={"a": "b"})
    path = volumes.mount("data", "c1")
    (path / "file").write_text("first")
    volumes.unmount("data", "c1")
    shown = volumes.contents.copy("clone", "data", "copy")
    assert shown["Status"] == {"origin": "clone of data"}
    clone = volumes.mount("copy", "c2")
    assert (clone / "file").read_text() == "first"
    (clone / "file").write_text("second")
    path = volumes.mount("data", "c1")
    assert (path / "file").read_text() == "first"
    with pytest.raises(AlreadyExists):
        volumes.contents.copy("clone", "data", "copy")


def test_a_snapshot_can_be_repeated_and_keeps_what_was(volumes):
    volumes.create("data")
    path = volumes.mount("data", "c1")
    (path / "file").write_text("before")
    volumes.unmount("data", "c1")
    first = volumes.contents.copy("snapshot", "data", "kept")
    path = volumes.mount("data", "c1")
    (path / "file").write_text("after")
    volumes.unmount("data", "c1")
    assert volumes.contents.copy("snapshot", "data", "kept") == first
    assert (volumes.mount("kept", "c2") / "file").read_text() == "before"


def test_a_clone_that_cannot_be_made_leaves_nothing(volumes, service):
    volumes.create("data", options={"type": "none", "device": "/no/such/place", "o": "bind"})
    with pytest.raises(Unavailable):
        volumes.contents.copy("clone", "data", "copy")
    with pytest.raises(NotFound):
        volumes.contents.copy("clone", "nothing", "other")
    assert [shown["Name"] for shown in volumes.list()[0]] == ["data"]
    assert service.mounted() == []
