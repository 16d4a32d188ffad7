"""What daemon and shim say to each other: one JSON document a line, over a unix socket.

A connection starts with a request. ``attach`` and ``exec_attach`` are answered with one line and
then carry the stream itself; every other connection stays a conversation, in which the shim also
tells events.
"""

from __future__ import annotations

import msgspec


class LogSetup(msgspec.Struct, frozen=True):
    """One of a container's log drivers, and how it is used.

    Attributes:
        driver: its name.
        options: the driver's own options as given, already validated.
        mode: ``blocking``, or ``non-blocking``: records wait in memory, and the oldest go.
        max_buffer: bytes that wait at most in non-blocking mode.
        max_line: bytes of a line beyond which it is cut into pieces.
        spool_size: bytes that wait at most on disk for a receiver that is down.
        spool_full: what happens then: ``drop-oldest``, or ``block``: the container waits.
        strict: the container does not start unless the receiver answers.
        cache: the engine's own copy, for ``logs`` of containers whose drivers cannot read.
        context: the fields of :class:`drivetrain.log.LogContext`.
    """

    driver: str
    options: dict[str, str] = {}
    mode: str = "blocking"
    max_buffer: int = 1 << 20
    max_line: int = 16 << 10
    spool_size: int = 100 << 20
    spool_full: str = "drop-oldest"
    strict: bool = False
    cache: bool = False
    context: dict[str, object] = {}


class LogStatus(msgspec.Struct, omit_defaults=True):
    """How one of the drivers is doing.

    Attributes:
        driver: its name.
        dropped: lines that were given up, since the container was made.
        waiting: bytes of records that it did not get yet.
        error: why it takes none now; empty: it does.
        cache: it is the engine's own copy.
    """

    driver: str
    dropped: int = 0
    waiting: int = 0
    error: str = ""
    cache: bool = False


class ShimSpec(msgspec.Struct, frozen=True):
    """What a shim needs to know of its container.

    Attributes:
        container_id: 64 hexadecimal digits.
        bundle: the directory with ``config.json``.
        runtime: the path of runc, crun or the like.
        terminal: the container has a terminal instead of pipes.
        stdin: its standard input stays open for those who attach.
        stdin_once: it is closed when the first of them has gone.
        logs: where its output goes.
        directory: the container's own directory below the data root.
        runtime_root: where the runtime keeps its state.
        private_cgroups: the runtime needs the hybrid part of the cgroup mounts out of its sight.
        delivering: there is no container: bring away what its log spools still have.
    """

    container_id: str
    bundle: str
    runtime: str
    terminal: bool
    stdin: bool
    stdin_once: bool
    logs: list[LogSetup]
    directory: str
    runtime_root: str = ""
    private_cgroups: bool = False
    delivering: bool = False


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
    logs: list[LogStatus] = []


_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(Message)


def encode(message: Message) -> bytes:
    """Return a message as the line that is sent."""
    return _ENCODER.encode(message) + b"\n"


def decode(line: bytes) -> Message:
    """Read a line."""
    return _DECODER.decode(line)
