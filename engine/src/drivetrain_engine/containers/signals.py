"""Signals by name and number."""

from __future__ import annotations

import signal

from drivetrain.errors import InvalidArgument

_MAXIMUM = 64


def parse_signal(text: str) -> int:
    """Return the number of ``SIGTERM``, ``term``, ``15`` or ``RTMIN+3``.

    Raises:
        InvalidArgument: there is no such signal.
    """
    name = text.strip().upper().removeprefix("SIG")
    if name.isdigit():
        number = int(name)
        if 0 < number <= _MAXIMUM:
            return number
        raise InvalidArgument(f"invalid signal: {text}")
    base, plus, offset = name.partition("+")
    if not plus:
        base, plus, offset = name.partition("-")
        plus = "-" if plus else ""
    if base in ("RTMIN", "RTMAX") and (not plus or offset.isdigit()):
        start = int(signal.SIGRTMIN if base == "RTMIN" else signal.SIGRTMAX)
        number = start + int(offset or 0) * (-1 if plus == "-" else 1)
        if int(signal.SIGRTMIN) <= number <= int(signal.SIGRTMAX):
            return number
    found = getattr(signal, "SIG" + name, None)
    if not isinstance(found, signal.Signals):
        raise InvalidArgument(f"invalid signal: {text}")
    return int(found)
