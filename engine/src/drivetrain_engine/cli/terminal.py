"""The terminal and the signals of an attached command: raw mode, resizing, detach keys."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator

from drivetrain_engine.cli.errors import UsageError

DEFAULT_DETACH_KEYS = "ctrl-p,ctrl-q"
_NOT_FORWARDED = {
    signal.SIGCHLD,
    signal.SIGPIPE,
    signal.SIGURG,
    signal.SIGWINCH,
    signal.SIGKILL,
    signal.SIGSTOP,
    signal.SIGTSTP,
    signal.SIGTTIN,
    signal.SIGTTOU,
}


def parse_detach_keys(text: str) -> bytes:
    r"""Return the bytes of ``ctrl-p,ctrl-q`` or ``a,ctrl-]``.

    Raises:
        UsageError: a key is neither a character nor ``ctrl-`` and one of ``a-z@[\\]^_``.
    """
    keys = bytearray()
    for key in (text or DEFAULT_DETACH_KEYS).split(","):
        if len(key) == 1:
            keys += key.encode()
        elif (
            key.startswith("ctrl-")
            and len(key) == 6
            and key[5] in "abcdefghijklmnopqrstuvwxyz@[\\]^_"
        ):
            keys.append(ord(key[5].upper()) & 0x1F)
        else:
            raise UsageError(f"invalid detach keys {text!r}: unknown character {key!r}")
    return bytes(keys)


class Escape:
    """Looks for the detach keys in what is typed.

    Args:
        keys: the sequence; empty: never found.
    """

    def __init__(self, keys: bytes) -> None:
        self.keys = keys
        self._held = 0
        self.found = False

    def feed(self, data: bytes) -> bytes:
        """Return what is to be sent on; sets ``found``, and then holds the keys back."""
        if not self.keys:
            return data
        out = bytearray()
        for byte in data:
            if byte == self.keys[self._held]:
                self._held += 1
                if self._held == len(self.keys):
                    self.found = True
                    return bytes(out)
                continue
            out += self.keys[: self._held]
            self._held = 1 if byte == self.keys[0] else 0
            if not self._held:
                out.append(byte)
            elif self._held == len(self.keys):
                self.found = True
                return bytes(out)
        return bytes(out)


@contextlib.contextmanager
def raw_terminal(descriptor: int) -> Iterator[None]:
    """Put a terminal into raw mode and back; nothing for what is no terminal."""
    if not os.isatty(descriptor):
        yield
        return
    import termios
    import tty

    before = termios.tcgetattr(descriptor)
    tty.setraw(descriptor, termios.TCSANOW)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def size() -> tuple[int, int] | None:
    """Return height and width of the terminal; ``None`` when there is none."""
    for stream in (sys.stdout, sys.stdin, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            found = os.get_terminal_size(stream.fileno())
            if found.lines and found.columns:
                return found.lines, found.columns
    return None


def require_terminal(tty: bool, interactive: bool) -> None:
    """Refuse ``-i -t`` when stdin is no terminal, since nobody could type."""
    if tty and interactive and not os.isatty(0):
        raise UsageError("the input device is not a TTY: leave -t out, or run it in a terminal")


@contextlib.contextmanager
def on_resize(tell: Callable[[int, int], None]) -> Iterator[None]:
    """Tell the size of the terminal now and whenever it changes."""

    def changed(*_: object) -> None:
        found = size()
        if found:
            with contextlib.suppress(Exception):
                tell(*found)

    before = signal.signal(signal.SIGWINCH, changed)
    try:
        changed()
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)


@contextlib.contextmanager
def forwarded_signals(send: Callable[[str], None]) -> Iterator[None]:
    """Pass every signal that we get, and that can be caught, to ``send`` by its name."""

    def got(number: int, _: object) -> None:
        with contextlib.suppress(Exception):
            send(signal.Signals(number).name.removeprefix("SIG"))

    before: dict[int, object] = {}
    for number in signal.valid_signals() - _NOT_FORWARDED:
        if number in (32, 33) or number not in set(signal.Signals):
            continue
        with contextlib.suppress(OSError, ValueError):
            before[number] = signal.signal(number, got)
    try:
        yield
    finally:
        for caught, handler in before.items():
            with contextlib.suppress(TypeError):
                signal.signal(caught, handler)  # type: ignore[arg-type]
