"""What passes between the front door and the handlers: requests, bodies and answers."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qs

import msgspec

from drivetrain.errors import Cancelled, InvalidArgument

if TYPE_CHECKING:
    from drivetrain_engine.api.front import Front

T = TypeVar("T")

#: Bytes of a streamed body that wait for their handler; more pauses the client.
BODY_WINDOW = 1 << 20


class BodyReader:
    """A request's body as a blocking file for a handler in a thread.

    The loop feeds it and stops reading from the client while more than :data:`BODY_WINDOW`
    bytes wait.

    Args:
        resume: called from the reading thread when there is room again.
    """

    def __init__(self, resume: Callable[[], None]) -> None:
        self._resume = resume
        self._condition = threading.Condition()
        self._pieces: list[bytes] = []
        self._waiting = 0
        self._ended = False
        self._broken = False
        self._paused = False

    def feed(self, data: bytes) -> bool:
        """Add bytes; true when the client has to pause."""
        with self._condition:
            self._pieces.append(data)
            self._waiting += len(data)
            self._condition.notify()
            self._paused = self._waiting > BODY_WINDOW
            return self._paused

    def finish(self, *, broken: bool = False) -> None:
        """The body is complete, or ``broken`` off."""
        with self._condition:
            self._ended = True
            self._broken = self._broken or broken
            self._condition.notify()

    def read(self, size: int = -1) -> bytes:
        """Return up to ``size`` bytes, blocking until there are so many or the body ends.

        Raises:
            Cancelled: the client went away in the middle.
        """
        wanted = size if size is not None and size >= 0 else -1
        taken: list[bytes] = []
        count = 0
        while wanted < 0 or count < wanted:
            piece = self._take(wanted - count if wanted >= 0 else -1)
            if not piece:
                break
            taken.append(piece)
            count += len(piece)
        return taken[0] if len(taken) == 1 else b"".join(taken)

    def _take(self, limit: int) -> bytes:
        with self._condition:
            while not self._pieces and not self._ended:
                self._condition.wait()
            if self._broken:
                raise Cancelled("the client closed the connection before the end of the body")
            if not self._pieces:
                return b""
            piece = self._pieces.pop(0)
            if 0 <= limit < len(piece):
                self._pieces.insert(0, piece[limit:])
                piece = piece[:limit]
            self._waiting -= len(piece)
            wake = self._paused and self._waiting < BODY_WINDOW // 4
            if wake:
                self._paused = False
        if wake:
            self._resume()
        return piece

    def read_some(self, size: int) -> bytes:
        """Return from 1 to ``size`` bytes as soon as there are some; empty at the end."""
        return self._take(size)

    def readable(self) -> bool:
        return True


@dataclass(slots=True)
class Request:
    """One request, routed.

    Attributes:
        method: in capitals.
        path: decoded, without the version prefix.
        headers: by lower-case name.
        body: all of it, unless the route streams its body.
        stream: the body of a route that streams it.
        version: of the API that the client speaks, as ``(1, 50)``.
        parameters: what the route's pattern took from the path.
        keep_alive: the client wants to go on with the connection.
        http_minor: 0 for HTTP/1.0.
        front: the door it came through.
    """

    method: str
    path: str
    raw_query: str
    headers: dict[str, str]
    front: Front
    http_minor: int = 1
    keep_alive: bool = True
    body: bytes = b""
    stream: BodyReader | None = None
    version: tuple[int, int] = (1, 50)
    parameters: Mapping[str, str] = field(default_factory=dict)
    _query: dict[str, list[str]] | None = None

    @property
    def query(self) -> dict[str, list[str]]:
        """All values by name, as given."""
        if self._query is None:
            self._query = parse_qs(self.raw_query, keep_blank_values=True) if self.raw_query else {}
        return self._query

    def text(self, name: str, default: str = "") -> str:
        """Return the first value of a query parameter."""
        values = self.query.get(name)
        return values[0] if values else default

    def has(self, name: str) -> bool:
        """Tell whether a query parameter was given and is not empty."""
        return bool(self.text(name))

    def flag(self, name: str, default: bool = False) -> bool:
        """Return a boolean the way Docker reads one: empty, 0, no, false and none are false."""
        if name not in self.query:
            return default
        return self.text(name).strip().lower() not in ("", "0", "no", "false", "none")

    def number(self, name: str, default: int | None = None) -> int | None:
        """Return an integer; ``default`` when absent or empty.

        Raises:
            InvalidArgument: it is no integer.
        """
        text = self.text(name)
        if not text:
            return default
        try:
            return int(text)
        except ValueError:
            raise InvalidArgument(
                f"invalid value for {name}: {text!r} is not a whole number"
            ) from None

    def filters(self) -> dict[str, list[str]]:
        """Return the ``filters`` parameter, in its new or its old form.

        Raises:
            InvalidArgument: it is not a JSON object of lists or of objects.
        """
        text = self.text("filters")
        if not text:
            return {}
        try:
            document = msgspec.json.decode(text)
            found: dict[str, list[str]] = {}
            for key, values in document.items():
                if isinstance(values, dict):
                    values = [value for value, wanted in values.items() if wanted]
                if not isinstance(values, list):
                    raise TypeError(key)
                found[key] = [str(value) for value in values]
            return found
        except (msgspec.DecodeError, AttributeError, TypeError):
            raise InvalidArgument(f"invalid filters: {text}") from None

    def json(self, *, required: bool = False) -> dict[str, Any]:
        """Return the JSON object in the body; empty when there is none.

        Raises:
            InvalidArgument: it is no JSON object, or is ``required`` and missing.
        """
        text = self.body.strip()
        if not text:
            if required:
                raise InvalidArgument("invalid JSON: got EOF while reading request body")
            return {}
        try:
            document = msgspec.json.decode(text)
        except msgspec.DecodeError as error:
            raise InvalidArgument(f"invalid JSON: {error}") from None
        if document is None and not required:
            return {}
        if not isinstance(document, dict):
            raise InvalidArgument("invalid JSON: an object is needed")
        return document

    async def run(self, work: Callable[[], T]) -> T:
        """Run blocking work in the pool, from a handler that runs in the loop."""
        return await asyncio.get_running_loop().run_in_executor(self.front.pool, work)


@dataclass(slots=True)
class Response:
    """An answer that is all there."""

    body: bytes = b""
    status: int = 200
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


def json_response(
    document: object, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Return an answer with a JSON body, ended by a newline as Docker's are."""
    return Response(
        msgspec.json.encode(document) + b"\n", status, "application/json", headers or {}
    )


@dataclass(slots=True)
class Stream:
    """An answer made piece by piece in a thread of its own; the iterator may block.

    Attributes:
        source: closed when the client goes away, at its next piece.
        head_first: send the head before the first piece; otherwise an error before it still
            becomes a proper status.
        cancel: called, in the loop, when the client goes away, to wake a blocked source.
    """

    source: Iterable[bytes]
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)
    head_first: bool = False
    cancel: Callable[[], None] | None = None
    on_error: Callable[[Exception], bytes] | None = None


@dataclass(slots=True)
class LiveStream:
    """An answer whose pieces come from the loop; its head is sent at once."""

    source: AsyncGenerator[bytes, None]
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Hijack:
    """An answer that turns the connection into a raw one, both ways.

    Attributes:
        peer: the other end: its bytes go to the client as they are; ``None``: only ``backlog``.
        backlog: sent first; may block, runs in a thread of its own.
        content_type: what the head announces.
        wants_input: hand the client's bytes and its half-close on to ``peer``.
        detach_keys: bytes that, typed in a row, end the connection; empty: none.
        on_detach: called in the pool when they were typed.
        settled: waits, in a thread, until what the client asks next will be answered truly: the
            client sees the end of the output only then.
    """

    peer: socket.socket | None
    backlog: Iterator[bytes] | None = None
    content_type: str = "application/vnd.docker.raw-stream"
    wants_input: bool = True
    detach_keys: bytes = b""
    on_detach: Callable[[], None] | None = None
    settled: Callable[[], object] | None = None


Answer = Response | Stream | LiveStream | Hijack
