"""A relay in front of a receiver that resets connections in mid-stream."""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import suppress

#: Close with a reset: what is not read is thrown away.
_RESET = struct.pack("ii", 1, 0)
_LISTEN = 64


class Relay:
    """Passes on what it gets, on a port of 127.0.0.1 in a thread of its own.

    Args:
        target: the port of the receiver.
        cut_after: how many bytes of each of the first connections reach the receiver before the
            sender's end is reset; afterwards connections live.
        cut_answers: how many answers of the receiver are kept from the sender, with a reset, before
            that.
    """

    def __init__(self, target: int, cut_after: list[int], cut_answers: int = 0) -> None:
        self._target = target
        self._cuts = list(cut_after)
        self._answers = cut_answers
        #: How many connections were reset.
        self.resets = 0
        self._server = socket.create_server(("127.0.0.1", 0), backlog=_LISTEN)
        self.port: int = self._server.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Take no more connections."""
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join(30)

    def _serve(self) -> None:
        while True:
            try:
                sender, _ = self._server.accept()
            except OSError:
                return
            # Whatever an end says, the other thread may have closed it.
            with suppress(OSError), sender:
                with socket.create_connection(("127.0.0.1", self._target)) as receiver:
                    self._pass_on(sender, receiver)

    def _pass_on(self, sender: socket.socket, receiver: socket.socket) -> None:
        """Carry one connection to its end."""
        left = -1
        if not self._answers:
            left = self._cuts.pop(0) if self._cuts else -1
        answering = threading.Thread(target=self._answer, args=(sender, receiver), daemon=True)
        answering.start()
        while left:
            data = sender.recv(min(left, 1 << 16) if left > 0 else 1 << 16)
            if not data:
                break
            receiver.sendall(data)
            left -= len(data) if left > 0 else 0
        if not left:
            self._reset(sender)
        with suppress(OSError):
            # The receiver gets to the end of what it was sent before the next connection comes.
            receiver.shutdown(socket.SHUT_WR)
        answering.join(2)

    def _answer(self, sender: socket.socket, receiver: socket.socket) -> None:
        with suppress(OSError):
            while data := receiver.recv(1 << 16):
                if self._answers:
                    self._answers -= 1
                    self._reset(sender)
                    return
                sender.sendall(data)

    def _reset(self, sender: socket.socket) -> None:
        self.resets += 1
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        # A shutdown first: the other thread may be waiting for it in a call.
        with suppress(OSError):
            sender.shutdown(socket.SHUT_RD)
        sender.close()
