"""What the commands send to the API, and what they print of its answers."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.capture import Capture

from drivetrain_engine.cli.main import run

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def capture(tmp_path: Path) -> Iterator[Capture]:
    with Capture(tmp_path / "api.sock") as server:
        yield server


@pytest.fixture
def engine(
    capture: Capture, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Run:
    """Run a command line against the capturing server: exit status, stdout, stderr."""
    monkeypatch.delenv("ENGINE_HOST", raising=False)

    def call(*arguments: str) -> tuple[int, str, str]:
        code = run(["-H", capture.address, *arguments])
        out, err = capfd.readouterr()
        return code, out, err

    return call


def test_create_prints_the_id_and_warnings(engine: Run, capture: Capture) -> None:
    capture.answers["POST /containers/create"] = (201, {"Id": "a" * 64, "Warnings": ["careful"]})
    assert engine("create", "--name", "web", "busybox") == (
        0,
        "a" * 64 + "\n",
        "WARNING: careful\n",
    )
    assert capture.last("/create").query == {"name": "web"}


def test_run_detached_creates_then_starts(engine: Run, capture: Capture) -> None:
    assert engine("run", "-d", "busybox", "sleep", "9") == (0, "abc123\n", "")
    assert [one.path for one in capture.requests] == [
        "/containers/create",
        "/containers/abc123/start",
    ]


def test_a_missing_image_is_125_and_says_how_to_get_it(engine: Run, capture: Capture) -> None:
    capture.answers["POST /containers/create"] = (404, {"message": "No such image: web:latest"})
    capture.answers["POST /images/create"] = (404, {"message": "manifest for web:latest not found"})
    code, _, err = engine("run", "web")
    assert code == 125
    assert capture.last("/images/create").query == {"fromImage": "web", "tag": "latest"}
    assert "manifest for web:latest not found" in err
    assert "Unable to find image 'web:latest' locally" in err
    assert "engine load" in err
    assert "engine import" in err


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ('exec: "x": executable file not found in $PATH', 127),
        ("exec /x: no such file or directory", 127),
        ("exec /etc/passwd: permission denied", 126),
        ("driver failed programming external connectivity", 125),
    ],
)
def test_failed_starts_have_dockers_exit_codes(
    engine: Run, capture: Capture, message: str, expected: int
) -> None:
    capture.answers["POST /containers/abc123/start"] = (400, {"message": message})
    code, _, err = engine("run", "-d", "busybox", "x")
    assert code == expected
    assert err == f"engine: {message}\n"


def test_the_cidfile_is_written_once(engine: Run, tmp_path: Path) -> None:
    file = tmp_path / "cid"
    assert engine("create", "--cidfile", str(file), "b")[0] == 0
    assert file.read_text() == "abc123"
    code, _, err = engine("create", "--cidfile", str(file), "b")
    assert code == 125
    assert str(file) in err


def test_ps_shows_dockers_table(engine: Run, capture: Capture) -> None:
    capture.answers["GET /containers/json"] = (200, [PS_ENTRY])
    code, out, _ = engine("ps", "-a", "--filter", "status=running", "--filter", "name=w")
    assert code == 0
    head, line = out.splitlines()
    assert head.split("  ")[0] == "CONTAINER ID"
    assert line.startswith('0123456789ab   busybox   "sleep 1000000000000…"   ')
    assert line.endswith("Up 2 hours   0.0.0.0:8080->80/tcp   web")
    request = capture.last("/containers/json")
    assert request.query["all"] == "1"
    assert json.loads(request.query["filters"]) == {"status": ["running"], "name": ["w"]}


def test_ps_formats(engine: Run, capture: Capture) -> None:
    capture.answers["GET /containers/json"] = (200, [PS_ENTRY])
    assert engine("ps", "-q", "--no-trunc")[1] == PS_ENTRY["Id"] + "\n"
    assert engine("ps", "--format", "{{.Names}}:{{.State}}:{{.Labels}}")[1] == "web:running:a=b\n"
    assert json.loads(engine("ps", "--format", "json")[1])["Networks"] == "bridge"
    code, _, err = engine("ps", "--format", "{{.Nmes}}")
    assert code == 125
    assert "no field .Nmes" in err


def test_images_shows_a_line_for_each_tag(engine: Run, capture: Capture) -> None:
    capture.answers["GET /images/json"] = (
        200,
        [
            {
                "Id": "sha256:" + "1" * 64,
                "RepoTags": ["a:1", "localhost:5000/a:2"],
                "Size": 1980000,
            },
            {"Id": "sha256:" + "2" * 64, "RepoTags": [], "Size": 5},
        ],
    )
    out = engine("images", "--format", "{{.Repository}} {{.Tag}} {{.ID}} {{.Size}}")[1]
    assert out.splitlines() == [
        "a 1 111111111111 1.98MB",
        "localhost:5000/a 2 111111111111 1.98MB",
        "<none> <none> 222222222222 5B",
    ]
    assert engine("images", "-q")[1].split() == ["1" * 12, "2" * 12]


def test_inspect_looks_at_every_kind_and_reports_what_is_missing(
    engine: Run, capture: Capture
) -> None:
    for path in ("/containers/x/json", "/images/x/json", "/networks/x", "/volumes/x"):
        capture.answers[f"GET {path}"] = (404, {"message": "no"})
    capture.answers["GET /volumes/x"] = (200, {"Name": "x"})
    assert json.loads(engine("inspect", "x")[1]) == [{"Name": "x"}]
    assert engine("inspect", "-f", "{{.Name}}", "x")[1] == "x\n"
    assert engine("inspect", "--type", "image", "x") == (1, "[]\n", "engine: No such image: x\n")


def test_several_names_go_on_after_an_error(engine: Run, capture: Capture) -> None:
    capture.answers["POST /containers/b/stop"] = (404, {"message": "No such container: b"})
    code, out, err = engine("stop", "-t", "3", "a", "b", "c")
    assert (code, out) == (1, "a\nc\n")
    assert err == "engine: error from the daemon: No such container: b\n"
    assert capture.last("/a/stop").query == {"t": "3"}


@pytest.mark.parametrize(
    ("arguments", "method", "path", "query"),
    [
        (["kill", "-s", "TERM", "c"], "POST", "/containers/c/kill", {"signal": "TERM"}),
        (["rm", "-fv", "c"], "DELETE", "/containers/c", {"force": "1", "v": "1"}),
        (["rename", "a", "b"], "POST", "/containers/a/rename", {"name": "b"}),
        (["restart", "-t", "0", "c"], "POST", "/containers/c/restart", {"t": "0"}),
        (["tag", "a", "h:5/b:c"], "POST", "/images/a/tag", {"repo": "h:5/b", "tag": "c"}),
        (["tag", "a", "b"], "POST", "/images/a/tag", {"repo": "b", "tag": "latest"}),
        (["rmi", "-f", "a"], "DELETE", "/images/a", {"force": "1"}),
        (["network", "rm", "n"], "DELETE", "/networks/n", {}),
        (["volume", "rm", "-f", "v"], "DELETE", "/volumes/v", {"force": "1"}),
        (["container", "pause", "c"], "POST", "/containers/c/pause", {}),
    ],
)
def test_simple_requests(
    engine: Run,
    capture: Capture,
    arguments: list[str],
    method: str,
    path: str,
    query: dict[str, str],
) -> None:
    assert engine(*arguments)[0] == 0
    request = capture.requests[-1]
    assert (request.method, request.path, request.query) == (method, path, query)


def test_commit_repeats_changes(engine: Run, capture: Capture) -> None:
    engine(
        "commit", "-a", "me", "-m", "why", "-c", "CMD a", "-c", "ENV b=c", "-p=false", "c", "r:t"
    )
    request = capture.last("/commit")
    assert request.queries["changes"] == ["CMD a", "ENV b=c"]
    assert request.query["pause"] == "0"
    assert (request.query["repo"], request.query["tag"]) == ("r", "t")


def test_network_create_gives_each_subnet_its_own(engine: Run, capture: Capture) -> None:
    engine(
        "network", "create", "--subnet", "10.0.0.0/24", "--subnet", "fd00::/64", "--gateway",
        "fd00::1", "--gateway", "10.0.0.1", "--ip-range", "10.0.0.128/25", "--aux-address",
        "h=10.0.0.5", "-o", "a=b", "--label", "x=y", "--internal", "--ipv6", "nn",
    )  # fmt: skip
    body = capture.last("/networks/create").body
    assert body["IPAM"]["Config"] == [
        {
            "Subnet": "10.0.0.0/24",
            "IPRange": "10.0.0.128/25",
            "Gateway": "10.0.0.1",
            "AuxiliaryAddresses": {"h": "10.0.0.5"},
        },
        {"Subnet": "fd00::/64", "Gateway": "fd00::1"},
    ]
    assert (body["Internal"], body["EnableIPv6"], body["Options"]) == (True, True, {"a": "b"})
    code, _, err = engine("network", "create", "--gateway", "10.0.0.1", "nn")
    assert code == 125
    assert "--subnet" in err


def test_network_connect(engine: Run, capture: Capture) -> None:
    engine("network", "connect", "--ip", "1.2.3.4", "--alias", "al", "--link", "x:y", "nn", "c")
    assert capture.last("/connect").body == {
        "Container": "c",
        "EndpointConfig": {
            "IPAMConfig": {"IPv4Address": "1.2.3.4"},
            "Aliases": ["al"],
            "Links": ["x:y"],
        },
    }


def test_volume_create(engine: Run, capture: Capture) -> None:
    assert engine("volume", "create", "-o", "type=tmpfs", "-o", "o=size=1m", "vv")[1] == "made\n"
    assert capture.last("/volumes/create").body == {
        "Name": "vv",
        "Driver": "local",
        "DriverOpts": {"type": "tmpfs", "o": "size=1m"},
    }


def test_update_sends_only_what_was_given(engine: Run, capture: Capture) -> None:
    assert engine("update", "-m", "10m", "--restart", "always", "c")[0] == 0
    assert capture.last("/update").body == {
        "Memory": 10 << 20,
        "RestartPolicy": {"Name": "always", "MaximumRetryCount": 0},
    }
    assert engine("update", "c")[0] == 125


def test_import_streams_the_archive_and_prints_the_id(
    engine: Run, capture: Capture, tmp_path: Path
) -> None:
    archive = tmp_path / "root.tar"
    archive.write_bytes(b"x" * 700_000)
    capture.answers["POST /images/create"] = (200, b'{"status":"sha256:11"}\r\n')
    assert engine("import", "-c", "CMD sh", str(archive), "bb:1") == (0, "sha256:11\n", "")
    request = capture.last("/images/create")
    assert request.raw == b"x" * 700_000
    assert request.query == {"fromSrc": "-", "repo": "bb", "tag": "1", "changes": "CMD sh"}


def test_an_error_in_a_progress_stream_is_an_error(
    engine: Run, capture: Capture, tmp_path: Path
) -> None:
    archive = tmp_path / "i.tar"
    archive.write_bytes(b"")
    body = b'{"stream":"Loaded image: a\\n"}\n{"error":"broken archive"}\n'
    capture.answers["POST /images/load"] = (200, body)
    assert engine("load", "-i", str(archive)) == (
        1,
        "Loaded image: a\n",
        "engine: broken archive\n",
    )


def test_save_leaves_no_half_file(engine: Run, capture: Capture, tmp_path: Path) -> None:
    target = tmp_path / "out.tar"
    capture.answers["GET /images/get"] = (404, {"message": "No such image: b"})
    assert engine("save", "-o", str(target), "a", "b")[0] == 1
    assert list(tmp_path.glob("out*")) == []
    capture.answers["GET /images/get"] = (200, b"tar")
    assert engine("save", "-o", str(target), "a", "b")[0] == 0
    assert target.read_bytes() == b"tar"
    assert capture.last("/get").queries == {"names": ["a", "b"]}


def test_logs_take_the_frames_apart(engine: Run, capture: Capture) -> None:
    frames = b"\x01\0\0\0\0\0\0\x04out\n\x02\0\0\0\0\0\0\x04err\n"
    capture.answers["GET /containers/abc123/logs"] = (200, frames)
    code, out, err = engine("logs", "--tail", "3", "-t", "c")
    assert (code, out, err) == (0, "out\n", "err\n")
    assert capture.last("/logs").query == {
        "stdout": "1",
        "stderr": "1",
        "tail": "3",
        "timestamps": "1",
    }


def test_diff_and_top_and_port(engine: Run, capture: Capture) -> None:
    capture.answers["GET /containers/c/changes"] = (
        200,
        [{"Path": "/a", "Kind": 0}, {"Path": "/b", "Kind": 1}, {"Path": "/c", "Kind": 2}],
    )
    assert engine("diff", "c")[1] == "C /a\nA /b\nD /c\n"
    capture.answers["GET /containers/c/top"] = (
        200,
        {"Titles": ["PID", "CMD"], "Processes": [["1", "sleep 9"]]},
    )
    assert engine("top", "c", "-o", "pid")[1] == "PID       CMD\n1         sleep 9\n"
    assert capture.last("/top").query == {"ps_args": "-o pid"}
    ports = {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8"}], "9/udp": None}
    capture.answers["GET /containers/c/json"] = (200, {"NetworkSettings": {"Ports": ports}})
    assert engine("port", "c")[1] == "80/tcp -> 0.0.0.0:8\n"
    assert engine("port", "c", "80")[1] == "0.0.0.0:8\n"
    assert engine("port", "c", "9/udp")[0] == 1


def test_cp_into_a_container_packs_what_the_path_is(
    engine: Run, capture: Capture, tmp_path: Path
) -> None:
    source = tmp_path / "file"
    source.write_text("hello")
    capture.answers["HEAD /containers/c/archive"] = (404, {"message": "no"})
    capture.answers["PUT /containers/c/archive"] = (200, {})
    assert engine("cp", str(source), "c:/etc/name")[0] == 0
    request = capture.last("/archive")
    assert request.query["path"] == "/etc"
    with tarfile.open(fileobj=io.BytesIO(request.raw)) as archive:
        assert archive.getnames() == ["name"]
        assert archive.extractfile("name").read() == b"hello"  # type: ignore[union-attr]


def test_cp_needs_exactly_one_container(engine: Run) -> None:
    assert engine("cp", "/a", "/b")[0] == 125
    assert engine("cp", "a:/a", "b:/b")[0] == 125


def test_events_are_lines(engine: Run, capture: Capture) -> None:
    event = {
        "Type": "container",
        "Action": "start",
        "Actor": {"ID": "abc", "Attributes": {"name": "web", "image": "b"}},
        "timeNano": 1577934245123456789,
    }
    capture.answers["GET /events"] = (200, json.dumps(event).encode() + b"\n")
    line = engine("events", "--since", "1", "--until", "2")[1]
    assert ".123456789" in line
    assert line.endswith(" container start abc (image=b, name=web)\n")
    assert engine("events", "--format", "{{.Action}}")[1] == "start\n"


def test_prune_asks_first(engine: Run, monkeypatch: pytest.MonkeyPatch, capture: Capture) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    code, _, err = engine("container", "prune")
    assert code == 1
    assert "Are you sure" in err
    assert capture.requests == []
    answer = {"ContainersDeleted": ["a"], "SpaceReclaimed": 1500}
    capture.answers["POST /containers/prune"] = (200, answer)
    out = engine("container", "prune", "-f")[1]
    assert out == "Deleted Containers:\na\n\nTotal reclaimed space: 1.5kB\n"


def test_unknown_commands_name_the_closest(engine: Run) -> None:
    code, _, err = engine("imags")
    assert code == 1
    assert "did you mean images?" in err


def test_errors_are_one_line_without_a_traceback(engine: Run, capture: Capture) -> None:
    capture.answers["GET /info"] = (500, {"message": "the disk is on fire"})
    assert engine("info") == (1, "", "engine: error from the daemon: the disk is on fire\n")
    with pytest.raises(Exception, match="on fire"):
        engine("--debug", "info")


def test_a_nonsense_address_is_told() -> None:
    assert run(["-H", "ftp://x", "ps"]) == 125


def test_nobody_at_a_tcp_address(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["-H", "tcp://127.0.0.1:1", "ps"]) == 1
    assert "no daemon answers at tcp://127.0.0.1:1" in capfd.readouterr().err


def test_global_options_that_contradict_the_daemon(engine: Run, capture: Capture) -> None:
    info: dict[str, Any] = {"Driver": "overlay2", "DockerRootDir": "/srv/e", "LoggingDriver": "x"}
    capture.answers["GET /info"] = (200, info)
    capture.answers["GET /containers/json"] = (200, [])
    assert engine("--storage-driver", "overlay2", "--data-root", "/srv/e", "ps")[0] == 0
    code, _, err = engine("--storage-driver", "vfs", "--data-root", "/other", "ps")
    assert code == 125
    assert "--storage-driver is overlay2 there, not vfs" in err
    assert "--data-root is /srv/e there, not /other" in err


def test_a_storage_driver_before_run_is_the_containers_own(engine: Run, capture: Capture) -> None:
    capture.answers["GET /info"] = (200, {"Driver": "overlay2"})
    assert engine("--storage-driver", "vfs", "create", "b")[0] == 0
    assert capture.last("/create").body["HostConfig"]["StorageDriver"] == "vfs"


def test_driver_ls_inspect_and_probe(engine: Run, capture: Capture) -> None:
    entry = {
        "family": "storage",
        "name": "overlay2",
        "distribution": "drivetrain-storage-overlay2",
        "version": "0.1.0",
        "state": "ok",
        "supported": True,
        "reason": "",
        "default": True,
        "in_use": 2,
    }
    capture.answers["GET /engine/drivers"] = (200, [entry])
    lines = engine("driver", "ls")[1].splitlines()
    assert lines[0].split() == ["FAMILY", "DRIVER", "DEFAULT", "STATE", "IN", "USE", "PACKAGE"]
    assert lines[1].split() == [
        "storage", "overlay2", "*", "ok", "2", "drivetrain-storage-overlay2", "0.1.0",
    ]  # fmt: skip
    option = {"name": "size", "type": "size", "default": None, "help": "limit", "choices": []}
    capture.answers["GET /engine/drivers/storage/overlay2"] = (200, {**entry, "options": [option]})
    out = engine("driver", "inspect", "storage", "overlay2")[1]
    assert "  size size\n      limit\n" in out
    answer = {**entry, "supported": False, "reason": "no overlayfs"}
    capture.answers["POST /engine/drivers/storage/overlay2/probe"] = (200, answer)
    code, out, _ = engine("driver", "probe", "storage", "overlay2")
    assert (code, out) == (1, "storage/overlay2: not supported: no overlayfs\n")


PS_ENTRY: dict[str, Any] = {
    "Id": "0123456789abcdef" * 4,
    "Names": ["/web", "/other/alias"],
    "Image": "busybox",
    "Command": "sleep 1000000000000000000",
    "Created": 1577934245,
    "State": "running",
    "Status": "Up 2 hours",
    "Ports": [{"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"}],
    "Labels": {"a": "b"},
    "NetworkSettings": {"Networks": {"bridge": {}}},
    "Mounts": [],
}
