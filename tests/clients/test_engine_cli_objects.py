"""Our own command line against a real daemon: images, networks, volumes, drivers, the system."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

from drivetrain.testing.hosts import Host


def test_images_go_out_and_come_back(host: Host, tmp_path: Path) -> None:
    host.engine("run", "--name", "c1", "busybox", "sh", "-c", "echo new > /file")
    host.engine("commit", "-m", "why", "-c", "ENV A=b", "c1", "made:1")
    assert host.engine("diff", "c1").stdout == "A /file\n"
    assert "why" in host.engine("history", "made:1").stdout
    host.engine("tag", "made:1", "other:2")
    archive = tmp_path / "i.tar"
    host.engine("save", "-o", str(archive), "other:2")
    host.engine("rmi", "made:1", "other:2")
    assert host.engine("load", "-i", str(archive)).stdout == "Loaded image: other:2\n"
    done = host.engine("run", "--rm", "other:2", "sh", "-c", "cat /file; echo $A")
    assert done.stdout == "new\nb\n"
    shown = host.engine("images", "--format", "{{.Repository}}:{{.Tag}}", "other").stdout
    assert shown == "other:2\n"
    host.engine("rmi", "other:2")


def test_export_is_the_whole_file_system(host: Host, tmp_path: Path) -> None:
    host.engine("run", "--name", "c1", "busybox", "sh", "-c", "echo new > /file")
    target = tmp_path / "c.tar"
    host.engine("export", "-o", str(target), "c1")
    with tarfile.open(target) as archive:
        names = {name.strip("/") for name in archive.getnames()}
    assert {"file", "bin/busybox"} <= names


def test_networks(host: Host) -> None:
    made = host.engine("network", "create", "--subnet", "10.77.0.0/24", "--label", "a=b", "nn")
    assert len(made.stdout.strip()) == 64
    try:
        listed = host.engine("network", "ls", "--format", "{{.Name}} {{.Driver}}").stdout
        assert "nn bridge" in listed.splitlines()
        form = "{{range .IPAM.Config}}{{.Subnet}}{{end}}"
        assert host.engine("network", "inspect", "-f", form, "nn").stdout == "10.77.0.0/24\n"
        done = host.engine(
            "run", "--rm", "--network", "nn", "--ip", "10.77.0.9", "busybox", "hostname", "-i"
        )
        assert done.stdout == "10.77.0.9\n"
    finally:
        host.engine("network", "rm", "nn")
    assert host.engine("network", "rm", "nn", check=False).returncode == 1


def test_volumes(host: Host) -> None:
    assert host.engine("volume", "create", "--label", "a=b", "vv").stdout == "vv\n"
    host.engine("run", "--rm", "-v", "vv:/d", "busybox", "sh", "-c", "echo kept > /d/file")
    assert host.engine("run", "--rm", "-v", "vv:/d", "busybox", "cat", "/d/file").stdout == "kept\n"
    assert "vv" in host.engine("volume", "ls", "-q").stdout.split()
    assert host.engine("volume", "inspect", "-f", "{{.Labels.a}}", "vv").stdout == "b\n"
    assert host.engine("volume", "rm", "vv").stdout == "vv\n"


def test_a_storage_driver_for_one_container(host: Host) -> None:
    for arguments in (
        ["run", "--storage-driver", "vfs", "--name", "one"],
        ["--storage-driver", "vfs", "run", "--name", "two"],
    ):
        host.engine(*arguments, "busybox", "true")
        form = "{{.GraphDriver.Name}}"
        assert host.engine("inspect", "-f", form, arguments[-1]).stdout == "vfs\n"


def test_drivers_are_listed_inspected_and_probed(host: Host) -> None:
    lines = host.engine("driver", "ls", "--format", "json").stdout.splitlines()
    entries = [json.loads(line) for line in lines]
    keys = {entry["Key"] for entry in entries}
    assert {"storage/overlay2", "storage/vfs", "network/bridge", "log/json-file"} <= keys
    assert sum(entry["Family"] == "storage" and entry["Default"] == "*" for entry in entries) == 1
    found = json.loads(
        host.engine("driver", "inspect", "log", "json-file", "--format", "json").stdout
    )
    assert "max-size" in {option["name"] for option in found["options"]}
    assert host.engine("driver", "probe", "storage/vfs").stdout == "storage/vfs: ok\n"
    unknown = host.engine("driver", "inspect", "storage", "nosuch", check=False)
    assert unknown.returncode == 1
    assert "pip install drivetrain-storage-nosuch" in unknown.stderr


def test_info_version_and_disk_use(host: Host) -> None:
    assert host.engine("info", "--format", "{{.DockerRootDir}}").stdout == f"{host.data_root}\n"
    text = host.engine("info").stdout
    assert "Storage Driver: " in text
    assert "Logging Driver: json-file" in text
    assert "Server" in host.engine("version").stdout
    assert host.engine("version", "--format", "{{.Server.ApiVersion}}").stdout == "1.50\n"
    kinds = [line.split("  ")[0] for line in host.engine("system", "df").stdout.splitlines()]
    assert kinds == ["TYPE", "Images", "Containers", "Local Volumes"]
    assert "busybox" in host.engine("system", "df", "-v").stdout
