"""Heads of answers, and errors as answers."""

from __future__ import annotations

from collections.abc import Mapping
from email.utils import formatdate
from http import HTTPStatus
from importlib.metadata import version

from drivetrain.errors import EngineError
from drivetrain_engine.api.messages import Response, json_response
from drivetrain_engine.api.router import API_VERSION, MethodNotAllowed

ENGINE_VERSION = version("drivetrain-engine")
_REASONS = {status.value: status.phrase for status in HTTPStatus}
_COMMON = (
    f"Api-Version: {API_VERSION[0]}.{API_VERSION[1]}\r\n"
    "Docker-Experimental: false\r\n"
    "Ostype: linux\r\n"
    f"Server: Drivetrain/{ENGINE_VERSION} (linux)\r\n"
)
_BODILESS = frozenset({204, 304})


def _head(status: int, headers: Mapping[str, str], *, keep_alive: bool) -> list[str]:
    lines = [
        f"HTTP/1.1 {status} {_REASONS.get(status, 'Unknown')}\r\n",
        _COMMON,
        f"Date: {formatdate(usegmt=True)}\r\n",
    ]
    lines += [f"{name}: {value}\r\n" for name, value in headers.items()]
    if not keep_alive:
        lines.append("Connection: close\r\n")
    return lines


def render(response: Response, *, keep_alive: bool, head_only: bool) -> bytes:
    """Return a whole answer as bytes."""
    lines = _head(response.status, response.headers, keep_alive=keep_alive)
    body = response.body
    if response.status in _BODILESS:
        body = b""
    else:
        if body or head_only:
            lines.append(f"Content-Type: {response.content_type}\r\n")
        lines.append(f"Content-Length: {len(body)}\r\n")
    lines.append("\r\n")
    head = "".join(lines).encode("latin-1", "replace")
    return head if head_only else head + body


def render_stream(
    content_type: str, headers: Mapping[str, str], *, chunked: bool, keep_alive: bool
) -> bytes:
    """Return the head of an answer whose length is not known."""
    lines = _head(200, headers, keep_alive=keep_alive)
    lines.append(f"Content-Type: {content_type}\r\n")
    if chunked:
        lines.append("Transfer-Encoding: chunked\r\n")
    lines.append("\r\n")
    return "".join(lines).encode("latin-1", "replace")


def render_hijack(content_type: str, *, upgrade: bool) -> bytes:
    """Return the head after which the connection is raw; the old form without ``upgrade``."""
    if upgrade:
        return (
            f"HTTP/1.1 101 UPGRADED\r\nContent-Type: {content_type}\r\n"
            "Connection: Upgrade\r\nUpgrade: tcp\r\n"
            f"{_COMMON}\r\n"
        ).encode()
    return f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\n\r\n".encode()


def chunk(data: bytes) -> bytes:
    """Return ``data`` as one chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def message_of(error: BaseException) -> str:
    """Return what a user is told: the message, and which driver raised it."""
    text = str(error) or type(error).__name__
    if isinstance(error, EngineError) and error.provider is not None:
        text = f"{text} ({error.provider})"
    return text


def error_response(error: BaseException) -> Response:
    """Return the answer for an error: Docker's ``{"message": …}`` and our ``code``."""
    if not isinstance(error, EngineError):
        return json_response({"message": message_of(error), "code": "Internal"}, 500)
    headers = {"Allow": error.allowed} if isinstance(error, MethodNotAllowed) else {}
    document = {"message": message_of(error), "code": type(error).__name__}
    return json_response(document, error.http_status, headers)
