"""A receiver that takes records as fast as it can, and counts them.

The receivers of the tests understand what they get, and are slower than what is measured here.
"""

from __future__ import annotations

import os
import re
import select
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from drivetrain.testing.hosts import eventually
from drivetrain.testing.receivers import free_port

BLOCK = 1 << 20


class Kind(NamedTuple):
    """What a driver sends: a byte string that each record has once, and the options."""

    needle: bytes
    options: tuple[str, ...]
    #: What dockerd needs beside them.
    dockerd: tuple[str, ...] = ()


KINDS = {
    "syslog": Kind(b"\n", ("syslog-address=tcp://127.0.0.1:{port}",)),
    "gelf": Kind(b"\0", ("gelf-address=tcp://127.0.0.1:{port}",)),
    "fluentd": Kind(b"container_id", ("fluentd-address=127.0.0.1:{port}",)),
    "splunk": Kind(
        b'"event"',
        ("splunk-url=http://127.0.0.1:{port}", "splunk-token=token"),
        ("splunk-verify-connection=false",),
    ),
}


class Sink:
    """A receiver of one kind, in a process and maybe a network of its own.

    Args:
        kind: the name of a driver.
        inside: the start of a command in that network.
    """

    def __init__(self, kind: str, inside: Sequence[str]) -> None:
        port = free_port()
        self.options = [text.format(port=port) for text in KINDS[kind].options]
        self._counts = tempfile.NamedTemporaryFile(prefix="sink-")
        command = [*inside, sys.executable, "-m", "benchmarks.logsink", kind, str(port)]
        self._process = subprocess.Popen(
            command, stdout=self._counts, cwd=Path(__file__).parents[1]
        )
        eventually(lambda: self._counts.file.seek(0, os.SEEK_END), "the sink listens")

    def count(self) -> int:
        """Return how many records came so far."""
        return int(os.pread(self._counts.fileno(), 20, 0))

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        self._counts.close()


class _Connection:
    """One sender; ``take`` returns how many records were in what it sent."""

    def __init__(self, link: socket.socket, needle: bytes, http: bool) -> None:
        self.link = link
        self._needle = needle
        self._rest = b""
        self.take = self._take_http if http else self._take

    def _take(self, data: bytes) -> int:
        data = self._rest + data
        # What is cut in the middle is found the next time, and nothing is found twice.
        self._rest = data[max(0, len(data) - len(self._needle) + 1) :] if self._needle[1:] else b""
        return data.count(self._needle)

    def _take_http(self, data: bytes) -> int:
        self._rest += data
        found = 0
        while True:
            head, end, body = self._rest.partition(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", head.lower())
            if not end or (length and len(body) < int(length[1])):
                return found
            size = int(length[1]) if length else 0
            found += body[:size].count(self._needle)
            self._rest = body[size:]
            self.link.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")


def serve(kind: str, port: int) -> None:
    """Take records for ever; the first twenty bytes of standard output are their number."""
    server = socket.create_server(("127.0.0.1", port), backlog=64)
    poll = select.poll()
    poll.register(server, select.POLLIN)
    connections: dict[int, _Connection] = {}
    count = 0
    while True:
        os.pwrite(1, b"%020d" % count, 0)
        for descriptor, _ in poll.poll():
            if descriptor == server.fileno():
                link, _ = server.accept()
                connections[link.fileno()] = _Connection(link, KINDS[kind].needle, kind == "splunk")
                poll.register(link, select.POLLIN)
                continue
            connection = connections[descriptor]
            try:
                data = connection.link.recv(BLOCK)
                count += connection.take(data)
            except ConnectionError:
                data = b""
            if not data:
                poll.unregister(descriptor)
                del connections[descriptor]
                connection.link.close()


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
