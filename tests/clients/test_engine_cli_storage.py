"""``engine storage``: containers change their storage driver under a running daemon."""

from __future__ import annotations

import json

import pytest

from drivetrain.testing.hosts import Host


@pytest.fixture
def host(fresh_host: Host) -> Host:
    fresh_host.start("--storage-driver", "overlay2")
    fresh_host.load_busybox()
    return fresh_host


def made(host: Host, name: str, script: str = "echo mine > /file") -> None:
    assert host.engine("run", "--name", name, "busybox", "sh", "-c", script).returncode == 0


def driver_of(host: Host, name: str) -> str:
    return host.engine("inspect", "-f", "{{.Driver}}", name).stdout.strip()


def usage(host: Host) -> dict[str, dict[str, str]]:
    lines = host.engine("storage", "df", "--format", "json").stdout.splitlines()
    return {row["Name"]: row for row in map(json.loads, lines)}


def test_stopped_containers_move_with_what_they_wrote(host):
    made(host, "one")
    made(host, "two", "rm /bin/vi; mkdir /new")
    before = {name: host.engine("diff", name).stdout for name in ("one", "two")}
    planned = host.engine("storage", "migrate", "--to", "vfs", "--all", "--dry-run").stdout
    assert "one: overlay2 -> vfs: would move" in planned
    assert driver_of(host, "one") == "overlay2"
    moved = host.engine("storage", "migrate", "--to", "vfs", "--all")
    assert moved.returncode == 0, moved.stderr
    assert "two: overlay2 -> vfs: migrated" in moved.stdout
    for name in ("one", "two"):
        assert driver_of(host, name) == "vfs"
        assert host.engine("diff", name).stdout == before[name]
    assert host.engine("start", "-a", "one").returncode == 0
    again = host.engine("storage", "migrate", "--to", "vfs", "one")
    assert again.stdout == "one: on vfs already\n"


def test_a_running_container_moves_only_with_stop_and_runs_again(host):
    host.engine("run", "-d", "--rm", "--name", "web", "busybox", "sh", "-c", "date > /t; sleep 9d")
    refused = host.engine("storage", "migrate", "--to", "vfs", "web", check=False)
    assert refused.returncode == 1
    assert (
        "container web cannot move from overlay2 to vfs: it is running: stop it, or give --stop"
        in refused.stderr
    )
    moved = host.engine("storage", "migrate", "--to", "vfs", "--stop", "-t", "0", "web")
    assert moved.returncode == 0, moved.stderr
    assert driver_of(host, "web") == "vfs"
    assert host.engine("exec", "web", "cat", "/t").stdout
    assert host.engine("inspect", "-f", "{{.State.Running}}", "web").stdout == "true\n"


def test_one_that_cannot_move_does_not_keep_others_from_it(host):
    host.engine("run", "-d", "--name", "runs", "busybox", "sleep", "9d")
    made(host, "stopped")
    moved = host.engine("storage", "migrate", "--to", "vfs", "--all", check=False)
    assert moved.returncode == 1
    assert "container runs cannot move" in moved.stderr
    assert (driver_of(host, "runs"), driver_of(host, "stopped")) == ("overlay2", "vfs")


def test_drivers_and_containers_that_do_not_exist_are_named(host):
    made(host, "one")
    for arguments, message in (
        (("--to", "nothing", "one"), "nothing"),
        (("--to", "vfs", "nobody"), "No such container: nobody"),
        (("--to", "vfs"), "name containers to migrate, or give --all"),
        (("--to", "vfs", "--all", "one"), "name containers to migrate, or give --all"),
    ):
        refused = host.engine("storage", "migrate", *arguments, check=False)
        assert refused.returncode != 0 and message in refused.stderr, refused


def test_what_each_driver_holds_is_shown(host):
    made(host, "one", "head -c 3000000 /dev/urandom > /file")
    host.engine("create", "--name", "two", "busybox")
    host.engine("storage", "migrate", "--to", "vfs", "one")
    found = usage(host)
    assert (found["overlay2"]["Default"], found["vfs"]["Default"]) == ("*", "")
    assert (found["overlay2"]["Containers"], found["vfs"]["Containers"]) == ("1", "1")
    assert (found["overlay2"]["Layers"], found["vfs"]["Layers"]) == ("1", "1")
    assert found["vfs"]["ContainerSize"].endswith("MB")
    assert {row["State"] for row in found.values()} == {"ok"}
    table = host.engine("storage", "df").stdout.splitlines()
    assert table[0].split() == [
        *("DRIVER", "DEFAULT", "CONTAINERS", "SIZE", "IMAGE", "LAYERS", "SIZE", "STATE")
    ]


def test_containers_keep_their_driver_when_the_default_changes(host):
    made(host, "old")
    host.stop()
    host.start("--storage-driver", "vfs")
    made(host, "new")
    assert (driver_of(host, "old"), driver_of(host, "new")) == ("overlay2", "vfs")
    assert host.engine("start", "-a", "old").returncode == 0
