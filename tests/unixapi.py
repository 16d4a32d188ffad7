"""The API of a host over its unix socket, one connection per request: quick, and without a client.

A request to a daemon that is killed meanwhile raises ``OSError`` or ``http.client.HTTPException``.
"""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path
from typing import Any

#: What a request raises when the daemon is gone before it has answered.
GONE = (OSError, http.client.HTTPException)


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("engine", timeout=timeout)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Api:
    """Requests to the daemon behind a socket.

    Args:
        path: of the socket.
        timeout: seconds for an answer.
    """

    def __init__(self, path: Path, timeout: float = 120.0) -> None:
        self._path = path
        self._timeout = timeout

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """Return status and content, decoded when it is JSON."""
        connection = _Connection(self._path, self._timeout)
        try:
            data = None if body is None else json.dumps(body)
            connection.request(method, path, data, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            content = answer.read()
            if answer.headers.get_content_type() == "application/json" and content:
                return answer.status, json.loads(content)
            return answer.status, content
        finally:
            connection.close()

    def get(self, path: str) -> Any:
        """Return what a GET answers.

        Raises:
            AssertionError: it is refused.
        """
        status, content = self.ask("GET", path)
        assert status == 200, (path, status, content)
        return content

    def post(self, path: str, body: object = None) -> Any:
        """Return what a POST answers.

        Raises:
            AssertionError: it is refused.
        """
        status, content = self.ask("POST", path, body)
        assert status < 300, (path, status, content)
        return content
