"""A tiny HTTP server on a unix socket that keeps the requests it gets, for tests of clients."""

from __future__ import annotations

import http.server
import json
import socketserver
import threading
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit


class Request:
    """One request: ``method``, ``path`` without version, ``query``, ``body`` (JSON or bytes)."""

    def __init__(self, method: str, target: str, body: bytes) -> None:
        parts = urlsplit(target)
        self.method = method
        self.path = parts.path
        if self.path.startswith("/v1."):
            self.path = "/" + self.path.split("/", 2)[2]
        self.query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        self.queries = parse_qs(parts.query)
        self.raw = body
        try:
            self.body: Any = json.loads(body)
        except ValueError:
            self.body = body


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Capture

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        pieces = []
        while size := int(self.rfile.readline(), 16):
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(pieces)

    def _answer(self) -> None:
        request = Request(self.command, self.path, self._body())
        if request.path != "/_ping":
            self.server.requests.append(request)
        status, body = self.server.answer(request)
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Api-Version", "1.50")
        self.send_header("Ostype", "linux")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = _answer  # noqa: N815


class Capture(socketserver.ThreadingUnixStreamServer):
    """Answers what ``answers`` says for ``METHOD /path``, else something harmless.

    Attributes:
        requests: what came, in order, pings left out.
        answers: status and body (JSON or bytes) by ``METHOD /path``.
        address: for ``-H``.
    """

    daemon_threads = True

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), _Handler)
        self.address = f"unix://{path}"
        self.requests: list[Request] = []
        self.answers: dict[str, tuple[int, Any]] = {}
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True)

    def get_request(self) -> Any:
        connection, _ = super().get_request()
        return connection, ("client", 0)

    def answer(self, request: Request) -> tuple[int, Any]:
        found = self.answers.get(f"{request.method} {request.path}")
        if found is not None:
            return found
        if request.path == "/_ping":
            return 200, b"OK"
        if request.path.endswith("/create"):
            return 201, {"Id": "abc123", "Name": "made", "Warnings": []}
        if request.path.endswith("/exec"):
            return 201, {"Id": "exec1"}
        if request.path.endswith("/json"):
            return 200, {"Id": "abc123", "Config": {"Tty": False}, "HostConfig": {}, "State": {}}
        return 200, {}

    def last(self, path: str) -> Request:
        """The last request for a path that ends so."""
        return [one for one in self.requests if one.path.endswith(path)][-1]

    def __enter__(self) -> Capture:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()
        self._thread.join(10)
