"""``DRIVETRAIN_TRACE=1``: every call of a hook, with its arguments, result and time, on stderr."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TextIO

from drivetrain.checking import parameters
from drivetrain.families import H, family
from drivetrain.options import Options

if TYPE_CHECKING:
    from drivetrain.calling import Driver

_LONGEST = 160


class Trace:
    """Writes one line per call of a hook.

    Values of options that their driver declares as secret are masked; of what a container
    writes, of environments and of labels only the amount is shown.

    Args:
        stream: where to; ``None``: standard error at the time of the call.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream

    def around(
        self, driver: Driver[H], hook: str, call: Callable[..., object]
    ) -> Callable[..., object]:
        """Return ``call`` with a line written after each call."""
        names = [entry.name for entry in parameters(getattr(family(driver.family).hooks, hook))]

        def traced(*args: object, **kwargs: object) -> object:
            given = {**dict(zip(names, args, strict=False)), **kwargs}
            start = time.perf_counter()
            try:
                result = call(*args, **kwargs)
            except Exception as error:
                self._write(driver, hook, given, f"!! {type(error).__name__}: {error}", start)
                raise
            self._write(driver, hook, given, f"-> {_show(result, frozenset())}", start)
            return result

        traced.__doc__ = call.__doc__
        return traced

    def _write(
        self,
        driver: Driver[H],
        hook: str,
        given: Mapping[str, object],
        outcome: str,
        start: float,
    ) -> None:
        milliseconds = (time.perf_counter() - start) * 1000
        secrets = _secrets(driver)
        shown = ", ".join(f"{name}={_show(value, secrets)}" for name, value in given.items())
        line = f"drivetrain: {driver.family}/{driver.name} {hook}({shown}) {outcome}"
        print(f"{line} [{milliseconds:.2f} ms]", file=self._stream or sys.stderr, flush=True)


def _secrets(driver: Driver[H]) -> frozenset[str]:
    """Return the names of all options that the driver declares as secret."""
    found: set[str] = set()
    for hook in family(driver.family).hook_names:
        if hook.endswith("_options") and driver.implements(hook):
            declared = getattr(driver.instance, hook)() or ()
            found.update(option.name for option in declared if option.secret)
    return frozenset(found)


def _show(value: object, secrets: frozenset[str]) -> str:
    if isinstance(value, Options):
        pairs = (f"{key}={'***' if key in secrets else text}" for key, text in value.given.items())
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, Mapping):
        return f"<{len(value)} entries>"
    if isinstance(value, bytes):
        return f"<{len(value)} bytes>"
    fields = _fields(value)
    if fields is not None:
        shown = ", ".join(f"{name}={_show(field, secrets)}" for name, field in fields.items())
        return f"{type(value).__name__}({shown})"
    if isinstance(value, (list, tuple)):
        if len(value) > 4 or any(isinstance(item, bytes) for item in value):
            return f"<{len(value)} items>"
        return "[" + ", ".join(_show(item, secrets) for item in value) + "]"
    text = repr(value)
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"


def _fields(value: object) -> dict[str, object] | None:
    """Return the fields of a value of the contract, dataclass or named tuple."""
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return {name: getattr(value, name) for name in value._fields}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return None
