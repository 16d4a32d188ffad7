"""Containers: attach, logs, stats and export."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Iterator
from typing import Any

import msgspec

from drivetrain.errors import InvalidArgument, NotSupported
from drivetrain_engine.api.backend import Backend
from drivetrain_engine.api.messages import Hijack, LiveStream, Request, Response, Stream
from drivetrain_engine.api.router import Routes

routes = Routes()

RAW = "application/vnd.docker.raw-stream"
MULTIPLEXED = "application/vnd.docker.multiplexed-stream"
_STREAMS = {"stdin": 0, "stdout": 1, "stderr": 2}
_TIMESTAMP = re.compile(r"^(-?\d+)(?:\.(\d{1,9}))?\d*$")
DEFAULT_DETACH_KEYS = "ctrl-p,ctrl-q"


def content_type(request: Request, *, tty: bool) -> str:
    """Return what a stream of output is announced as; clients before 1.42 know only raw."""
    return RAW if tty or request.version < (1, 42) else MULTIPLEXED


def frame(stream: str, data: bytes) -> bytes:
    """Return output with Docker's header: the stream's number and the length, big-endian."""
    return bytes((_STREAMS[stream], 0, 0, 0)) + len(data).to_bytes(4, "big") + data


def framed(source: Iterator[tuple[str, bytes]], *, tty: bool) -> Iterator[bytes]:
    """Return a log's pieces as they go over the wire."""
    try:
        for stream, data in source:
            if data:
                yield data if tty else frame(stream, data)
    finally:
        close = getattr(source, "close", None)
        if close is not None:
            close()


def parse_time(text: str) -> int:
    """Return the nanoseconds since 1970 of ``1700000000.123456789`` or RFC 3339; 0 for none.

    Raises:
        InvalidArgument: it is no time.
    """
    if not text:
        return 0
    match = _TIMESTAMP.match(text)
    if match is not None:
        return int(match[1]) * 10**9 + int((match[2] or "0").ljust(9, "0"))
    from datetime import UTC, datetime

    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidArgument(f'invalid value for time: "{text}"') from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    delta = moment - datetime(1970, 1, 1, tzinfo=UTC)
    fraction = re.search(r"\.(\d{1,9})", text)
    nanoseconds = int(fraction[1].ljust(9, "0")) if fraction else 0
    return (delta.days * 86400 + delta.seconds) * 10**9 + nanoseconds


def parse_detach_keys(text: str) -> bytes:
    """Return the bytes of ``ctrl-p,ctrl-q``, ``a`` and the like.

    Raises:
        InvalidArgument: a key that does not exist.
    """
    keys = bytearray()
    for key in text.split(","):
        control = key.lower().removeprefix("ctrl-")
        if len(key) == 1 and key.isascii():
            keys += key.encode()
        elif (
            control != key.lower() and len(control) == 1 and control in "abcdefghijklmnopqrstuvwxyz"
        ):
            keys.append(ord(control) - ord("a") + 1)
        elif control != key.lower() and control in ("@", "[", "\\", "]", "^", "_"):
            keys.append(ord(control) - 64)
        else:
            raise InvalidArgument(f"invalid detach keys ({text}): unknown key {key!r}")
    return bytes(keys)


def detach_keys(request: Request, *, tty: bool) -> bytes:
    """Return the detach keys of an attachment; only terminals have some."""
    given = request.text("detachKeys")
    keys = parse_detach_keys(given or DEFAULT_DETACH_KEYS)
    return keys if tty else b""


@routes.post("/containers/{id}/attach", mode="thread")
def attach(backend: Backend, request: Request) -> Hijack:
    """``POST /containers/{id}/attach``: the connection turns raw."""
    reference = request.parameters["id"]
    wanted = {name: request.flag(name) for name in ("stdin", "stdout", "stderr", "stream", "logs")}
    detach_keys(request, tty=True)
    attachment = backend.containers.attach(reference, **wanted)
    backlog = attachment.backlog
    keys = detach_keys(request, tty=attachment.tty)

    def detached() -> None:
        container = backend.containers.inspect(reference)
        attributes = {
            "name": str(container["Name"]).lstrip("/"),
            "image": str(container["Config"]["Image"]),
        }
        backend.events.emit("container", "detach", str(container["Id"]), attributes)

    return Hijack(
        attachment.socket,
        framed(iter(backlog), tty=attachment.tty) if backlog is not None else None,
        content_type(request, tty=attachment.tty),
        wants_input=wanted["stdin"] and wanted["stream"],
        detach_keys=keys,
        on_detach=detached,
    )


@routes.get("/containers/{id}/attach/ws", mode="loop")
def attach_websocket(backend: Backend, request: Request) -> Response:
    """``GET /containers/{id}/attach/ws``."""
    raise NotSupported("attaching over websockets is not supported: use POST …/attach")


@routes.get("/containers/{id}/logs", mode="thread")
def logs(backend: Backend, request: Request) -> Stream:
    """``GET /containers/{id}/logs``."""
    stdout, stderr = request.flag("stdout"), request.flag("stderr")
    if not (stdout or stderr):
        raise InvalidArgument("Bad parameters: you must choose at least one stream")
    tail = request.text("tail", "all")
    if tail not in ("all", "") and not re.fullmatch(r"-?\d+", tail):
        tail = "all"
    tty, source = backend.containers.logs(
        request.parameters["id"],
        stdout=stdout,
        stderr=stderr,
        since=parse_time(request.text("since")),
        until=parse_time(request.text("until")),
        timestamps=request.flag("timestamps"),
        tail=-1 if tail in ("all", "") else int(tail),
        follow=request.flag("follow"),
        details=request.flag("details"),
    )
    return Stream(
        framed(source, tty=tty),
        content_type(request, tty=tty),
        head_first=request.flag("follow"),
    )


@routes.get("/containers/{id}/stats")
async def stats(backend: Backend, request: Request) -> LiveStream:
    """``GET /containers/{id}/stats``: once a second, or once."""
    reference = request.parameters["id"]
    stream = request.flag("stream", True)
    one_shot = not stream and request.flag("one-shot")

    async def read() -> dict[str, Any]:
        return await request.run(lambda: backend.containers.stats(reference))

    first = await read()

    async def samples() -> AsyncGenerator[bytes, None]:
        previous, sample = {}, first
        if not one_shot and not stream:
            await asyncio.sleep(1)
            previous, sample = first, await read()
        while True:
            yield msgspec.json.encode(with_previous(sample, previous)) + b"\n"
            if not stream:
                return
            await asyncio.sleep(1)
            previous, sample = sample, await read()

    return LiveStream(samples())


def with_previous(sample: dict[str, Any], previous: dict[str, Any]) -> dict[str, Any]:
    """Return a sample with the ``preread`` and ``precpu_stats`` that clients count with."""
    return {
        **sample,
        "preread": previous.get("read", "0001-01-01T00:00:00Z"),
        "precpu_stats": previous.get(
            "cpu_stats",
            {
                "cpu_usage": {
                    "total_usage": 0,
                    "usage_in_kernelmode": 0,
                    "usage_in_usermode": 0,
                },
                "throttling_data": {"periods": 0, "throttled_periods": 0, "throttled_time": 0},
            },
        ),
    }


@routes.get("/containers/{id}/export", mode="thread")
def export(backend: Backend, request: Request) -> Stream:
    """``GET /containers/{id}/export``."""
    source = backend.containers.export(request.parameters["id"])
    return Stream(source, "application/octet-stream")
