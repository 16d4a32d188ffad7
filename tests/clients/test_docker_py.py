"""Docker's SDK for Python against our socket."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from docker import DockerClient
from docker.errors import APIError, ContainerError, ImageNotFound, NotFound
from docker.types import IPAMConfig, IPAMPool, LogConfig, Mount, Ulimit

from drivetrain.testing.hosts import Host, eventually

LOOP = ["sh", "-c", "trap 'exit 0' TERM; echo start; while :; do sleep 0.1; done"]


@pytest.fixture
def client(host: Host) -> Iterator[DockerClient]:
    client = DockerClient(base_url=f"unix://{host.socket}")
    yield client
    client.close()


def tar_of(name: str, content: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def test_run_returns_what_was_printed(client: DockerClient) -> None:
    assert client.containers.run("busybox", "echo hi", remove=True) == b"hi\n"
    both = ["sh", "-c", "echo out; echo err >&2"]
    assert client.containers.run("busybox", both, stderr=True, remove=True) == b"out\nerr\n"
    with pytest.raises(ContainerError) as failed:
        client.containers.run("busybox", ["sh", "-c", "echo bad >&2; exit 3"], remove=True)
    assert (failed.value.exit_status, failed.value.stderr) == (3, b"bad\n")
    assert client.containers.list(all=True) == []


def test_what_does_not_exist_is_told_by_class(client: DockerClient) -> None:
    with pytest.raises(ImageNotFound):
        client.containers.create("nosuch")
    with pytest.raises(NotFound):
        client.containers.get("nosuch")
    with pytest.raises(NotFound):
        client.networks.get("nosuch")
    with pytest.raises(NotFound):
        client.volumes.get("nosuch")


def test_list_shows_running_ones_unless_told_otherwise(client: DockerClient) -> None:
    client.containers.run("busybox", "true", name="ended")
    client.containers.run("busybox", LOOP, name="running", detach=True)
    client.containers.create("busybox", "true", name="new")

    def names(**arguments: Any) -> list[str]:
        return [one.name for one in client.containers.list(**arguments)]

    assert names() == ["running"]
    assert names(all=True) == ["new", "running", "ended"]
    assert names(limit=2) == ["new", "running"]
    assert names(all=True, filters={"status": ["exited", "created"]}) == ["new", "ended"]
    assert names(all=True, filters={"before": "running"}) == ["ended"]


def test_settings_arrive(client: DockerClient, host: Host) -> None:
    container = client.containers.run(
        "busybox", LOOP, detach=True, environment={"A": "b"}, hostname="me", working_dir="/tmp",
        ports={"80/tcp": None, "81/tcp": ("127.0.0.1", 8123), "82/udp": [8124, 8125]},
        tmpfs={"/x": "size=1m"}, volumes={"named": {"bind": "/v", "mode": "rw"}},
        mounts=[Mount("/m", "other")], mem_limit="64m", nano_cpus=500_000_000, pids_limit=50,
        cap_add=["NET_ADMIN"], dns=["192.0.2.1"], extra_hosts={"far": "192.0.2.7"},
        ulimits=[Ulimit(name="nofile", soft=100, hard=200)], devices=["/dev/null:/dev/none:rwm"],
        log_config=LogConfig(type="json-file", config={"max-size": "1m"}), init=True,
        restart_policy={"Name": "on-failure", "MaximumRetryCount": 2}, group_add=["5"],
        sysctls={"net.ipv4.ip_forward": "1"}, security_opt=["no-new-privileges"],
    )  # fmt: skip
    container.reload()
    assert container.ports["81/tcp"] == [{"HostIp": "127.0.0.1", "HostPort": "8123"}]
    assert {place["HostPort"] for place in container.ports["82/udp"]} == {"8124", "8125"}
    assert container.ports["80/tcp"][0]["HostPort"]
    script = (
        "echo $A $(hostname) $(pwd) $(ulimit -n) $(id -G) $(cat /proc/sys/net/ipv4/ip_forward);"
        "ls -d /v /m /x /dev/none | xargs; grep far /etc/hosts | xargs; ps -o args | head -2"
    )
    lines = container.exec_run(["sh", "-c", script]).output.decode().splitlines()
    assert lines[0] == "b me /tmp 100 0 5 1"
    assert lines[1:3] == ["/dev/none /m /v /x", "192.0.2.7 far"]
    assert "init" in lines[4]
    container.remove(force=True, v=True)
    for name in ("named", "other"):
        client.volumes.get(name).remove()


def test_logs_and_attach_are_streams(client: DockerClient) -> None:
    container = client.containers.run("busybox", LOOP, detach=True)
    stream = container.logs(stream=True, follow=True)
    assert next(stream) == b"start\n"
    stream.close()
    assert container.logs() == b"start\n"
    assert container.logs(stdout=False) == b""
    now = int(time.time())
    assert container.logs(since=now - 1000, until=now + 1000, timestamps=True, tail=1)[-7:-1] == (
        b" start"
    )
    assert container.attach(logs=True, stream=False) == b"start\n"
    socket = container.attach_socket(params={"stdout": 1, "stream": 1, "logs": 1})
    assert socket._sock.recv(100) == b"\x01\0\0\0\0\0\0\x06start\n"
    socket.close()


def test_exec_in_all_its_forms(client: DockerClient) -> None:
    container = client.containers.run("busybox", LOOP, detach=True)
    script = ["sh", "-c", "echo o; echo e >&2; exit 5"]
    assert container.exec_run(script, demux=True) == (5, (b"o\n", b"e\n"))
    parts = container.exec_run(["sh", "-c", "echo 1; sleep 0.5; echo 2"], stream=True).output
    assert list(parts) == [b"1\n", b"2\n"]
    assert container.exec_run("tty", tty=True).output.startswith(b"/dev/pts/")
    socket = container.exec_run("cat", socket=True, stdin=True).output._sock
    socket.sendall(b"hello\n")
    assert socket.recv(100) == b"\x01\0\0\0\0\0\0\x06hello\n"
    socket.close()


def test_an_exec_that_ends_is_not_in_the_output_of_another(
    client: DockerClient, host: Host
) -> None:
    # Its end was told, as output, to the connection on which the shim was about to answer.
    container = client.containers.run("busybox", "sleep 1000", detach=True)
    container.exec_run("sleep 1.5", detach=True)
    second = client.api.exec_create(container.id, "echo hi")
    container.reload()
    pid = container.attrs["State"]["Pid"]
    shim = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    children = Path(f"/proc/{shim}/task/{shim}/children")
    path = host.exec_root / "c" / container.id[:20] / "s"
    output: list[bytes] = []
    thread = threading.Thread(target=lambda: output.append(client.api.exec_start(second)))
    os.kill(shim, signal.SIGSTOP)
    try:
        eventually(
            lambda: any("Z (zombie)" in status(child) for child in children.read_text().split()),
            "the first exec has ended",
        )
        thread.start()
        eventually(lambda: waited_for(shim, path), "the second exec waits for the shim")
    finally:
        os.kill(shim, signal.SIGCONT)
    thread.join()
    assert output == [b"hi\n"]


def test_a_shim_that_does_not_answer_holds_up_no_look_at_its_container(
    client: DockerClient, host: Host
) -> None:
    container = client.containers.run("busybox", "sleep 1000", detach=True)
    container.reload()
    pid = container.attrs["State"]["Pid"]
    shim = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(shim, signal.SIGSTOP)
    try:
        command = [*host.docker_command, "inspect", "-f", "{{.State.Status}}", container.id]
        shown = subprocess.run(command, capture_output=True, timeout=60)
        assert shown.stdout == b"running\n"
    finally:
        os.kill(shim, signal.SIGCONT)


def status(pid: str) -> str:
    return Path(f"/proc/{pid}/status").read_text()


def waited_for(pid: int, path: Path) -> bool:
    """Whether somebody has connected to a socket and was not accepted: it has no inode yet."""
    sockets = [line.split() for line in Path(f"/proc/{pid}/net/unix").read_text().splitlines()]
    return any(words[-1] == str(path) and words[-2] == "0" for words in sockets)


def test_life_from_start_to_removal(client: DockerClient) -> None:
    container = client.containers.run("busybox", LOOP, detach=True, name="first")
    container.rename("second")
    container.update(mem_limit="100m", memswap_limit="200m")
    container.pause()
    container.reload()
    assert (container.name, container.status) == ("second", "paused")
    container.unpause()
    container.restart(timeout=1)
    with pytest.raises(APIError) as refused:
        container.remove()
    assert refused.value.status_code == 409
    assert container.top(ps_args="-o pid,args")["Titles"] == ["PID", "COMMAND"]
    stats = container.stats(stream=False)
    assert stats["memory_stats"]["usage"] > 0 and stats["networks"]["eth0"]["rx_bytes"] >= 0
    container.kill("SIGTERM")
    assert container.wait(timeout=60)["StatusCode"] == 0
    container.start()
    container.stop(timeout=1)
    container.remove()
    assert client.containers.list(all=True) == []


def test_files_go_in_and_out_and_become_an_image(client: DockerClient) -> None:
    container = client.containers.create("busybox", "true")
    assert container.put_archive("/etc", tar_of("mine", b"abc"))
    pieces, stat = container.get_archive("/etc/mine")
    assert stat["size"] == 3
    with tarfile.open(fileobj=io.BytesIO(b"".join(pieces))) as archive:
        assert archive.getnames() == ["mine"]
    assert {"Path": "/etc/mine", "Kind": 1} in container.diff()
    with tarfile.open(fileobj=io.BytesIO(b"".join(container.export()))) as archive:
        assert "etc/mine" in archive.getnames()
    image = container.commit(repository="made", tag="1", message="why", changes=["ENV X=1"])
    assert image.tags == ["made:1"]
    assert "X=1" in image.attrs["Config"]["Env"]
    assert image.history()[0]["Comment"] == "why"
    assert client.containers.run("made:1", "cat /etc/mine", remove=True) == b"abc"
    saved = b"".join(image.save(named=True))
    container.remove()
    client.images.remove("made:1")
    assert [one.tags for one in client.images.load(saved)] == [["made:1"]]
    client.images.get("made:1").tag("other", "2")
    client.images.remove("made:1")
    client.images.remove("other:2")


def test_networks_connect_containers_by_name(client: DockerClient) -> None:
    pool = IPAMPool(subnet="10.77.0.0/24", gateway="10.77.0.254", iprange="10.77.0.128/25")
    network = client.networks.create("net", ipam=IPAMConfig(pool_configs=[pool]))
    first = client.containers.run(
        "busybox", LOOP, detach=True, network=network.id, name="first",
        networking_config={
            network.id: client.api.create_endpoint_config(
                aliases=["alias"], ipv4_address="10.77.0.140"
            )
        },
    )  # fmt: skip
    second = client.containers.run("busybox", LOOP, detach=True)
    network.connect(second, aliases=["other"])
    for name in ("alias", "first"):
        assert b"10.77.0.140" in second.exec_run(["nslookup", name]).output
    assert b"10.77.0." in first.exec_run(["ping", "-c", "1", "-W", "5", "other"]).output
    network.reload()
    assert {one.name for one in network.containers} == {"first", second.name}
    network.disconnect(second)
    network.disconnect(first, force=True)
    network.remove()


def test_a_container_that_never_ran_changes_its_networks(client: DockerClient) -> None:
    one, two = (client.networks.create(name) for name in ("one", "two"))
    container = client.containers.create("busybox", "ip -4 -o addr", network=one.id)
    one.disconnect(container)
    two.connect(container, aliases=["a"])
    container.start()
    container.wait(timeout=60)
    container.reload()
    assert set(container.attrs["NetworkSettings"]["Networks"]) == {"two"}
    assert container.logs().count(b"eth") == 2  # the name is on the line twice
    container.remove()
    one.remove()
    two.remove()


def test_events_and_disk_usage(client: DockerClient) -> None:
    events = client.events(decode=True, filters={"event": "create", "type": "container"})
    container = client.containers.create("busybox", "true", name="seen", labels={"l": "1"})
    event = next(events)
    events.close()
    assert event["Actor"]["ID"] == container.id
    assert event["Actor"]["Attributes"] == {"image": "busybox", "name": "seen", "l": "1"}
    assert {"Containers", "Images", "Volumes", "LayersSize"} <= set(client.df())
    removed = client.containers.prune(filters={"label": "l"})
    assert removed["ContainersDeleted"] == [container.id]


def test_volumes(client: DockerClient) -> None:
    volume = client.volumes.create("data", driver="local", labels={"l": "1"})
    assert [one.name for one in client.volumes.list(filters={"label": "l"})] == ["data"]
    command = ["sh", "-c", "echo kept > /d/file"]
    place = {"data": {"bind": "/d", "mode": "rw"}}
    client.containers.run("busybox", command, volumes=place, remove=True)
    assert client.containers.run("busybox", "cat /d/file", volumes=place, remove=True) == b"kept\n"
    volume.remove()


def test_the_oldest_and_a_too_new_version_of_the_api(host: Host) -> None:
    old = docker.APIClient(base_url=f"unix://{host.socket}", version="1.24")
    assert old.containers() == []
    new = docker.APIClient(base_url=f"unix://{host.socket}", version="1.99")
    with pytest.raises(APIError, match="too new"):
        new.containers()
    auto = docker.APIClient(base_url=f"unix://{host.socket}", version="auto")
    assert json.loads(json.dumps(auto.info()))["Driver"] == "overlay2"
    for each in (old, new, auto):
        each.close()
