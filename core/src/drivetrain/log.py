r"""The contract of log drivers.

The life of a log
=================

A log driver takes what one container writes and brings it somewhere. It is one instance per
container and runs in the container's shim, a small process that outlives the daemon: keep its
imports lean. The engine owns splitting into lines, partials, tags and labels, buffers.

1. ``log_options`` declares, ``log_validate`` checks at ``create``, without any I/O.
2. ``log_open(context, options)`` when the container starts; the shim calls it.
3. ``log_write(batch)`` for what was read at once from one stream: some lines with one time.
   ``log_flush`` and ``log_close`` at the end; ``log_open`` comes again at the next start and
   appends.
4. ``log_read(context, options, query)`` serves ``engine logs`` in the daemon, on an instance of
   its own that was never opened, while the shim goes on writing.

A whole driver::

    class Plain:
        @hookimpl
        def log_open(self, context, options):
            self.file = open(context.directory / "plain.log", "ab", buffering=0)

        @hookimpl
        def log_write(self, batch):
            self.file.write(b"".join(line + b"\n" for line in batch.lines))
            return True

        @hookimpl
        def log_close(self):
            self.file.close()
            return True

Rules for all hooks
===================

All calls for one instance come from one thread, one after the other. An error from ``log_write``
never reaches the container: the batch is tried again, see ``log_write``. A driver whose traits say
``remote`` gets its records from a spool on disk, where they wait while its receiver is down; it
may block for some seconds, and need not remember anything. Hooks with nothing to say return
``True``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from drivetrain.markers import hookspec
from drivetrain.options import Option, Options

Stream = Literal["stdout", "stderr"]


class Partial(NamedTuple):
    """The place of a piece of a line that was longer than the limit (``max-line-size``, 16 KiB).

    Attributes:
        id: the same for all pieces of a line.
        ordinal: from 1.
        last: this piece ends the line.
    """

    id: str
    ordinal: int
    last: bool


class Batch(NamedTuple):
    """Lines of one stream that were read at once.

    Attributes:
        stream: ``stdout`` or ``stderr``.
        time: nanoseconds since 1970, UTC; for pieces of a line the time of the first.
        lines: in order, without the newline; any bytes, may be empty.
        partial: set when ``lines`` is a single piece of a longer line. The newline that ends the
            line follows the last piece only.
    """

    stream: Stream
    time: int
    lines: list[bytes]
    partial: Partial | None = None


class Record(NamedTuple):
    """One line, or piece of a line, that was read back; fields as in :class:`Batch`."""

    stream: Stream
    time: int
    line: bytes
    partial: Partial | None = None
    attributes: Mapping[str, str] | None = None


class LogContext(NamedTuple):
    """Whose log it is.

    Attributes:
        container_id: 64 hexadecimal digits.
        container_name: without a slash.
        image_id, image_name, command, created, host, daemon: for tags and fields.
        tag: the ``tag`` option with its template filled in.
        attributes: what ``labels``, ``labels-regex``, ``env`` and ``env-regex`` chose.
        directory: the container's directory, for drivers that write files.
    """

    container_id: str
    container_name: str
    directory: Path
    image_id: str = ""
    image_name: str = ""
    command: str = ""
    created: str = ""
    host: str = ""
    daemon: str = "engine"
    tag: str = ""
    attributes: Mapping[str, str] = {}


class LogQuery(NamedTuple):
    """What ``engine logs`` asks for.

    Attributes:
        since: nanoseconds since 1970; records before it are left out. 0: all.
        until: likewise; records after it are left out, and a follow ends. 0: all.
        tail: the last so many lines of what is there; -1: all.
        follow: go on with what comes.
        ended: says whether the container is gone, so that a follow ends after the last record.
        wait: blocks until there may be something new, or for a short while; a follow calls it
            between looks. Takes the longest time in seconds.
    """

    since: int = 0
    until: int = 0
    tail: int = -1
    follow: bool = False
    ended: Callable[[], bool] = lambda: True
    wait: Callable[[float], None] = lambda seconds: None


class LogTraits(NamedTuple):
    """What kind of driver it is.

    Attributes:
        readable: it implements ``log_read``.
        discards: it keeps nothing, on purpose; the shim need not split lines.
        remote: it sends records to a receiver that may be down.
    """

    readable: bool = False
    discards: bool = False
    remote: bool = False


class LogHooks:
    """What a log driver may implement; open and write must be."""

    @hookspec(firstresult=True)
    def log_probe(self) -> bool | None:
        """Find out whether this host can carry the driver.

        Raises:
            NotSupported: it cannot; the message says what is missing and how to get it.
        """

    @hookspec(firstresult=True)
    def log_traits(self) -> LogTraits:
        """Optional: what kind of driver it is."""

    @hookspec(firstresult=True)
    def log_options(self) -> Sequence[Option]:
        """Optional: the driver's own options; those common to all are the engine's."""

    @hookspec(firstresult=True)
    def log_validate(self, options: Options) -> bool | None:
        """Optional: check what the schema cannot say. No I/O: receivers may be down.

        Raises:
            InvalidArgument: names the option and the value.
        """

    @hookspec(firstresult=True)
    def log_open(self, context: LogContext, options: Options) -> bool | None:
        """Start to log for one container; append to what an earlier start left.

        Raises:
            Unavailable: the receiver does not answer; the container starts all the same.
        """

    @hookspec(firstresult=True)
    def log_connect(self) -> bool | None:
        """Optional: make sure that the receiver answers now.

        Called after ``log_open`` when the user wants the container to start with its receiver or
        not at all (``strict-start``).

        Raises:
            Unavailable: it does not answer; the message says which.
        """

    @hookspec(firstresult=True)
    def log_write(self, batch: Batch) -> bool | None:
        """Take some lines. They may be kept in memory until ``log_flush``.

        Raises:
            Unavailable: nothing of the batch was taken; the engine keeps it, and tries again. A
                driver that took the first lines removes those from ``batch.lines``.
            Exhausted: no space; as above. An ``OSError`` that says so becomes this.
        """

    @hookspec(firstresult=True)
    def log_flush(self) -> bool | None:
        """Optional: bring what is in memory to its place, now. Called when output pauses."""

    @hookspec(firstresult=True)
    def log_close(self) -> bool | None:
        """Optional: the container has ended. Flushes, within 5 s. May be called twice."""

    @hookspec(firstresult=True)
    def log_read(
        self, context: LogContext, options: Options, query: LogQuery
    ) -> Iterator[Record] | None:
        """Optional: read back, oldest first. Closing the iterator frees what it holds.

        A follow that starts in mid-stream has no gap and no duplicate, over rotations too. A
        record that a crash cut in half is skipped, and the rest stays readable.
        """

    @hookspec(firstresult=True)
    def log_remove(self, context: LogContext, options: Options) -> bool | None:
        """Optional: the container is removed; drop what is outside ``context.directory``."""
