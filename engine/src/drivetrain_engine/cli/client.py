"""A small HTTP/1.1 client for the Engine API: unix and TCP sockets, streams, hijacking.

``http.client`` would cost every command 20 ms of imports, and can neither hand over the
connection after a ``101`` nor half-close it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any
from urllib.parse import quote

from drivetrain_engine.cli.address import Address, Stream
from drivetrain_engine.cli.errors import ApiError, NoDaemon

CHUNK = 1 << 16
Query = Mapping[str, object]


def encode_query(query: Query | None) -> str:
    """Return ``?a=1&b=x``; ``None`` and false are left out, lists repeat, mappings are JSON."""
    parts: list[str] = []
    for key, value in (query or {}).items():
        if value is None or value is False or value == "" or value == {}:
            continue
        if isinstance(value, dict):
            value = json.dumps(value, separators=(",", ":"))
        values = value if isinstance(value, (list, tuple)) else [value]
        for one in values:
            text = "1" if one is True else str(one)
            parts.append(f"{quote(key, safe='')}={quote(text, safe='')}")
    return "?" + "&".join(parts) if parts else ""


class Connection:
    """A socket with a read buffer."""

    def __init__(self, sock: Stream) -> None:
        self.socket = sock
        self.buffer = b""

    def fill(self) -> bool:
        """Read something more; false at the end of the stream."""
        data = self.socket.recv(CHUNK)
        self.buffer += data
        return bool(data)

    def line(self) -> bytes:
        """Return the next line without its ending."""
        while b"\n" not in self.buffer:
            if not self.fill():
                raise NoDaemon("the daemon closed the connection")
        line, _, self.buffer = self.buffer.partition(b"\n")
        return line.rstrip(b"\r")

    def some(self, limit: int) -> bytes:
        """Return between 1 and ``limit`` bytes; empty at the end."""
        if not self.buffer and not self.fill():
            return b""
        data, self.buffer = self.buffer[:limit], self.buffer[limit:]
        return data

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()


class Response:
    """An answer whose body may still be coming.

    Attributes:
        status: the HTTP status.
        headers: names in lower case.
    """

    def __init__(self, connection: Connection, method: str) -> None:
        self._connection = connection
        status_line = connection.line().split(b" ", 2)
        if len(status_line) < 2 or not status_line[0].startswith(b"HTTP/"):
            raise NoDaemon("what answers there does not speak HTTP: is it TLS, or not the engine?")
        self.status = int(status_line[1])
        self.headers: dict[str, str] = {}
        while line := connection.line():
            name, _, value = line.decode("latin-1").partition(":")
            self.headers[name.strip().lower()] = value.strip()
        self._chunked = "chunked" in self.headers.get("transfer-encoding", "").lower()
        length = self.headers.get("content-length")
        self._left: int | None = int(length) if length is not None else None
        if method == "HEAD" or self.status in (101, 204, 304):
            self._left, self._chunked = 0, False
        self._ended = self._left == 0 and not self._chunked

    def __enter__(self) -> Response:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def reusable(self) -> bool:
        """Whether the connection may serve another request."""
        keep = self.headers.get("connection", "").lower() != "close"
        return keep and self._ended and self.status != 101

    def _chunks(self) -> Iterator[bytes]:
        while True:
            size = int(self._connection.line().split(b";")[0] or b"0", 16)
            if size == 0:
                while self._connection.line():
                    pass
                return
            while size:
                data = self._connection.some(size)
                if not data:
                    raise NoDaemon("the daemon broke off in the middle of its answer")
                size -= len(data)
                yield data
            self._connection.line()

    def __iter__(self) -> Iterator[bytes]:
        if self._ended:
            return
        if self._chunked:
            yield from self._chunks()
        elif self._left is None:
            while data := self._connection.some(CHUNK):
                yield data
        else:
            while self._left:
                data = self._connection.some(min(CHUNK, self._left))
                if not data:
                    raise NoDaemon("the daemon broke off in the middle of its answer")
                self._left -= len(data)
                yield data
        self._ended = True

    def read(self) -> bytes:
        """Return the whole body."""
        return b"".join(self)

    def json(self) -> Any:
        """Return the body as JSON; ``None`` when there is none."""
        data = self.read()
        return json.loads(data) if data.strip() else None

    def documents(self) -> Iterator[Any]:
        """Yield the JSON documents of a stream, as they come."""
        text = b""
        for piece in self:
            *lines, text = (text + piece).split(b"\n")
            for line in lines:
                yield from _documents(line)
        yield from _documents(text)

    def close(self) -> None:
        """Drop the connection unless it can be used again."""
        if not self.reusable:
            self._connection.close()


class Client:
    """Talks to one daemon. Requests on it are made one after the other.

    Args:
        address: of the daemon.
    """

    def __init__(self, address: Address) -> None:
        self.address = address
        self._idle: tuple[Connection, Response] | None = None

    def _connection(self, fresh: bool) -> Connection:
        idle, self._idle = self._idle, None
        if idle is not None:
            connection, response = idle
            if response.reusable and not fresh:
                return connection
            if response.reusable:
                connection.close()
        return Connection(self.address.connect())

    def open(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        body: object = None,
        stream: Iterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        fresh: bool = False,
    ) -> Response:
        """Send a request and return its answer when the headers are there.

        Args:
            method: of HTTP.
            path: as in the API, such as ``/containers/json``.
            query: see :func:`encode_query`.
            body: sent as JSON.
            stream: sent in chunks instead of ``body``.
            headers: further ones.
            fresh: use a connection of its own, since the answer comes much later.

        Raises:
            ApiError: the status says so.
            NoDaemon: nobody answers.
        """
        connection = self._connection(fresh)
        data = b"" if body is None else json.dumps(body, separators=(",", ":")).encode()
        head = [f"{method} {path}{encode_query(query)} HTTP/1.1", "Host: engine"]
        head.append("User-Agent: drivetrain-engine-cli")
        if stream is not None:
            head.append("Transfer-Encoding: chunked")
        elif body is not None or method in ("POST", "PUT"):
            head.append(f"Content-Length: {len(data)}")
        if body is not None:
            head.append("Content-Type: application/json")
        head.extend(f"{name}: {value}" for name, value in (headers or {}).items())
        request = "\r\n".join(head).encode() + b"\r\n\r\n" + data
        try:
            connection.socket.sendall(request)
            if stream is not None:
                _send_chunks(connection.socket, stream)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it answered before it had read everything; the answer says why
        try:
            response = Response(connection, method)
        except (OSError, NoDaemon) as error:
            connection.close()
            hint = ""
            if self.address.scheme == "tcp" and self.address.tls is None:
                hint = " (if it speaks TLS, give --tlsverify, --tlscacert, --tlscert and --tlskey)"
            raise NoDaemon(f"no answer from {self.address}: {error}{hint}") from error
        if response.status >= 400:
            message = _message(response)
            connection.close()
            raise ApiError(response.status, message)
        if not fresh:
            self._idle = (connection, response)
        return response

    def request(self, method: str, path: str, **given: Any) -> bytes:
        """Do as :meth:`open` and return the whole body."""
        with self.open(method, path, **given) as response:
            return response.read()

    def json(self, method: str, path: str, **given: Any) -> Any:
        """Do as :meth:`open` and return the body as JSON."""
        with self.open(method, path, **given) as response:
            return response.json()

    def get(self, path: str, **query: object) -> Any:
        """Return the JSON of a GET."""
        return self.json("GET", path, query=query)

    def post(self, path: str, body: object = None, **query: object) -> Any:
        """Return the JSON answer of a POST."""
        return self.json("POST", path, body=body, query=query)

    def hijack(
        self, path: str, *, query: Query | None = None, body: object = None
    ) -> tuple[Stream, bytes]:
        """POST, and take the connection over as a raw stream in both directions.

        Returns:
            The socket, and what of the stream came along with the head.
        """
        response = self.open(
            "POST",
            path,
            query=query,
            body=body,
            headers={"Connection": "Upgrade", "Upgrade": "tcp"},
            fresh=True,
        )
        connection = response._connection
        return connection.socket, connection.buffer

    def alive(self) -> bool:
        """Tell whether a daemon answers ``/_ping``."""
        try:
            return self.request("GET", "/_ping", fresh=True) is not None
        except NoDaemon:
            return False
        except ApiError:
            return True


def _documents(line: bytes) -> Iterator[Any]:
    decoder = json.JSONDecoder()
    rest = line.decode("utf-8", "replace").strip()
    while rest:
        document, end = decoder.raw_decode(rest)
        yield document
        rest = rest[end:].lstrip()


def _send_chunks(sock: Stream, stream: Iterable[bytes]) -> None:
    for piece in stream:
        if piece:
            sock.sendall(b"%x\r\n" % len(piece) + piece + b"\r\n")
    sock.sendall(b"0\r\n\r\n")


def _message(response: Response) -> str:
    data = response.read()
    try:
        message = json.loads(data)["message"]
    except (ValueError, KeyError, TypeError):
        message = data.decode("utf-8", "replace").strip()
    return str(message) or f"the daemon answered with status {response.status}"
