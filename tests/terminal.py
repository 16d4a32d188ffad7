"""A command in a terminal of its own, for tests: what it shows, what is typed into it."""

from __future__ import annotations

import os
import pty
import select
import struct
import time
from collections.abc import Sequence
from fcntl import ioctl
from termios import TIOCSWINSZ

PATIENCE = 60.0


class Terminal:
    """Runs a command with a pseudo-terminal as its stdin, stdout and stderr.

    Attributes:
        shown: everything it has written so far.
    """

    def __init__(self, command: Sequence[str], *, rows: int = 24, columns: int = 80) -> None:
        self.shown = b""
        self._pid, self._terminal = pty.fork()
        if self._pid == 0:
            try:
                os.execvp(command[0], list(command))
            finally:
                os._exit(127)
        self.resize(rows, columns)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._terminal)
        if self._pid:
            os.kill(self._pid, 9)
            os.waitpid(self._pid, 0)

    def resize(self, rows: int, columns: int) -> None:
        """Set the size of the terminal; the command gets a SIGWINCH."""
        ioctl(self._terminal, TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text: bytes) -> None:
        """Type something."""
        os.write(self._terminal, text)

    def _read(self, deadline: float) -> bool:
        ready, _, _ = select.select([self._terminal], [], [], max(0, deadline - time.monotonic()))
        if not ready:
            return False
        try:
            data = os.read(self._terminal, 4096)
        except OSError:  # EIO: nobody has the other side open any more
            return False
        self.shown += data
        return bool(data)

    def expect(self, text: bytes) -> None:
        """Wait until ``text`` is shown, and forget what was shown up to its end."""
        deadline = time.monotonic() + PATIENCE
        while text not in self.shown:
            assert self._read(deadline), f"not shown: {text!r}; instead: {self.shown!r}"
        self.shown = self.shown.partition(text)[2]

    def wait(self) -> int:
        """Read on until the command ends, and return its exit status."""
        deadline = time.monotonic() + PATIENCE
        while self._read(deadline):
            pass
        while True:
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            if pid:
                self._pid = 0
                return os.waitstatus_to_exitcode(status)
            assert time.monotonic() < deadline, f"it does not end; it shows {self.shown!r}"
            time.sleep(0.05)
