"""What daemon and shim say to each other: one JSON document a line, over a unix socket.

A connection starts with a request. ``attach`` and ``exec_attach`` are answered with one line and
then carry the stream itself; every other connection stays a conversation, in which the shim also
tells events.
"""

from __future__ import annotations

import msgspec


class LogSetup(msgspec.Struct, frozen=True):
    """Which log driver a container has, and how.

    Attributes:
        driver: its name.
        options: the driver's own options as given, already validated.
        mode: ``blocking``, or ``non-blocking``: the container never waits for the driver.
        max_buffer: bytes that wait at most; the oldest lines go beyond it.
        context: the fields of :class:`drivetrain.log.LogContext`.
    """

    driver: str
    options: dict[str, str] = {}
    mode: str = "blocking"
    max_buffer: int = 1 << 20
    context: dict[str, object] = {}


class ShimSpec(msgspec.Struct, frozen=True):
    """What a shim needs to know of its container.

    Attributes:
        container_id: 64 hexadecimal digits.
        bundle: the directory with ``config.json``.
        runtime: the path of runc, crun or the like.
        terminal: the container has a terminal instead of pipes.
        stdin: its standard input stays open for those who attach.
        stdin_once: it is closed when the first of them has gone.
        log: where its output goes.
        directory: the container's own directory below the data root.
        runtime_root: where the runtime keeps its state.
        private_cgroups: the runtime needs the hybrid part of the cgroup mounts out of its sight.
    """

    container_id: str
    bundle: str
    runtime: str
    terminal: bool
    stdin: bool
    stdin_once: bool
    log: LogSetup
    directory: str
    runtime_root: str = ""
    private_cgroups: bool = False


class ExecSpec(msgspec.Struct, frozen=True):
    """A further process in a running container; ``process`` is that of the OCI specification."""

    id: str
    process: dict[str, object]
    terminal: bool = False
    stdin: bool = False


class ExitStatus(msgspec.Struct, frozen=True):
    """How a container ended: its exit code, when (ns since 1970), and whether memory ran out."""

    code: int
    time_ns: int
    oom: bool = False


class Message(msgspec.Struct, omit_defaults=True):
    """A request, a reply or an event; which one says ``op``, ``reply`` or ``event``."""

    op: str = ""
    number: int = 0
    reply: int = 0
    event: str = ""
    error: str = ""
    exit_code: int = 0
    pid: int = 0
    exec_id: str = ""
    height: int = 0
    width: int = 0
    signal: int = 0
    streams: tuple[bool, bool, bool] = (False, False, False)
    terminal: bool = False
    exec_spec: ExecSpec | None = None
    status: ExitStatus | None = None
    dropped: int = 0


_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(Message)


def encode(message: Message) -> bytes:
    """Return a message as the line that is sent."""
    return _ENCODER.encode(message) + b"\n"


def decode(line: bytes) -> Message:
    """Read a line."""
    return _DECODER.decode(line)
