"""Reading a container's log back, as ``engine logs`` shows it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote_plus

from drivetrain.errors import EngineError, NotSupported
from drivetrain.log import LogQuery, Record
from drivetrain.options import parse_options
from drivetrain.registry import Registry
from drivetrain_engine.containers.protocol import LogSetup
from drivetrain_engine.containers.shim.logset import context_of
from drivetrain_engine.containers.waking import Watch

#: Lines of one stream are joined up to so many bytes: one frame instead of hundreds.
CHUNK = 32 << 10


def readable(registry: Registry, setups: Sequence[LogSetup]) -> LogSetup:
    """Return the driver to read from: one on this host, a remote one, or the read cache.

    Raises:
        NotSupported: none can be read.
    """
    found: list[tuple[bool, LogSetup]] = []
    for setup in setups:
        traits = registry.log(setup.driver).call.log_traits()
        if traits.readable:
            found.append((traits.remote, setup))
    if found:
        return min(found, key=lambda pair: pair[0])[1]
    names = ", ".join(setup.driver for setup in setups)
    raise NotSupported(
        f"configured logging driver does not support reading: {names} keeps no records here, and "
        "there is no read cache (cache-disabled, or log-cache-driver is not installed)"
    )


def read(
    registry: Registry,
    setups: Sequence[LogSetup],
    directory: Path,
    *,
    stdout: bool = True,
    stderr: bool = True,
    since: int = 0,
    until: int = 0,
    tail: int = -1,
    follow: bool = False,
    timestamps: bool = False,
    details: bool = False,
    ended: Callable[[], bool] = lambda: True,
    cancelled: Callable[[], bool] = lambda: False,
) -> Iterator[tuple[int, bytes]]:
    """Yield pieces of output with their stream, 1 or 2; neighbours of one stream are joined.

    ``setups`` are all drivers of the container, ``directory`` is its own.
    ``since`` and ``until`` are nanoseconds since 1970 (0 is open), ``tail`` counts lines (-1 is
    all); a ``follow`` goes on until the container has ``ended``, or the reader has
    ``cancelled``. ``timestamps`` and ``details`` put the time and the attributes before each line.

    Raises:
        NotSupported: none of the drivers can read.
    """
    setup = readable(registry, setups)
    driver = registry.log(setup.driver)
    options = parse_options(f"log driver {setup.driver}", driver.call.log_options(), setup.options)
    context = context_of(setup, directory)
    watch = Watch(context.directory)
    query = LogQuery(since, until, tail, follow, lambda: ended() or cancelled(), watch.wait)
    records = driver.call.log_read(context, options, query)
    wanted = {"stdout": stdout, "stderr": stderr}
    return _watched(watch, _joined(records or iter(()), wanted, timestamps, details, follow))


def _watched(watch: Watch, pieces: Iterator[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    try:
        yield from pieces
    finally:
        watch.close()


def _joined(
    records: Iterator[Record],
    wanted: Mapping[str, bool],
    timestamps: bool,
    details: bool,
    follow: bool,
) -> Iterator[tuple[int, bytes]]:
    stream = ""
    parts: list[bytes] = []
    size = 0
    fresh = {"stdout": True, "stderr": True}
    try:
        for record in records:
            if not wanted[record.stream]:
                continue
            if parts and (record.stream != stream or size > CHUNK or follow):
                yield (2 if stream == "stderr" else 1), b"".join(parts)
                parts, size = [], 0
            stream = record.stream
            if (timestamps or details) and fresh[stream]:
                parts.append(_prefix(record, timestamps, details))
            open_end = record.partial is not None and not record.partial.last
            fresh[stream] = not open_end
            parts.append(record.line if open_end else record.line + b"\n")
            size += len(record.line) + 1
            if follow:
                yield (2 if stream == "stderr" else 1), b"".join(parts)
                parts, size = [], 0
        if parts:
            yield (2 if stream == "stderr" else 1), b"".join(parts)
    finally:
        close = getattr(records, "close", None)
        if close is not None:
            close()


def _prefix(record: Record, timestamps: bool, details: bool) -> bytes:
    text = ""
    if timestamps:
        whole, rest = divmod(record.time, 1_000_000_000)
        text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole)) + f".{rest:09}Z "
    if details:
        pairs = sorted((record.attributes or {}).items())
        text += ",".join(f"{quote_plus(key)}={quote_plus(value)}" for key, value in pairs) + " "
    return text.encode()


def remove(registry: Registry, setups: Sequence[LogSetup], directory: Path) -> list[EngineError]:
    """Have the drivers drop what they keep outside the container's directory; returns faults."""
    faults: list[EngineError] = []
    for setup in setups:
        try:
            driver = registry.log(setup.driver)
            schema = driver.call.log_options()
            options = parse_options(f"log driver {setup.driver}", schema, setup.options)
            driver.call.log_remove(context_of(setup, directory), options)
        except EngineError as error:
            faults.append(error)
    return faults
