"""Whole volumes in the hands of a user: snapshot, clone, restore, rename, export, import."""

import io
import subprocess
import tarfile

import pytest

from drivetrain.host import mounts
from drivetrain.storage import Mount
from drivetrain.testing.hosts import Host


@pytest.fixture(scope="module")
def host():
    with Host() as host:
        host.start("--storage-driver", "vfs")
        host.load_busybox()
        yield host


@pytest.fixture(scope="module")
def btrfs(tmp_path_factory):
    """A directory on btrfs."""
    folder = tmp_path_factory.mktemp("btrfs")
    image, place = folder / "image", folder / "mounted"
    image.touch()
    place.mkdir()
    subprocess.run(["truncate", "-s", "300M", image], check=True)
    subprocess.run(["mkfs.btrfs", "-q", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, place], check=True)
    yield place
    mounts.unmount(place)


@pytest.fixture(params=["plain", "btrfs", "bind"])
def options(request, tmp_path):
    """How to make a volume whose data outlives its mounts, with each way of copying."""
    if request.param == "plain":
        return []
    if request.param == "btrfs":
        place = request.getfixturevalue("btrfs")
        return ["-d", "btrfs", "-o", f"root={place}"]
    bound = tmp_path / "bound"
    bound.mkdir()
    return ["-o", "type=none", "-o", f"device={bound}", "-o", "o=bind"]


@pytest.fixture
def volume(host, options):
    host.engine("volume", "create", *options, "data")
    write(host, "data", "echo one > /v/file; ln /v/file /v/link; chown 7:8 /v/file")
    yield "data"
    for name in ("data", "kept", "copy", "renamed", "packed"):
        host.engine("volume", "rm", "-f", name)


def write(host, volume, command):
    return host.docker("run", "--rm", "--network=none", "-v", f"{volume}:/v", "busybox",
                       "sh", "-c", command).stdout  # fmt: skip


def content(host, volume):
    return write(host, volume, "cat /v/file; stat -c %u:%g:%h /v/file")


def test_a_snapshot_keeps_what_was_and_gives_it_back(host, volume):
    host.engine("volume", "snapshot", "data", "kept")
    assert host.engine("volume", "snapshot", "data", "kept").stdout == "kept\n"
    write(host, "data", "echo two > /v/file; touch /v/new")
    assert content(host, "kept") == "one\n7:8:2\n"
    assert host.engine("volume", "restore", "data", "kept").stdout == "data\n"
    assert content(host, "data") == "one\n7:8:2\n"
    assert write(host, "data", "ls /v") == "file\nlink\n"
    write(host, "data", "echo three > /v/file")
    assert content(host, "kept") == "one\n7:8:2\n"


def test_a_snapshot_cannot_be_changed_by_containers(host, volume):
    host.engine("volume", "snapshot", "data", "kept")
    failed = host.docker(
        "run", "--rm", "--network=none", "-v", "kept:/v", "busybox", "touch", "/v/x", check=False
    )
    assert "Read-only file system" in failed.stderr
    refused = host.engine("volume", "restore", "kept", "data", check=False)
    assert "snapshot of data" in refused.stderr


def test_a_clone_lives_apart(host, volume):
    host.engine("volume", "clone", "data", "copy", "--label", "a=b")
    write(host, "copy", "echo two > /v/file")
    assert content(host, "data") == "one\n7:8:2\n"
    assert content(host, "copy") == "two\n7:8:2\n"
    assert '"a": "b"' in host.engine("volume", "inspect", "copy").stdout


def test_a_clone_may_have_another_driver(host, volume, btrfs):
    host.engine("volume", "clone", "-d", "btrfs", "-o", f"root={btrfs}", "data", "copy")
    assert content(host, "copy") == "one\n7:8:2\n"


def test_a_renamed_volume_leaves_its_name_to_others(host, volume):
    host.engine("volume", "rename", "data", "renamed")
    assert content(host, "renamed") == "one\n7:8:2\n"
    assert "no such volume" in host.engine("volume", "inspect", "data", check=False).stderr.lower()
    host.engine("volume", "create", "data")
    assert write(host, "data", "ls /v") == ""
    host.engine("volume", "rm", "data")
    assert content(host, "renamed") == "one\n7:8:2\n"


def test_an_archive_of_a_volume_fills_another(host, volume, tmp_path):
    host.engine("volume", "export", "-o", str(tmp_path / "out.tar"), "data")
    with tarfile.open(tmp_path / "out.tar") as archive:
        assert sorted(archive.getnames()) == [".", "./file", "./link"]
    host.engine("volume", "import", "packed", str(tmp_path / "out.tar"))
    assert content(host, "packed") == "one\n7:8:2\n"
    refused = host.engine("volume", "import", "packed", str(tmp_path / "out.tar"), check=False)
    assert "not empty" in refused.stderr


def test_an_archive_that_is_none_leaves_no_volume(host, tmp_path):
    (tmp_path / "bad").write_bytes(b"no tar" * 1000)
    failed = host.engine("volume", "import", "packed", str(tmp_path / "bad"), check=False)
    assert "tar" in failed.stderr
    assert "packed" not in host.engine("volume", "ls", "-q").stdout


def test_an_archive_cannot_reach_out_of_the_volume(host, tmp_path):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        link = tarfile.TarInfo("out")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path)
        archive.addfile(link)
        for name in ("out/evil", "../evil", f"{tmp_path}/evil"):
            entry = tarfile.TarInfo(name)
            entry.size = 4
            archive.addfile(entry, io.BytesIO(b"evil"))
    host.engine("volume", "import", "packed", data=packed.getvalue(), check=False)
    assert not (tmp_path / "evil").exists()
    place = host.data_root / "volumes" / "local" / "packed" / "_data"
    assert all(found.is_relative_to(place) for found in host.root.rglob("evil"))
    host.engine("volume", "rm", "-f", "packed")


def test_files_in_use_are_copied_only_while_their_users_are_paused(host, volume, options):
    user = host.docker("run", "-d", "--network=none", "-v", "data:/v", "busybox", "sleep", "1000")
    user = user.stdout.strip()
    try:
        for command in (["clone", "data", "copy"], ["export", "data"]):
            done = host.engine("volume", *command, check=False)
            if "btrfs" in options and command[0] == "clone":
                assert done.returncode == 0  # at once, by the driver
            else:
                assert done.returncode != 0
                assert "pause (engine pause) or stop" in done.stderr
        assert "in use" in host.engine("volume", "rename", "data", "renamed", check=False).stderr
        host.docker("pause", user)
        host.engine("volume", "snapshot", "data", "kept")
        host.engine("volume", "export", "data")
        host.docker("unpause", user)
        assert content(host, "kept") == "one\n7:8:2\n"
    finally:
        host.docker("rm", "-f", user)


def test_a_copy_of_a_volume_that_forgets_goes_to_a_directory(host):
    host.engine("volume", "create", "-d", "tmpfs", "scratch")
    user = host.docker("run", "-d", "--network=none", "-v", "scratch:/v", "busybox",
                       "sh", "-c", "echo one > /v/file; sleep 1000").stdout.strip()  # fmt: skip
    try:
        host.docker("exec", user, "sh", "-c", "until test -s /v/file; do sleep 0.1; done")
        host.docker("pause", user)
        host.engine("volume", "snapshot", "scratch", "kept")
        assert "local" in host.engine("volume", "inspect", "-f", "{{.Driver}}", "kept").stdout
        assert write(host, "kept", "cat /v/file") == "one\n"
    finally:
        host.docker("unpause", user, check=False)
        host.docker("rm", "-f", user)
        host.engine("volume", "rm", "-f", "kept", "scratch")


def test_a_restore_that_was_broken_off_keeps_the_volume_from_being_used(tmp_path):
    from tests.volumes import Service

    from drivetrain.errors import InUse

    service = Service(tmp_path)
    for name in ("data", "kept"):
        service.volumes.create(name)
        (service.volumes.mount(name, "c1") / name).touch()
        service.volumes.unmount(name, "c1")
    small = tmp_path / "volumes" / "local" / "data" / "_data"
    mounts.mount((Mount("tmpfs", "tmpfs", ("size=64k", "nr_inodes=2")),), small)
    for number in range(5):
        (tmp_path / "volumes" / "local" / "kept" / "_data" / str(number)).touch()
    with pytest.raises(OSError):
        service.volumes.contents.restore("data", "kept")
    mounts.unmount(small)
    volumes = service.start()
    with pytest.raises(InUse, match="engine volume restore data kept"):
        volumes.mount("data", "c1")
    volumes.contents.restore("data", "kept")
    path = volumes.mount("data", "c1")
    assert sorted(entry.name for entry in path.iterdir()) == ["0", "1", "2", "3", "4", "kept"]
