"""Checks of log drivers that read back: tails, times, follows, rotation."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator

from drivetrain.log import Batch, LogQuery, Record
from drivetrain.testing.base import needs, when
from drivetrain.testing.hosts import eventually
from drivetrain.testing.log.kit import (
    PIECE,
    SECOND,
    START,
    LogKit,
    keeps,
    numbers_of,
    pieces,
    rotates,
)


class Reading(LogKit):
    """What ``log_read`` gives back, also while the driver writes."""

    @needs("log_read")
    @when(keeps)
    def test_a_tail_has_the_last_lines(self) -> None:
        self.filled()
        for tail, expected in ((0, 0), (1, 1), (99, 99), (100, 100), (101, 100), (-1, 100)):
            found = numbers_of(self.records(LogQuery(tail=tail)))
            assert found == list(range(100 - expected, 100))

    @needs("log_read")
    @when(keeps)
    def test_a_line_in_pieces_counts_once_in_a_tail(self) -> None:
        driver = self.filled(3)
        for batch in pieces("stdout", b"z" * 40_000):
            self.write(driver, batch)
        self.write(driver, Batch("stderr", START + 9 * SECOND, [b"last"]))
        driver.call.log_close()
        self.came(7)
        sizes = [len(record.line) for record in self.records(LogQuery(tail=2))]
        assert sizes == [PIECE, PIECE, 40_000 - 2 * PIECE, 4]

    @needs("log_read")
    @when(keeps)
    def test_since_and_until_include_their_edges(self) -> None:
        self.filled()
        since, until = START + 10 * SECOND, START + 20 * SECOND
        assert numbers_of(self.records(LogQuery(since=since))) == list(range(10, 100))
        assert numbers_of(self.records(LogQuery(since=since + 1))) == list(range(11, 100))
        assert numbers_of(self.records(LogQuery(until=until))) == list(range(21))
        both = LogQuery(since=since, until=until, tail=3)
        assert numbers_of(self.records(both)) == [18, 19, 20]

    @needs("log_read")
    @when(keeps)
    def test_a_clock_that_steps_back_loses_nothing(self) -> None:
        driver = self.open()
        times = [START + 50, START - 3600 * SECOND, START + 60, START - 7200 * SECOND]
        for number, moment in enumerate(times):
            self.write(driver, Batch("stdout", moment, [b"%d" % number]))
        driver.call.log_close()
        self.came(4)
        assert numbers_of(self.records()) == [0, 1, 2, 3]
        assert numbers_of(self.records(LogQuery(tail=2))) == [2, 3]
        assert numbers_of(self.records(LogQuery(since=START))) == [0, 2]

    @needs("log_read")
    @when(keeps)
    def test_a_follow_begins_before_there_is_anything(self) -> None:
        reader = Follower(self.reading)
        driver = self.open()
        for number in range(5):
            self.write(driver, Batch("stdout", START + number, [b"%d" % number]))
        driver.call.log_flush()
        assert reader.ended_with(5) == [0, 1, 2, 3, 4]

    @needs("log_read")
    @when(keeps)
    def test_a_follow_in_mid_stream_has_no_gap_and_no_duplicate(self) -> None:
        driver = self.open()
        readers = []
        for number in range(300):
            self.write(driver, Batch("stdout", START + number, [b"%d" % number]))
            if number % 60 == 30:
                driver.call.log_flush()
                readers.append(Follower(self.reading))
        driver.call.log_flush()
        for reader in readers:
            assert reader.ended_with(300) == list(range(300))

    @needs("log_read")
    @when(keeps)
    def test_a_tail_is_followed(self) -> None:
        driver = self.filled(20)
        reader = Follower(self.reading, tail=3)
        reader.wait(3)
        self.write(driver, Batch("stdout", START + 99 * SECOND, [b"20"]))
        driver.call.log_flush()
        assert reader.ended_with(4) == [17, 18, 19, 20]

    @needs("log_read")
    @when(keeps)
    def test_a_follow_ends_at_until(self) -> None:
        self.filled(20)
        reader = Follower(self.reading, until=START + 5 * SECOND)
        reader.thread.join(30)
        assert not reader.thread.is_alive()
        assert reader.numbers() == [0, 1, 2, 3, 4, 5]

    @needs("log_read")
    @when(keeps)
    def test_a_reader_that_is_closed_frees_what_it_holds(self) -> None:
        self.filled(20)
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(5):
            records = self.reading(LogQuery(follow=True, ended=lambda: False))
            next(records)
            records.close()  # type: ignore[attr-defined]
        assert len(os.listdir("/proc/self/fd")) == before

    @when(rotates)
    def test_rotation_keeps_the_newest_and_is_followed_without_a_gap(self) -> None:
        for compress in ("false", "true"):
            given = {"max_size": "4k", "max_file": "100", "compress": compress}
            driver = self.open(**given)
            reader = Follower(self._reading_with(given))
            for number in range(2000):
                self.write(driver, Batch("stdout", START + number, [b"%d" % number]))
            assert reader.ended_with(2000) == list(range(2000))
            driver.call.log_close()
            assert numbers_of(self.records(LogQuery(), **given)) == list(range(2000))
            query = LogQuery(tail=700)
            assert numbers_of(self.records(query, **given)) == list(range(1300, 2000))
            self.context = self.context._replace(directory=self.folder / compress)
            self.context.directory.mkdir()

    def _reading_with(self, given: dict[str, str]) -> Callable[[LogQuery], Iterator[Record]]:
        return lambda query: self.reading(query, **given)

    @when(rotates)
    def test_rotation_bounds_what_is_kept(self) -> None:
        given = {"max_size": "4k", "max_file": "3"}
        driver = self.open(**given)
        for number in range(3000):
            self.write(driver, Batch("stdout", START + number, [b"%d" % number]))
        driver.call.log_close()
        size = sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())
        assert size < 5 * 4096
        numbers = numbers_of(self.records(LogQuery(), **given))
        assert numbers == list(range(3000 - len(numbers), 3000))


class Follower:
    """A follow in a thread of its own; lines are numbers."""

    def __init__(self, reading: Callable[[LogQuery], Iterator[Record]], **query: int) -> None:
        self._end = threading.Event()
        self._records: list[Record] = []
        self._iterate = reading
        self._query = LogQuery(
            follow=True,
            ended=self._end.is_set,
            wait=lambda seconds: time.sleep(min(seconds, 0.01)),
            **query,
        )
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        for record in self._iterate(self._query):
            self._records.append(record)

    def numbers(self) -> list[int]:
        """Return what came so far."""
        return [int(record.line) for record in self._records]

    def wait(self, count: int) -> None:
        """Wait for so many records."""
        eventually(lambda: len(self._records) >= count, f"a follow gets {count} records")

    def ended_with(self, count: int) -> list[int]:
        """Wait for so many records, say that the container has ended, and return all numbers."""
        try:
            self.wait(count)
        finally:
            self._end.set()
            self.thread.join(30)
        assert not self.thread.is_alive()
        return self.numbers()
