"""Volumes as the engine keeps them: names, references, mounting, pruning."""

import subprocess
import threading
from pathlib import Path

import pytest
from tests.volumes import TMPFS, Service

from drivetrain.errors import (
    AlreadyExists,
    InUse,
    InvalidArgument,
    NotFound,
    NotSupported,
    Unavailable,
)


@pytest.fixture
def service(tmp_path):
    service = Service(tmp_path)
    yield service
    service.clear()


@pytest.fixture
def volumes(service):
    return service.volumes


# making


def test_a_new_volume_is_shown_as_in_the_api(volumes, service):
    shown = volumes.create("data", labels={"a": "b"})
    assert shown == volumes.inspect("data")
    assert {key: shown[key] for key in ("Name", "Driver", "Scope", "Labels", "Options")} == {
        "Name": "data",
        "Driver": "local",
        "Scope": "local",
        "Labels": {"a": "b"},
        "Options": None,
    }
    assert shown["Mountpoint"] == str(service.root / "volumes" / "local" / "data" / "_data")
    assert service.told == ["create"]


def test_a_volume_without_a_name_is_anonymous(volumes):
    name = volumes.create()["Name"]
    assert len(name) == 64
    assert volumes.is_anonymous(name)
    assert not volumes.is_anonymous(volumes.create("data")["Name"])


@pytest.mark.parametrize("name", ["a", "-a", "a/b", "../x", ".hidden", "a b", "ä2", "a" * 256])
def test_a_name_has_to_follow_the_rules(volumes, name):
    with pytest.raises(InvalidArgument):
        volumes.create(name)
    assert volumes.list()[0] == []


def test_making_a_volume_again_is_fine_when_it_is_the_same(volumes):
    first = volumes.create("data", "local", TMPFS)
    assert volumes.create("data", "local", TMPFS) == first
    assert volumes.create("data") == first


def test_making_it_with_other_options_names_the_difference(volumes):
    volumes.create("data", "local", TMPFS)
    with pytest.raises(AlreadyExists) as caught:
        volumes.create("data", "local", {**TMPFS, "o": "size=2m"})
    assert "o is 'size=1m', asked for 'size=2m'" in str(caught.value)
    volumes.create("plain")
    with pytest.raises(AlreadyExists, match="device is not set, asked for 'tmpfs'"):
        volumes.create("plain", "local", TMPFS)


def test_unknown_drivers_and_options_are_named(volumes):
    with pytest.raises(NotFound, match="no-such-driver"):
        volumes.create("data", "no-such-driver")
    with pytest.raises(InvalidArgument, match=r"'sice'.*did you mean size"):
        volumes.create("data", "local", {"sice": "1m"})
    assert volumes.list()[0] == []


@pytest.mark.parametrize(
    ("options", "error", "reason"),
    [
        ({"type": "tmpfs"}, InvalidArgument, 'missing required option: "device"'),
        ({"device": "/x"}, InvalidArgument, 'missing required option: "type"'),
        ({"o": "ro"}, InvalidArgument, "missing required options"),
        ({"size": "1m"}, InvalidArgument, "8388608 are the least"),
        (
            {"size": "9m", "type": "none", "device": "/tmp", "o": "bind"},
            NotSupported,
            "what is mounted from /tmp has the size that it has",
        ),
    ],
)
def test_options_that_do_not_fit_together_leave_nothing(volumes, options, error, reason):
    with pytest.raises(error, match=reason):
        volumes.create("data", "local", options)
    assert volumes.list()[0] == []
    volumes.create("data")


def test_a_password_is_shown_nowhere(volumes):
    options = {"type": "cifs", "device": "//127.0.0.1/none", "o": "username=me,password=geheim"}
    shown = volumes.create("data", "local", options)
    assert shown["Options"]["o"] == "username=me,password=***"
    assert "geheim" not in str(volumes.list())
    with pytest.raises(AlreadyExists) as conflict:
        volumes.create("data", "local", {**options, "o": "password=anders"})
    with pytest.raises(Unavailable) as failure:
        volumes.mount("data", "c1")
    for caught in (conflict, failure):
        assert "geheim" not in str(caught.value)
        assert "anders" not in str(caught.value)


# references and mounting


def test_a_volume_in_use_cannot_be_removed(volumes):
    volumes.create("data")
    volumes.acquire("data", "c1")
    volumes.acquire("data", "c2")
    with pytest.raises(InUse) as caught:
        volumes.remove("data")
    assert str(caught.value) == "remove data: volume is in use - [c1, c2]"
    with pytest.raises(InUse):
        volumes.remove("data", force=True)
    volumes.release("data", "c1")
    volumes.release("data", "c2")
    volumes.remove("data")
    with pytest.raises(NotFound, match="get data: no such volume"):
        volumes.inspect("data")


def test_removing_an_unknown_volume_is_an_error_unless_forced(volumes):
    with pytest.raises(NotFound, match="get data: no such volume"):
        volumes.remove("data")
    volumes.remove("data", force=True)


def test_removing_takes_the_data_away(volumes, service):
    volumes.create("data")
    (volumes.mount("data", "c1") / "file").write_text("x")
    volumes.unmount("data", "c1")
    volumes.remove("data")
    assert list((service.root / "volumes" / "local").iterdir()) == []
    volumes.create("data")
    assert list(volumes.mount("data", "c1").iterdir()) == []


def test_it_is_mounted_for_the_first_user_and_unmounted_after_the_last(volumes, service):
    volumes.create("data", options=TMPFS)
    assert service.mounted() == []
    path = volumes.mount("data", "c1")
    (path / "file").write_text("x")
    assert volumes.mount("data", "c2") == path
    assert volumes.mount("data", "c2") == path
    assert service.mounted() == [str(path)]
    volumes.unmount("data", "c1")
    volumes.unmount("data", "c1")
    assert (path / "file").read_text() == "x"
    volumes.unmount("data", "c2")
    assert service.mounted() == []


def test_a_mount_that_fails_leaves_the_volume_unused(volumes, service):
    volumes.create("data", options={"type": "none", "device": "/no/such/place", "o": "bind"})
    with pytest.raises(Unavailable, match="failed to mount local volume data"):
        volumes.mount("data", "c1")
    assert service.mounted() == []
    volumes.remove("data")


def test_a_bind_volume_shows_the_directory_and_outlives_the_volume(volumes, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_text("x")
    volumes.create("data", options={"type": "none", "device": str(source), "o": "bind"})
    path = volumes.mount("data", "c1")
    assert (path / "file").read_text() == "x"
    volumes.unmount("data", "c1")
    volumes.remove("data")
    assert (source / "file").read_text() == "x"


def test_a_read_only_option_is_honoured(volumes, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    volumes.create("data", options={"type": "none", "device": str(source), "o": "bind,ro"})
    with pytest.raises(OSError, match="Read-only"):
        (volumes.mount("data", "c1") / "file").write_text("x")


def test_a_block_file_system_is_mounted(volumes, tmp_path):
    image = tmp_path / "disk"
    with open(image, "wb") as file:
        file.truncate(8 << 20)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    loop = subprocess.run(
        ["losetup", "--find", "--show", image], check=True, capture_output=True, text=True
    ).stdout.strip()
    try:
        volumes.create("data", options={"type": "ext4", "device": loop})
        path = volumes.mount("data", "c1")
        (path / "file").write_text("x")
        volumes.unmount("data", "c1")
        assert (volumes.mount("data", "c1") / "file").read_text() == "x"
        volumes.unmount("data", "c1")
    finally:
        subprocess.run(["losetup", "--detach", loop], check=True)


def test_a_volume_whose_directory_became_a_link_is_refused(volumes, service, tmp_path):
    shown = volumes.create("data")
    path = Path(shown["Mountpoint"])
    path.rmdir()
    path.symlink_to("/etc")
    with pytest.raises(Exception, match="no longer a directory"):
        volumes.mount("data", "c1")


def test_parallel_users_provide_once_and_release_once(volumes, service):
    volumes.create("data", options=TMPFS)
    faults = []

    def use(user):
        try:
            for _ in range(10):
                volumes.acquire("data", user)
                path = volumes.mount("data", user)
                (path / user).write_text("x")
                volumes.unmount("data", user)
                volumes.release("data", user)
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=use, args=(f"c{number}",)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    assert service.mounted() == []
    volumes.remove("data")


# new starts and crashes


def test_references_and_options_survive_a_new_start(service):
    service.volumes.create("data", options=TMPFS, labels={"a": "b"})
    service.volumes.acquire("data", "c1")
    path = service.volumes.mount("data", "c1")
    (path / "file").write_text("x")
    before = service.volumes.inspect("data")
    volumes = service.start()
    assert volumes.inspect("data") == before
    assert volumes.users("data") == ["c1"]
    with pytest.raises(InUse):
        volumes.remove("data")
    assert volumes.mount("data", "c2") == path
    assert (path / "file").read_text() == "x"


def test_reconciling_forgets_containers_that_are_gone(service):
    service.volumes.create("data", options=TMPFS)
    for user in ("gone", "stopped"):
        service.volumes.acquire("data", user)
        service.volumes.mount("data", user)
    volumes = service.start()
    assert volumes.reconcile({"stopped"}, set()) == []
    assert volumes.users("data") == ["stopped"]
    assert service.mounted() == []


def test_reconciling_keeps_what_running_containers_have(service):
    service.volumes.create("data", options=TMPFS)
    service.volumes.acquire("data", "c1")
    path = service.volumes.mount("data", "c1")
    volumes = service.start()
    volumes.reconcile({"c1"}, {"c1"})
    assert service.mounted() == [str(path)]


def test_a_volume_half_made_by_a_crash_is_removed(service):
    service.volumes.create("data")
    table = service.state.table("volumes")
    table.put("data", {**table.get("data"), "ready": False})
    volumes = service.start()
    assert volumes.list()[0] == []
    volumes.reconcile(set(), set())
    assert list((service.root / "volumes" / "local").iterdir()) == []


# lists and pruning


def names(result):
    return [shown["Name"] for shown in result[0]]


def test_the_list_is_filtered_as_in_docker(volumes):
    volumes.create("app-data", labels={"a": "1"})
    volumes.create("cache", labels={"a": "2"})
    volumes.acquire("cache", "c1")
    assert names(volumes.list()) == ["app-data", "cache"]
    assert names(volumes.list({"dangling": ["true"]})) == ["app-data"]
    assert names(volumes.list({"dangling": {"false": True}})) == ["cache"]
    assert names(volumes.list({"label": ["a=2"]})) == ["cache"]
    assert names(volumes.list({"label": ["a"]})) == ["app-data", "cache"]
    assert names(volumes.list({"name": ["data"]})) == ["app-data"]
    assert names(volumes.list({"driver": ["nfs"]})) == []
    with pytest.raises(InvalidArgument, match=r"invalid filter 'nmae'.*did you mean name"):
        volumes.list({"nmae": ["x"]})


def test_pruning_spares_named_and_used_volumes_unless_told_otherwise(volumes):
    volumes.create("named")
    used, loose = volumes.create()["Name"], volumes.create()["Name"]
    volumes.acquire(used, "c1")
    (volumes.mount(loose, "c2") / "file").write_bytes(bytes(100_000))
    volumes.unmount(loose, "c2")
    report = volumes.prune()
    assert report["VolumesDeleted"] == [loose]
    assert report["SpaceReclaimed"] >= 100_000
    assert volumes.prune({"all": ["true"]})["VolumesDeleted"] == ["named"]
    assert names(volumes.list()) == [used]


def test_pruning_respects_labels(volumes):
    volumes.create("aa", labels={"keep": "yes"})
    volumes.create("bb")
    deleted = volumes.prune({"all": ["1"], "label!": ["keep"]})["VolumesDeleted"]
    assert deleted == ["bb"]


def test_usage_counts_data_and_references(volumes):
    volumes.create("data")
    volumes.acquire("data", "c1")
    (volumes.mount("data", "c1") / "file").write_bytes(bytes(100_000))
    (shown,) = volumes.usage()
    assert shown["UsageData"]["RefCount"] == 1
    assert shown["UsageData"]["Size"] >= 100_000
    assert volumes.in_use() == {"local": 1}
