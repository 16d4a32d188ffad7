"""The real docker client against our socket: volumes, mounts, networks and ports."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from drivetrain.testing.hosts import Host, eventually


def test_a_named_volume_outlives_its_containers(host: Host) -> None:
    host.docker("run", "--rm", "-v", "data:/data", "busybox", "sh", "-c", "echo kept > /data/file")
    shown = host.docker("run", "--rm", "-v", "data:/data:ro", "busybox", "cat", "/data/file")
    assert shown.stdout == "kept\n"
    refused = host.docker(
        "run", "--rm", "-v", "data:/data:ro", "busybox", "touch", "/data/x", check=False
    )
    assert "Read-only file system" in refused.stderr
    host.docker("volume", "rm", "data")
    assert "data" not in host.docker("volume", "ls", "-q").stdout


def test_an_empty_volume_gets_the_images_files(host: Host) -> None:
    listed = host.docker("run", "--rm", "-v", "filled:/etc", "busybox", "ls", "/etc").stdout
    assert "passwd" in listed
    empty = host.docker(
        "run",
        "--rm",
        "--mount",
        "type=volume,src=bare,dst=/etc,volume-nocopy",
        "busybox",
        "ls",
        "/etc",
    )
    assert "passwd" not in empty.stdout
    host.docker("volume", "rm", "filled", "bare")


def test_a_volume_in_use_is_not_removed(host: Host) -> None:
    host.docker("create", "--name", "box", "-v", "data:/data", "busybox")
    refused = host.docker("volume", "rm", "data", check=False)
    assert "volume is in use" in refused.stderr
    host.docker("rm", "box")
    host.docker("volume", "rm", "data")


def test_anonymous_volumes_go_with_rm(host: Host) -> None:
    host.docker("run", "--rm", "-v", "/data", "busybox", "touch", "/data/x")
    eventually(lambda: host.docker("volume", "ls", "-q").stdout == "", "the volume is gone")


def test_bind_mounts(host: Host, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("from the host\n")
    shown = host.docker("run", "--rm", "-v", f"{tmp_path}:/here:ro", "busybox", "cat", "/here/file")
    assert shown.stdout == "from the host\n"
    host.docker(
        "run",
        "--rm",
        "-u",
        "7:7",
        "--mount",
        f"type=bind,src={tmp_path},dst=/here",
        "busybox",
        "true",
    )
    missing = host.docker(
        "run",
        "--rm",
        "--mount",
        f"type=bind,src={tmp_path}/no,dst=/x",
        "busybox",
        "true",
        check=False,
    )
    assert "bind source path does not exist" in missing.stderr
    host.docker("run", "--rm", "-v", f"{tmp_path}/made:/x", "busybox", "touch", "/x/y")
    assert (tmp_path / "made" / "y").exists()


@pytest.mark.parametrize("runtime", ["crun", "runc"])
def test_a_single_file_is_bound_where_the_image_has_none(
    host: Host, tmp_path: Path, runtime: str
) -> None:
    (tmp_path / "file").write_text("alone\n")
    shown = host.docker(
        "run", "--rm", "--runtime", runtime, "-v", f"{tmp_path}/file:/deep/down/file:ro",
        "busybox", "sh", "-c", "cat /deep/down/file; echo x > /deep/down/file", check=False,
    )  # fmt: skip
    assert shown.stdout == "alone\n"
    assert "Read-only file system" in shown.stderr


def test_volumes_from_another_container(host: Host) -> None:
    host.docker("create", "--name", "aa", "-v", "/shared", "busybox")
    host.docker("run", "--rm", "--volumes-from", "aa", "busybox", "touch", "/shared/x")
    listed = host.docker("run", "--rm", "--volumes-from", "aa:ro", "busybox", "ls", "/shared")
    assert listed.stdout == "x\n"


def test_containers_on_a_users_network_find_each_other(host: Host) -> None:
    host.docker("network", "create", "net")
    host.docker(
        "run", "-d", "--network", "net", "--name", "server", "--network-alias", "web", "busybox",
        "nc", "-ll", "-p", "80", "-e", "echo", "hello",
    )  # fmt: skip
    for name in ("server", "web"):
        script = f"for i in $(seq 50); do nc -w 5 {name} 80 && break; sleep 0.1; done"
        answer = host.docker("run", "--rm", "--network", "net", "busybox", "sh", "-c", script)
        assert answer.stdout == "hello\n"
    unknown = host.docker(
        "run", "--rm", "--network", "net", "busybox", "nslookup", "nobody", check=False
    )
    assert unknown.returncode != 0
    in_use = host.docker("network", "rm", "net", check=False)
    assert "has active endpoints" in in_use.stderr
    host.clear()
    host.docker("network", "rm", "net")


def test_networks_are_apart(host: Host) -> None:
    for name in ("one", "two"):
        host.docker("network", "create", name)
    host.docker(
        "run",
        "-d",
        "--network",
        "one",
        "--name",
        "server",
        "busybox",
        "nc",
        "-ll",
        "-p",
        "80",
        "-e",
        "true",
    )
    address = host.docker(
        "inspect", "-f", "{{.NetworkSettings.Networks.one.IPAddress}}", "server"
    ).stdout.strip()
    script = f"for i in $(seq 50); do nc -w 2 {address} 80 && exit 0; sleep 0.1; done; exit 1"
    host.docker("run", "--rm", "--network", "one", "busybox", "sh", "-c", script)
    other = host.docker(
        "run", "--rm", "--network", "two", "busybox", "nc", "-w", "2", address, "80", check=False
    )
    assert other.returncode != 0
    host.docker("network", "connect", "one", host.docker(
        "run", "-d", "--network", "two", "--name", "both", "busybox", "sleep", "1000"
    ).stdout.strip())  # fmt: skip
    host.docker("exec", "both", "nc", "-w", "5", address, "80")
    host.docker("network", "disconnect", "one", "both")
    assert host.docker("exec", "both", "ls", "/sys/class/net").stdout.split() == ["eth0", "lo"]
    host.clear()
    host.docker("network", "rm", "one", "two")


def _from_the_host(host: Host, address: str, port: str) -> str:
    done = subprocess.run(
        [*host.inside, "busybox", "nc", "-w", "2", address, port], capture_output=True, text=True,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return done.stdout


def test_published_ports_lead_to_the_container(host: Host) -> None:
    host.docker(
        "run", "-d", "--name", "server", "-p", "8080:80", "-p", "127.0.0.1:8081:80", "-p", "80",
        "busybox", "nc", "-ll", "-p", "80", "-e", "echo", "hello",
    )  # fmt: skip
    eventually(lambda: _from_the_host(host, "127.0.0.1", "8080") == "hello\n", "port 8080 answers")
    eventually(lambda: _from_the_host(host, "127.0.0.1", "8081") == "hello\n", "port 8081 answers")
    shown = host.docker("port", "server").stdout
    assert "80/tcp -> 0.0.0.0:8080" in shown
    assert "80/tcp -> 127.0.0.1:8081" in shown
    chosen = json.loads(
        host.docker("inspect", "-f", "{{json .NetworkSettings.Ports}}", "server").stdout
    )
    ports = {entry["HostPort"] for entry in chosen["80/tcp"]} - {"8080", "8081"}
    assert len(ports) == 1
    port = ports.pop()
    eventually(
        lambda: _from_the_host(host, "127.0.0.1", port) == "hello\n", "the free port answers"
    )
    taken = host.docker("run", "--rm", "-p", "8080:80", "busybox", "true", check=False)
    assert taken.returncode == 125
    assert "port is already allocated" in taken.stderr
    host.docker("rm", "-f", "server")
    assert _from_the_host(host, "127.0.0.1", "8080") == ""


def test_host_and_none_networks(host: Host) -> None:
    inside = host.docker(
        "run", "--rm", "--network", "host", "busybox", "readlink", "/proc/self/ns/net"
    )
    assert inside.stdout.strip() == os.readlink(f"/proc/{host.pid}/ns/net")
    alone = host.docker("run", "--rm", "--network", "none", "busybox", "ls", "/sys/class/net")
    assert alone.stdout == "lo\n"


def test_the_network_of_another_container(host: Host) -> None:
    host.docker("run", "-d", "--name", "aa", "busybox", "sleep", "1000")
    shown = host.docker("run", "--rm", "--network", "container:aa", "busybox", "hostname")
    assert shown.stdout == host.docker("exec", "aa", "hostname").stdout


def test_network_inspect_shows_who_is_on_it(host: Host) -> None:
    host.docker(
        "network",
        "create",
        "--subnet",
        "10.99.0.0/24",
        "--gateway",
        "10.99.0.1",
        "--label",
        "a=b",
        "net",
    )
    host.docker(
        "run",
        "-d",
        "--name",
        "box",
        "--network",
        "net",
        "--ip",
        "10.99.0.77",
        "busybox",
        "sleep",
        "1000",
    )
    shown = json.loads(host.docker("network", "inspect", "net").stdout)[0]
    assert shown["IPAM"]["Config"] == [{"Subnet": "10.99.0.0/24", "Gateway": "10.99.0.1"}]
    assert [entry["IPv4Address"] for entry in shown["Containers"].values()] == ["10.99.0.77/24"]
    overlap = host.docker("network", "create", "--subnet", "10.99.0.0/16", "other", check=False)
    assert "overlap" in overlap.stderr
    host.clear()
    host.docker("network", "rm", "net")


def test_host_names_and_resolvers(host: Host) -> None:
    shown = host.docker(
        "run", "--rm", "--add-host", "db:10.1.2.3", "--dns", "9.9.9.9",
        "--dns-search", "example.org", "busybox", "cat", "/etc/hosts", "/etc/resolv.conf",
    ).stdout  # fmt: skip
    assert "10.1.2.3\tdb" in shown
    assert "nameserver 9.9.9.9" in shown
    assert "search example.org" in shown
