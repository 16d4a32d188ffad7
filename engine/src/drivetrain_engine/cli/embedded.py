"""Starting a daemon in the background when none answers, and telling what a running one has."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from drivetrain_engine.cli.address import DEFAULT_EXEC_ROOT
from drivetrain_engine.cli.client import Client
from drivetrain_engine.cli.daemonflags import as_arguments
from drivetrain_engine.cli.errors import CliError, UsageError

if TYPE_CHECKING:
    import subprocess

    from drivetrain_engine.cli.session import Session

IDLE_TIMEOUT = 60
START_TIMEOUT = 60.0
LOG_NAME = "engine.log"

#: How GET /info names what runs, where the setting alone would not tell (it may be empty: choose).
_INFO = {
    "data-root": "DockerRootDir",
    "exec-root": "ExecRoot",
    "storage-driver": "Driver",
    "log-driver": "LoggingDriver",
    "default-runtime": "DefaultRuntime",
}


def contradictions(asked: Mapping[str, object], info: Mapping[str, Any]) -> list[str]:
    """Return what a running daemon has differently from what was asked, in words.

    Args:
        asked: settings by ``daemon.json`` key.
        info: the answer of ``GET /info``; its ``Settings`` are the daemon's, by key.

    Raises:
        UsageError: a value that no daemon would take.
    """
    running = dict(info.get("Settings") or {})
    # Reading settings as the daemon does costs imports; the usual ones are plain strings.
    plain = asked.keys() <= _INFO.keys() or not running
    wanted = dict(asked) if plain else _parsed(asked)
    running.update({key: info[name] for key, name in _INFO.items() if info.get(name)})
    faults = []
    for key, value in wanted.items():
        there = running.get(key)
        if there is None:
            continue  # it does not tell
        if key.endswith("-root"):
            value, there = os.path.realpath(str(value)), os.path.realpath(str(there))
        if isinstance(value, dict) and isinstance(there, dict):
            # What is masked there cannot be told.
            value = {name: "***" if there.get(name) == "***" else it for name, it in value.items()}
        if _plain(value) != _plain(there):
            faults.append(f"--{_flag(key)} is {_show(there)} there, not {_show(value)}")
    return faults


def _parsed(asked: Mapping[str, object]) -> dict[str, object]:
    """Return ``asked`` as the daemon reads it, so that 64m and 67108864 are the same."""
    import msgspec

    from drivetrain.errors import EngineError
    from drivetrain_engine.daemon.settings import parse

    try:
        values = parse({**asked, "config-file": os.devnull}).as_dict()
    except EngineError as error:
        raise UsageError(error.message) from error
    return {key: msgspec.to_builtins(values[key]) for key in asked if key in values}


def _flag(key: str) -> str:
    from drivetrain_engine.cli.daemonflags import DAEMON_FLAGS

    names = [flag.names[-1] for flag in DAEMON_FLAGS if flag.setting == key]
    return names[0].removeprefix("--") if names else key


def _plain(value: object) -> object:
    return sorted(map(str, value)) if isinstance(value, (list, tuple)) else value


def _show(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return ",".join(f"{key}={_show(one)}" for key, one in value.items()) or "(none)"
    if isinstance(value, (list, tuple)):
        return ",".join(_show(item) for item in value) or "(none)"
    return str(value)


def start(session: Session, client: Client) -> None:
    """Start a daemon with the given global options, and wait until it answers.

    It is a session of its own, writes its log below the exec root, and leaves by itself when
    nothing runs and nobody has called for a minute.

    Raises:
        CliError: it did not come up; with what it said last.
    """
    if os.geteuid() != 0:
        raise CliError(
            f"no daemon answers at {session.address}, and starting one needs root:"
            " sudo engine, or give -H"
        )
    exec_root = session.setting("exec-root", DEFAULT_EXEC_ROOT)
    os.makedirs(exec_root, mode=0o711, exist_ok=True)
    with _only_one(os.path.join(exec_root, "start.lock")):
        if client.alive():
            return
        log = os.path.join(exec_root, LOG_NAME)
        given = dict(session.given)
        given.setdefault("idle-timeout", IDLE_TIMEOUT)
        if "idle-timeout" in session.config:
            del given["idle-timeout"]
        if "hosts" not in session.config:
            given["hosts"] = [str(session.address)]
        _wait(_spawn(given, log), client, log)


@contextlib.contextmanager
def _only_one(path: str) -> Iterator[None]:
    """Two command lines at once start one daemon."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _spawn(given: Mapping[str, object], log: str) -> subprocess.Popen[bytes]:
    import subprocess

    command = [sys.executable, "-m", "drivetrain_engine.cli", *as_arguments(given)]
    with open(log, "ab") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            cwd="/",
        )


def _wait(daemon: subprocess.Popen[bytes], client: Client, log: str) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        if client.alive():
            daemon.returncode = 0  # it is not ours to wait for
            return
        code = daemon.poll()
        if code is not None:
            raise CliError(
                f"the daemon did not start (exit status {code}); it said:\n{_tail(log)}", 125
            )
        time.sleep(0.02)
    daemon.terminate()
    raise CliError(f"the daemon did not answer within {START_TIMEOUT:.0f} s; see {log}", 125)


def _tail(path: str, lines: int = 6) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return "".join("  " + line for line in file.readlines()[-lines:]).rstrip()
