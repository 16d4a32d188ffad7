"""Following a container's or an exec's streams until it ends."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import NamedTuple

from drivetrain_engine.cli import streams, terminal
from drivetrain_engine.cli.client import Client, Response
from drivetrain_engine.cli.errors import ApiError, CliError


class Wanted(NamedTuple):
    """How to attach.

    Attributes:
        tty: the container has a terminal: one raw stream.
        stdin: send ours.
        stdout: show it.
        stderr: show it.
        detach_keys: as typed on the command line.
        forward: pass our signals on.
    """

    tty: bool
    stdin: bool
    stdout: bool = True
    stderr: bool = True
    detach_keys: str = ""
    forward: bool = True


def start_error(error: ApiError) -> CliError:
    """Return a failed start with docker's exit codes: 127 not found, 126 not executable, 125."""
    text = error.message.lower()
    if "executable file not found" in text or "no such file or directory" in text:
        return CliError(error.message, 127)
    if "permission denied" in text or "is a directory" in text:
        return CliError(error.message, 126)
    return CliError(error.message, 125)


def follow_container(
    client: Client,
    container: str,
    wanted: Wanted,
    *,
    condition: str,
    start: Callable[[], None] | None = None,
) -> int:
    """Attach, start when asked, show the streams and return the exit status.

    Args:
        client: of the daemon.
        container: its id.
        wanted: which streams.
        condition: of ``/wait``: ``removed``, ``next-exit`` or ``not-running``.
        start: starts the container once everything is attached.
    """
    query = {
        "stream": True,
        "stdin": wanted.stdin,
        "stdout": wanted.stdout,
        "stderr": wanted.stderr,
        "detachKeys": wanted.detach_keys,
    }
    sock, first = client.hijack(f"/containers/{container}/attach", query=query)
    wait = client.open(
        "POST", f"/containers/{container}/wait", query={"condition": condition}, fresh=True
    )
    if start is not None:
        start()

    def resize(height: int, width: int) -> None:
        Client(client.address).post(f"/containers/{container}/resize", h=height, w=width)

    def send(name: str) -> None:
        Client(client.address).post(f"/containers/{container}/kill", signal=name)

    escape = terminal.Escape(
        terminal.parse_detach_keys(wanted.detach_keys) if wanted.tty and wanted.stdin else b""
    )
    with _surroundings(wanted, resize, send):
        if wanted.stdin:
            streams.pump_stdin(sock, escape)
        try:
            streams.show(streams.received(sock, first, escape), wanted.tty)
        except streams.Detached:
            return 0
        return _status(wait)


def _status(wait: Response) -> int:
    result = wait.json() or {}
    error = (result.get("Error") or {}).get("Message")
    if error:
        raise CliError(str(error), 125)
    return int(result.get("StatusCode", 0))


@contextlib.contextmanager
def _surroundings(
    wanted: Wanted, resize: Callable[[int, int], None], send: Callable[[str], None] | None
) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        if wanted.tty:
            stack.enter_context(terminal.on_resize(resize))
            if wanted.stdin:
                stack.enter_context(terminal.raw_terminal(0))
        elif wanted.forward and send is not None:
            stack.enter_context(terminal.forwarded_signals(send))
        yield


def follow_exec(client: Client, exec_id: str, wanted: Wanted) -> int:
    """Start an exec, show its streams, return its exit status."""
    body: dict[str, object] = {"Detach": False, "Tty": wanted.tty}
    found = terminal.size() if wanted.tty else None
    if found:
        body["ConsoleSize"] = list(found)
    sock, first = client.hijack(f"/exec/{exec_id}/start", body=body)

    def resize(height: int, width: int) -> None:
        Client(client.address).post(f"/exec/{exec_id}/resize", h=height, w=width)

    escape = terminal.Escape(
        terminal.parse_detach_keys(wanted.detach_keys) if wanted.tty and wanted.stdin else b""
    )
    with _surroundings(wanted, resize, None):
        if wanted.stdin:
            streams.pump_stdin(sock, escape)
        try:
            streams.show(streams.received(sock, first, escape), wanted.tty)
        except streams.Detached:
            return 0
    return int(client.get(f"/exec/{exec_id}/json").get("ExitCode") or 0)


def is_terminal() -> bool:
    """Tell whether our stdin is a terminal."""
    return os.isatty(0)
