"""Sockets and locks of the daemon: who gets in, and that two daemons never share a place."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from drivetrain.errors import AlreadyExists, InvalidArgument, NotSupported
from drivetrain_engine.daemon.locks import Lock
from drivetrain_engine.daemon.settings import Settings
from drivetrain_engine.daemon.sockets import notify, open_listeners


def settings(*hosts: str, **values: object) -> Settings:
    keys = {name.replace("_", "-"): value for name, value in values.items()}
    return Settings({"hosts": hosts, **keys}, given=frozenset(keys))


def test_the_unix_socket_is_for_root_and_its_group(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "engine.sock"
    (listener,) = open_listeners(settings(f"unix://{path}"))
    found = path.stat()
    assert stat.S_IMODE(found.st_mode) == 0o660
    assert found.st_uid == 0
    listener.close()
    assert not path.exists()


def test_the_group_may_be_named_and_has_to_exist(tmp_path: Path) -> None:
    path = tmp_path / "engine.sock"
    (listener,) = open_listeners(settings(f"unix://{path}", group="daemon"))
    assert path.stat().st_gid == 1
    listener.close()
    with pytest.raises(InvalidArgument, match="no-such-group"):
        open_listeners(settings(f"unix://{path}", group="no-such-group"))


def test_a_socket_that_a_dead_daemon_left_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "engine.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    (listener,) = open_listeners(settings(f"unix://{path}"))
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    listener.close()


def test_a_socket_that_answers_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "engine.sock"
    (listener,) = open_listeners(settings(f"unix://{path}"))
    with pytest.raises(AlreadyExists, match=r"engine\.sock"):
        open_listeners(settings(f"unix://{path}"))
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    listener.close()


def test_nothing_stays_open_when_one_of_several_fails(tmp_path: Path) -> None:
    good = tmp_path / "good.sock"
    with pytest.raises(InvalidArgument, match="107 bytes"):
        open_listeners(settings(f"unix://{good}", f"unix:///{'x' * 120}"))
    assert not good.exists()


def test_tcp_listens_where_it_is_told(tmp_path: Path) -> None:
    (listener,) = open_listeners(settings("tcp://127.0.0.1:0", tls=False))
    assert listener.sock.getsockname()[0] == "127.0.0.1"
    assert not listener.tls
    listener.close()


def test_sockets_of_systemd_are_taken_over(tmp_path: Path) -> None:
    program = (
        "import os, sys; os.environ['LISTEN_PID'] = str(os.getpid())\n"
        "from drivetrain_engine.daemon.settings import Settings\n"
        "from drivetrain_engine.daemon.sockets import open_listeners\n"
        "(one,) = open_listeners(Settings({'hosts': ('fd://',)}))\n"
        "print(one.sock.getsockname(), one.path, 'LISTEN_FDS' in os.environ)\n"
    )
    path = tmp_path / "activated.sock"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        sock.listen()
        fd = sock.fileno()
        done = subprocess.run(
            ["bash", "-c", f'exec 3<&{fd}; exec "$0" -c "$1"', sys.executable, program],
            pass_fds=(fd,),
            env={**os.environ, "LISTEN_FDS": "1"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.stdout == f"{path}  False\n", done.stderr


def test_without_systemd_its_sockets_are_missed() -> None:
    with pytest.raises(NotSupported, match="systemd"):
        open_listeners(settings("fd://"))


def test_systemd_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(path))
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))
        notify("READY=1")
        assert sock.recv(100) == b"READY=1"


def test_a_second_process_does_not_get_the_lock_and_is_told_who_has_it(tmp_path: Path) -> None:
    lock = Lock(tmp_path / "engine.lock", "the data root here")
    program = (
        "import sys, pathlib\n"
        "from drivetrain_engine.daemon.locks import Lock\n"
        "try: Lock(pathlib.Path(sys.argv[1]), 'the data root here')\n"
        "except Exception as error: print(type(error).__name__, error)\n"
        "else: print('got it')\n"
    )

    def attempt() -> str:
        return subprocess.run(
            [sys.executable, "-c", program, str(tmp_path / "engine.lock")],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        ).stdout

    told = attempt()
    assert told.startswith("AlreadyExists the data root here is used by another daemon")
    assert f"(process {os.getpid()})" in told
    lock.release()
    assert attempt() == "got it\n"


def test_a_lock_does_not_pass_to_children_that_outlive_the_daemon(tmp_path: Path) -> None:
    lock = Lock(tmp_path / "engine.lock", "x")
    child = os.fork()
    if not child:
        time.sleep(60)
        os._exit(0)
    try:
        lock.release()
        again = Lock(tmp_path / "engine.lock", "x", remove=True)
        again.release()
        assert not (tmp_path / "engine.lock").exists()
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
