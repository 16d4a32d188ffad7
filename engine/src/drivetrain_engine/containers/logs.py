"""Reading a container's log back, as ``engine logs`` shows it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from urllib.parse import quote

from drivetrain.errors import NotSupported
from drivetrain.log import LogContext, LogQuery, Record
from drivetrain.options import parse_options
from drivetrain.registry import Registry
from drivetrain_engine.containers.protocol import LogSetup

#: Lines of one stream are joined up to so many bytes: one frame instead of hundreds.
CHUNK = 32 << 10


def read(
    registry: Registry,
    setup: LogSetup,
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

    ``since`` and ``until`` are nanoseconds since 1970 (0 is open), ``tail`` counts lines (-1 is
    all); a ``follow`` goes on until the container has ``ended``, or the reader has
    ``cancelled``. ``timestamps`` and ``details`` put the time and the attributes before each line.

    Raises:
        NotSupported: the driver cannot read.
    """
    driver = registry.log(setup.driver)
    if not driver.call.log_traits().readable:
        raise NotSupported(
            "configured logging driver does not support reading: "
            f"{setup.driver} has sent the records away, look there"
        )
    options = parse_options(f"log driver {setup.driver}", driver.call.log_options(), setup.options)
    query = LogQuery(since, until, tail, follow, lambda: ended() or cancelled(), time.sleep)
    records = driver.call.log_read(_context(setup), options, query)
    wanted = {"stdout": stdout, "stderr": stderr}
    return _joined(records or iter(()), wanted, timestamps, details, follow)


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
        text += ",".join(f"{quote(key)}={quote(value)}" for key, value in pairs) + " "
    return text.encode()


def remove(registry: Registry, setup: LogSetup) -> None:
    """Have the driver drop what it keeps outside the container's directory."""
    driver = registry.log(setup.driver)
    options = parse_options(f"log driver {setup.driver}", driver.call.log_options(), setup.options)
    driver.call.log_remove(_context(setup), options)


def _context(setup: LogSetup) -> LogContext:
    fields = {**setup.context, "directory": Path(str(setup.context["directory"]))}
    return LogContext(**fields)  # type: ignore[arg-type]
