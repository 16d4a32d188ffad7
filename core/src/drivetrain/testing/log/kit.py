"""What all checks of log drivers stand on: a driver at work, its receiver, lines and numbers."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from drivetrain.calling import Driver
from drivetrain.errors import Unavailable
from drivetrain.log import Batch, LogContext, LogHooks, LogQuery, Partial, Record, Stream
from drivetrain.testing.base import Conformance
from drivetrain.testing.logreceivers import Received, Receiver

SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND
PIECE = 16 << 10
ODD_LINES = (b"plain", b"", "gr\u00fc\u00dfe".encode(), b"\xff\xfe bytes", b"\ttab  ", b"x" * 9999)


def keeps(driver: Driver[LogHooks]) -> bool:
    """Whether anything comes out."""
    return not driver.call.log_traits().discards


def remote(driver: Driver[LogHooks]) -> bool:
    """Whether there is a receiver."""
    return driver.call.log_traits().remote


def on_this_host(driver: Driver[LogHooks]) -> bool:
    """Whether it writes here what it reads back."""
    return driver.implements("log_read") and keeps(driver) and not remote(driver)


def rotates(driver: Driver[LogHooks]) -> bool:
    """Whether it has files that are bounded."""
    names = {option.name for option in driver.call.log_options()}
    return on_this_host(driver) and {"max-size", "max-file"} <= names


class LogKit(Conformance):
    """A driver at work for a container, and the receiver of what it sends.

    Attributes:
        receiver_type: where records go, for drivers that send.
        exact_bytes: lines come back as they were; false: what is not UTF-8 becomes U+FFFD.
        ordered: records arrive in order and once; false for UDP.
        acknowledged: the receiver says what it has, so that a cut connection costs no record.
    """

    family = "log"
    receiver_type: ClassVar[type[Receiver] | None] = None
    exact_bytes: ClassVar[bool] = False
    ordered: ClassVar[bool] = True
    acknowledged: ClassVar[bool] = False

    @pytest.fixture(autouse=True)
    def _prepared(self) -> Iterator[None]:
        with tempfile.TemporaryDirectory(prefix="lk-", dir="/tmp") as name:
            self.folder = Path(name)
            self.context = LogContext(
                os.urandom(32).hex(),
                "web",
                self.folder,
                image_name="busybox",
                tag="web/1",
                host="here",
                attributes={"team": "blue"},
            )
            self.receiver = self.receiver_type(self.folder) if self.receiver_type else None
            if self.receiver is not None:
                self.receiver.container_id = self.context.container_id
                self.receiver.start()
            self.opened: list[Driver[LogHooks]] = []
            try:
                yield
            finally:
                for driver in self.opened:
                    driver.call.log_close()
                if self.receiver is not None:
                    self.receiver.close()

    def given(self, **extra: str) -> dict[str, str]:
        """Return the user's options: those of the class, of the receiver, and further ones."""
        received = dict(self.receiver.options) if self.receiver is not None else {}
        return {**received, **self.options, **{k.replace("_", "-"): v for k, v in extra.items()}}

    def open(self, **extra: str) -> Driver[LogHooks]:
        """Return a driver at work for the container."""
        driver: Driver[LogHooks] = self.new_driver()
        driver.call.log_open(self.context, self.parsed(driver, "log_options", self.given(**extra)))
        self.opened.append(driver)
        return driver

    def write(self, driver: Driver[LogHooks], batch: Batch, patience: float = 30) -> None:
        """Write a batch as the engine does: again and again while the receiver is down."""
        deadline = time.monotonic() + patience
        while True:
            try:
                driver.call.log_write(batch)
                return
            except Unavailable:
                assert time.monotonic() < deadline
                time.sleep(0.05)

    def records(self, query: LogQuery | None = None, **extra: str) -> list[Record]:
        """Read back with an instance of its own."""
        return list(self.reading(query or LogQuery(), **extra))

    def reading(self, query: LogQuery, **extra: str) -> Iterator[Record]:
        """Begin to read back."""
        driver: Driver[LogHooks] = self.new_driver()
        options = self.parsed(driver, "log_options", self.given(**extra))
        found = driver.call.log_read(self.context, options, query)
        assert found is not None
        return found

    def came(self, count: int) -> list[Received]:
        """Return what came out, once there are ``count`` records."""
        if self.receiver is not None:
            return self.receiver.wait(count)
        found = self.records()
        assert len(found) >= count
        return [
            Received(r.stream, r.line.decode("utf-8", "replace"), str(r.attributes)) for r in found
        ]

    def texts(self, count: int, stream: Stream | None = None) -> list[str]:
        """Return the texts that came out, of one stream or of both."""
        came = self.came(count)
        found = [record.text for record in came if stream in (None, record.stream)]
        return found if self.ordered else sorted(found)

    def filled(self, count: int = 100) -> Driver[LogHooks]:
        """Return an open driver that was given numbered lines, a second apart."""
        driver = self.open()
        for number in range(count):
            stream: Stream = "stderr" if number % 2 else "stdout"
            self.write(driver, Batch(stream, START + number * SECOND, [b"%d" % number]))
        driver.call.log_flush()
        self.came(count)
        return driver


def pieces(stream: Stream, line: bytes) -> Iterator[Batch]:
    """Yield a long line as the engine cuts it."""
    places = range(0, len(line), PIECE)
    for ordinal, place in enumerate(places, 1):
        partial = Partial("ab" * 32, ordinal, ordinal == len(places))
        yield Batch(stream, START, [line[place : place + PIECE]], partial)


def numbers_of(records: list[Record]) -> list[int]:
    """Return the numbers that lines are."""
    return [int(record.line) for record in records]
