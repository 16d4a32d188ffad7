"""The two directions of an attached container: stdin out, stdout and stderr in."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import sys
import threading
from collections.abc import Iterable, Iterator

from drivetrain_engine.cli.address import Stream
from drivetrain_engine.cli.terminal import Escape

HEADER = struct.Struct(">BxxxL")
CHUNK = 1 << 16


class Detached(Exception):
    """The user typed the detach keys."""


def write_all(descriptor: int, data: bytes) -> None:
    """Write everything, also to a descriptor that does not block."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:
            import select

            select.select([], [descriptor], [])


def frames(pieces: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """Yield stream (1 stdout, 2 stderr, 3 the daemon's own error) and data of a framed stream."""
    buffer = bytearray()
    for piece in pieces:
        buffer += piece
        position = 0
        while len(buffer) - position >= HEADER.size:
            stream, length = HEADER.unpack_from(buffer, position)
            end = position + HEADER.size + length
            if len(buffer) < end:
                break
            yield stream, bytes(buffer[position + HEADER.size : end])
            position = end
        del buffer[:position]


def show(pieces: Iterable[bytes], tty: bool) -> None:
    """Write a container's output to our stdout and stderr.

    Args:
        pieces: as they come.
        tty: they are raw; otherwise framed.
    """
    sys.stdout.flush()
    if tty:
        for piece in pieces:
            write_all(1, piece)
        return
    for stream, data in frames(pieces):
        write_all(1 if stream in (0, 1) else 2, data)


def received(sock: Stream, first: bytes, escape: Escape) -> Iterator[bytes]:
    """Yield what comes from a hijacked connection until its end, or raise :class:`Detached`."""
    if first:
        yield first
    while True:
        try:
            data = sock.recv(CHUNK)
        except OSError:
            data = b""
        if escape.found:
            raise Detached
        if not data:
            return
        yield data


def pump_stdin(sock: Stream, escape: Escape) -> threading.Thread:
    """Send our stdin to the container, in a thread of its own; its end half-closes.

    The thread is a daemon thread: it may well be in a read that never returns.
    """

    def pump() -> None:
        with contextlib.suppress(OSError):
            while data := os.read(0, CHUNK):
                kept = escape.feed(data)
                if kept:
                    sock.sendall(kept)
                if escape.found:
                    sock.shutdown(socket.SHUT_RDWR)
                    return
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_WR)

    thread = threading.Thread(target=pump, name="stdin", daemon=True)
    thread.start()
    return thread
