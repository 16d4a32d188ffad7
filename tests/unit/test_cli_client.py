"""The HTTP client: streams, hijacking, the terminal's keys, starting, daemon flags."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest

from drivetrain_engine.cli import daemonflags, embedded
from drivetrain_engine.cli.address import Address, choose_hosts, parse_address
from drivetrain_engine.cli.client import Client, encode_query
from drivetrain_engine.cli.commands.drivers import write_config
from drivetrain_engine.cli.errors import ApiError, NoDaemon, UsageError
from drivetrain_engine.cli.main import run
from drivetrain_engine.cli.streams import frames
from drivetrain_engine.cli.terminal import Escape, parse_detach_keys

Script = Callable[[socket.socket], None]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Client]]:
    """Start a server that runs one script for each connection, in order."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "s"))
    listener.listen()
    threads: list[threading.Thread] = []

    def start(*scripts: Script) -> Client:
        def work() -> None:
            for script in scripts:
                connection, _ = listener.accept()
                with connection:
                    connection.settimeout(30)
                    script(connection)

        threads.append(threading.Thread(target=work, daemon=True))
        threads[-1].start()
        return Client(Address("unix", path=str(tmp_path / "s")))

    yield start
    listener.close()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()


def head(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(1)
    return data


def test_chunks_are_put_together_however_they_are_cut(serve: Callable[..., Client]) -> None:
    def script(connection: socket.socket) -> None:
        head(connection)
        answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        answer += b"5;x=y\r\nhello\r\nA\r\n, world!!!\r\n0\r\nTrailer: x\r\n\r\n"
        for byte in answer:
            connection.sendall(bytes([byte]))

    assert serve(script).request("GET", "/x") == b"hello, world!!!"


def test_one_connection_serves_requests_one_after_the_other(serve: Callable[..., Client]) -> None:
    def script(connection: socket.socket) -> None:
        for number in range(3):
            head(connection)
            body = json.dumps(number).encode()
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n" + body)

    client = serve(script)
    assert [client.get("/x") for _ in range(3)] == [0, 1, 2]


def test_an_answer_without_length_ends_with_the_connection(serve: Callable[..., Client]) -> None:
    def script(connection: socket.socket) -> None:
        head(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\nall of it")

    assert serve(script).request("GET", "/x") == b"all of it"


def test_documents_come_as_they_are_written(serve: Callable[..., Client]) -> None:
    go_on = threading.Event()

    def script(connection: socket.socket) -> None:
        head(connection)
        connection.sendall(
            b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n{"a":1}\n\r\n'
        )
        go_on.wait(30)
        connection.sendall(b'e\r\n{"a":2}{"a":3}\r\n0\r\n\r\n')

    documents = serve(script).open("GET", "/events").documents()
    assert next(documents) == {"a": 1}
    go_on.set()
    assert list(documents) == [{"a": 2}, {"a": 3}]


def test_an_answer_cut_short_is_an_error(serve: Callable[..., Client]) -> None:
    def script(connection: socket.socket) -> None:
        head(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")

    with pytest.raises(NoDaemon, match="broke off"):
        serve(script).request("GET", "/x")


def test_errors_carry_the_daemons_message(serve: Callable[..., Client]) -> None:
    def script(connection: socket.socket) -> None:
        head(connection)
        body = b'{"message":"No such container: x"}'
        connection.sendall(b"HTTP/1.1 404 NF\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

    with pytest.raises(ApiError, match="No such container: x") as error:
        serve(script).get("/x")
    assert error.value.status == 404


def test_hijacked_bytes_behind_the_head_are_not_lost(serve: Callable[..., Client]) -> None:
    def script(connection: socket.socket) -> None:
        assert b"Upgrade: tcp" in head(connection)
        connection.sendall(b"HTTP/1.1 101 UPGRADED\r\nUpgrade: tcp\r\n\r\nearly")
        assert connection.recv(10) == b"typed"
        assert connection.recv(10) == b""
        connection.sendall(b"late")

    sock, first = serve(script).hijack("/containers/x/attach")
    sock.sendall(b"typed")
    sock.shutdown(socket.SHUT_WR)
    data = first
    while piece := sock.recv(100):
        data += piece
    sock.close()
    assert data == b"earlylate"


def test_queries() -> None:
    assert encode_query({"a": True, "b": None, "c": False, "t": 0, "n": ["x", "y z"]}) == (
        "?a=1&t=0&n=x&n=y%20z"
    )
    assert encode_query({"filters": {}}) == ""


def test_frames_are_found_however_they_are_cut() -> None:
    data = b"\x01\0\0\0\0\0\0\x05hello\x02\0\0\0\0\0\0\x00\x02\0\0\0\0\0\0\x02ab"
    cut = [data[index : index + 1] for index in range(len(data))]
    assert list(frames(cut)) == list(frames([data])) == [(1, b"hello"), (2, b""), (2, b"ab")]


def test_detach_keys() -> None:
    assert parse_detach_keys("") == b"\x10\x11"
    assert parse_detach_keys("a,ctrl-],ctrl-@") == b"a\x1d\x00"
    with pytest.raises(UsageError):
        parse_detach_keys("ctrl-1")


def test_the_detach_keys_are_found_over_reads_and_not_sent() -> None:
    escape = Escape(b"\x10\x11")
    assert escape.feed(b"abc\x10") == b"abc"
    assert escape.feed(b"\x11more") == b""
    assert escape.found


def test_a_half_typed_sequence_is_sent_after_all() -> None:
    escape = Escape(b"\x10\x11")
    assert escape.feed(b"\x10") == b""
    assert escape.feed(b"x\x10\x10\x12") == b"\x10x\x10\x10\x12"
    assert not escape.found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("unix:///x/y", "unix:///x/y"),
        ("/x/y", "unix:///x/y"),
        ("tcp://h:1", "tcp://h:1"),
        ("h:1", "tcp://h:1"),
        ("tcp://[::1]:5", "tcp://::1:5"),
        ("tcp://h", "tcp://h:2375"),
        ("https://h", "tcp://h:2376"),
    ],
)
def test_addresses(text: str, expected: str) -> None:
    assert str(parse_address(text)) == expected


def test_where_the_daemon_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///docker")
    monkeypatch.delenv("ENGINE_HOST", raising=False)
    assert choose_hosts({}, {}) == ["unix:///run/engine/engine.sock"]
    assert choose_hosts({"exec-root": "/x/"}, {}) == ["unix:///x/engine.sock"]
    assert choose_hosts({}, {"exec-root": "/y"}) == ["unix:///y/engine.sock"]
    assert choose_hosts({}, {"hosts": ["tcp://h:1"], "exec-root": "/y"}) == ["tcp://h:1"]
    monkeypatch.setenv("ENGINE_HOST", "unix:///engine")
    assert choose_hosts({}, {"hosts": ["tcp://h:1"]}) == ["unix:///engine"]
    assert choose_hosts({"hosts": ["unix:///flag"]}, {}) == ["unix:///flag"]


def parse_flags(*arguments: str) -> dict[str, object]:
    from drivetrain_engine.cli.main import engine

    context = engine.make_context("engine", [*arguments, "ps"])
    return daemonflags.given_settings(context, context.params)


def test_flags_become_settings_by_their_daemon_json_keys_and_back() -> None:
    arguments = (
        "-H=unix:///a", "--storage-driver=vfs", "--storage-opt=a=b", "--storage-opt=c=d",
        "--log-opt=max-size=1m", "--label=x=y", "--dns=1.1.1.1", "--live-restore=false", "-D",
        "--add-runtime=r=/bin/r", "--mtu=1400", "--idle-timeout=60",
    )  # fmt: skip
    given = parse_flags(*arguments)
    assert given == {
        "hosts": ["unix:///a"],
        "storage-driver": "vfs",
        "storage-opts": ["a=b", "c=d"],
        "log-opts": {"max-size": "1m"},
        "labels": ["x=y"],
        "dns": ["1.1.1.1"],
        "live-restore": False,
        "debug": True,
        "runtimes": {"r": {"path": "/bin/r"}},
        "mtu": 1400,
        "idle-timeout": "60",
    }
    assert parse_flags(*daemonflags.as_arguments(given)) == given


def test_every_flag_has_a_setting_of_its_own() -> None:
    settings = [flag.setting for flag in daemonflags.DAEMON_FLAGS]
    assert len(settings) == len(set(settings))


def test_contradictions_compare_what_the_words_mean() -> None:
    info = {
        "Driver": "overlay2",
        "DockerRootDir": "/srv/e",
        "Settings": {
            "storage-driver": "",
            "dns": ["1.1.1.1"],
            "default-shm-size": 64 << 20,
            "idle-timeout": 60.0,
            "live-restore": True,
            "labels": ["a=1", "b=1"],
        },
    }
    same = {
        "storage-driver": "overlay2",
        "data-root": "/srv//e/",
        "dns": ["1.1.1.1"],
        "default-shm-size": "64m",
        "idle-timeout": "1m",
        "live-restore": True,
        "labels": ["b=1", "a=1"],
    }
    assert embedded.contradictions(same, info) == []
    assert embedded.contradictions({"dns": ["8.8.8.8"], "live-restore": False}, info) == [
        "--dns is 1.1.1.1 there, not 8.8.8.8",
        "--live-restore is true there, not false",
    ]
    with pytest.raises(UsageError, match="dns"):
        embedded.contradictions({"dns": ["nonsense"]}, info)


def test_driver_use_keeps_what_else_is_in_the_file(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "daemon.json"
    file.write_text('{"log-driver": "json-file", "labels": ["é=1"]}')
    file.chmod(0o640)
    here = ["--config-file", str(file), "--exec-root", str(tmp_path)]
    assert run([*here, "driver", "use", "storage", "vfs"]) == 0
    assert json.loads(file.read_text()) == {
        "log-driver": "json-file",
        "labels": ["é=1"],
        "storage-driver": "vfs",
    }
    assert file.stat().st_mode & 0o777 == 0o640
    assert [path.name for path in tmp_path.iterdir()] == ["daemon.json"]
    assert "storage-driver is now vfs" in capfd.readouterr().out
    assert run([*here, "driver", "use", "storage", "nosuch"]) == 1
    assert "pip install drivetrain-storage-nosuch" in capfd.readouterr().err
    assert run([*here, "driver", "use", "network", "host"]) == 125
    assert "network create --driver" in capfd.readouterr().err


def test_a_broken_configuration_file_is_not_overwritten(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "daemon.json"
    file.write_text("{ not json")
    arguments = ["--config-file", str(file), "-H", f"unix://{tmp_path}/s"]
    assert run([*arguments, "driver", "use", "storage", "vfs"]) == 1
    assert "no valid JSON" in capfd.readouterr().err
    assert file.read_text() == "{ not json"


def test_a_configuration_behind_a_link_is_replaced_behind_it(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    link = tmp_path / "daemon.json"
    link.symlink_to("real/file")
    write_config(str(link), {"a": 1})
    assert link.is_symlink()
    assert json.loads((tmp_path / "real/file").read_text()) == {"a": 1}


def test_drivers_are_listed_without_a_daemon(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["--exec-root", str(tmp_path), "driver", "ls", "-q"]) == 0
    assert {
        "storage/overlay2",
        "storage/vfs",
        "network/bridge",
        "log/json-file",
        "volume/local",
    } <= (set(capfd.readouterr().out.split()))


def test_a_client_command_imports_no_daemon_and_no_http_library() -> None:
    code = (
        "import sys; from drivetrain_engine.cli import main; main.load('ps'); main.load('run');"
        "print(*sorted(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    heavy = {"asyncio", "httptools", "http.client", "msgspec", "pyroute2", "pluggy", "ssl"}
    assert loaded & heavy == set()
    ours = {name for name in loaded if name.startswith("drivetrain")}
    assert all(name.startswith("drivetrain_engine.cli") for name in ours - {"drivetrain_engine"})


def test_the_help_lists_every_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "drivetrain_engine.cli", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    for name in ("run", "ps", "network", "driver", "logs", "system"):
        assert f"\n  {name} " in done.stdout
    assert click.unstyle(done.stdout) == done.stdout
