"""Attachments, also those made before a container starts, as ``docker run`` makes them.

The client's end is one of a pair of sockets; at the start the other end is joined to the shim's.
"""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING

from drivetrain.errors import FailedPrecondition

if TYPE_CHECKING:
    from drivetrain_engine.containers.container import Container

_CHUNK = 1 << 17


def check(container: Container, reference: str) -> None:
    """Find out whether one can attach; called with the container's lock held.

    Raises:
        FailedPrecondition: it is paused or restarting.
    """
    state = container.record.state
    if state.paused:
        raise FailedPrecondition(
            f"container {reference} is paused, unpause the container before attach"
        )
    if state.restarting:
        raise FailedPrecondition(
            f"container {reference} is restarting, wait until the container is running"
        )


def attach(container: Container, *, stdin: bool, stdout: bool, stderr: bool) -> socket.socket:
    """Return a connection to the streams, from now on or from the start; called with the lock."""
    stdin = stdin and container.record.config.open_stdin
    if container.shim is not None:
        return container.shim.attach(stdin=stdin, stdout=stdout, stderr=stderr)
    pending = Pending(stdin=stdin, stdout=stdout, stderr=stderr)
    container.pending.append(pending)
    return pending.client


class Pending:
    """One attachment that waits for the start.

    Args:
        stdin, stdout, stderr: which streams are wanted.

    Attributes:
        client: for whoever attaches.
    """

    def __init__(self, *, stdin: bool, stdout: bool, stderr: bool) -> None:
        self.streams = {"stdin": stdin, "stdout": stdout, "stderr": stderr}
        self.client, self._end = socket.socketpair()

    def join(self, other: socket.socket) -> None:
        """Carry bytes between client and ``other`` from now on, until the output has ended."""
        for work in (_carry_input, _carry_output):
            threading.Thread(
                target=work, args=(self._end, other), name="attachment", daemon=True
            ).start()

    def close(self) -> None:
        """Tell the client that nothing will come."""
        self._end.close()


def _carry_input(client: socket.socket, other: socket.socket) -> None:
    """Carry input until the client has ended its, and pass the end on."""
    _carry(client, other)
    _shut(other, socket.SHUT_WR)


def _carry_output(client: socket.socket, other: socket.socket) -> None:
    """Carry output until there is no more, then close both."""
    with client, other:
        _carry(other, client)
        # A shutdown wakes the thread that reads; a close alone would not.
        _shut(client, socket.SHUT_RDWR)
        _shut(other, socket.SHUT_RDWR)


def _carry(source: socket.socket, target: socket.socket) -> None:
    buffer = bytearray(_CHUNK)
    view = memoryview(buffer)
    try:
        while count := source.recv_into(buffer):
            target.sendall(view[:count])
    except OSError:
        pass  # one side is gone


def _shut(target: socket.socket, how: int) -> None:
    try:
        target.shutdown(how)
    except OSError:
        pass
