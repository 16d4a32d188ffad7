"""The conformance kit of log drivers.

For a driver that writes on this host, three lines make a suite::

    from drivetrain.testing.log import LogConformance

    class TestMine(LogConformance):
        driver = "mine"

One that sends needs a receiver as well, see :mod:`drivetrain.testing.logreceivers`::

    class TestSyslog(LogConformance):
        driver = "syslog"
        receiver_type = Rsyslog

Every check writes what the engine's splitter would, and looks at what came out: at the receiver
where there is one, by ``log_read`` otherwise.
"""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from drivetrain.calling import Driver
from drivetrain.errors import Exhausted, InvalidArgument, Unavailable
from drivetrain.log import Batch, LogContext, LogHooks, LogQuery, Partial, Record, Stream
from drivetrain.testing.base import Conformance, needs, when
from drivetrain.testing.hosts import eventually
from drivetrain.testing.logreceivers import Received, Receiver

SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND
PIECE = 16 << 10
ODD_LINES = (b"plain", b"", "gr\u00fc\u00dfe".encode(), b"\xff\xfe bytes", b"\ttab  ", b"x" * 9999)


def _keeps(driver: Driver[LogHooks]) -> bool:
    return not driver.call.log_traits().discards


def _remote(driver: Driver[LogHooks]) -> bool:
    return driver.call.log_traits().remote


def _on_this_host(driver: Driver[LogHooks]) -> bool:
    return driver.implements("log_read") and _keeps(driver) and not _remote(driver)


def _rotates(driver: Driver[LogHooks]) -> bool:
    names = {option.name for option in driver.call.log_options()}
    return _on_this_host(driver) and {"max-size", "max-file"} <= names


class LogConformance(Conformance):
    """What every log driver has to do; see ``drivetrain.log``.

    Attributes:
        receiver_type: where records go, for drivers that send.
        exact_bytes: lines come back as they were; false: what is not UTF-8 becomes U+FFFD.
        ordered: records arrive in order and once; false for UDP.
    """

    family = "log"
    receiver_type: ClassVar[type[Receiver] | None] = None
    exact_bytes: ClassVar[bool] = False
    ordered: ClassVar[bool] = True

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

    # what it says of itself

    def test_options_have_unique_names_and_a_help(self) -> None:
        schema = self.new_driver().call.log_options()
        names = [option.name for option in schema]
        assert len(set(names)) == len(names)
        assert all(option.help for option in schema if option.retired is None)

    def test_an_unknown_option_and_a_bad_value_are_named(self) -> None:
        driver = self.new_driver()
        with pytest.raises(InvalidArgument, match="no-such-option"):
            self.parsed(driver, "log_options", self.given(no_such_option="1"))
        for option in driver.call.log_options():
            typed = option.type in ("integer", "size", "duration", "boolean", "choice")
            if typed and option.retired is None:
                given = {**self.given(), option.name: "what?"}
                with pytest.raises(InvalidArgument, match=option.name):
                    self.parsed(driver, "log_options", given)

    def test_validation_does_no_io(self) -> None:
        driver = self.new_driver()
        options = self.parsed(driver, "log_options", self.given())
        driver.call.log_validate(options)
        with _audited() as seen:
            driver.call.log_validate(options)
        assert seen == []

    # what comes out

    @when(_keeps)
    def test_lines_come_out_in_order_and_once(self) -> None:
        driver = self.open()
        for number in range(50):
            lines = [b"%d.%d" % (number, place) for place in range(20)]
            self.write(driver, Batch("stdout", START + number, lines))
        driver.call.log_flush()
        expected = [f"{number}.{place}" for number in range(50) for place in range(20)]
        assert self.texts(1000) == (expected if self.ordered else sorted(expected))

    @when(_keeps)
    def test_two_streams_keep_their_order_and_are_told_apart(self) -> None:
        driver = self.open()
        for number in range(40):
            stream: Stream = "stderr" if number % 3 == 0 else "stdout"
            self.write(driver, Batch(stream, START + number, [b"%d" % number]))
        driver.call.log_flush()
        assert [int(text) for text in self.texts(40, "stderr")] == sorted(range(0, 40, 3))
        assert len(self.texts(40, "stdout")) == 26

    @when(_keeps)
    def test_empty_binary_and_invalid_lines_come_out(self) -> None:
        driver = self.open()
        for line in ODD_LINES:
            self.write(driver, Batch("stdout", START, [line]))
        driver.call.log_flush()
        expected = [line.decode("utf-8", "replace") for line in ODD_LINES]
        assert self.texts(len(ODD_LINES)) == (expected if self.ordered else sorted(expected))

    @when(_on_this_host)
    def test_bytes_come_back_as_they_were(self) -> None:
        driver = self.open()
        self.write(driver, Batch("stdout", START, [bytes(range(11, 256)), b"\x00\xff"]))
        driver.call.log_close()
        lines = [record.line for record in self.records()]
        if self.exact_bytes:
            assert lines == [bytes(range(11, 256)), b"\x00\xff"]
        else:
            assert [line.decode() for line in lines] == [
                bytes(range(11, 256)).decode("utf-8", "replace"),
                "\x00\ufffd",
            ]

    @when(_keeps)
    def test_pieces_of_a_long_line_come_out_in_order(self) -> None:
        driver = self.open()
        line = b"".join(b"%07d " % number for number in range(6250))
        for batch in _pieces("stdout", line):
            self.write(driver, batch)
        self.write(driver, Batch("stdout", START + 1, [b"after"]))
        driver.call.log_flush()
        assert self.ordered is False or "".join(self.texts(5)) == line.decode() + "after"

    @needs("log_read")
    @when(_keeps)
    def test_pieces_are_read_back_as_pieces(self) -> None:
        driver = self.open()
        for batch in _pieces("stderr", b"y" * 40_000):
            self.write(driver, batch)
        unfinished = Partial("cd" * 32, 1, False)
        self.write(driver, Batch("stdout", START + 1, [b"no newline"], unfinished))
        driver.call.log_close()
        self.came(4)
        found = self.records()
        ends = [record.partial is None or record.partial.last for record in found]
        assert ends == [False, False, True, False]
        assert {record.time for record in found[:3]} == {START}

    @when(_keeps)
    def test_attributes_and_tags_come_out(self) -> None:
        driver = self.open()
        self.write(driver, Batch("stdout", START, [b"hello"]))
        driver.call.log_close()
        if _remote(driver):
            raw = self.came(1)[0].raw
            assert "web/1" in raw
        else:
            assert (self.records()[0].attributes or {})["team"] == "blue"

    @when(_keeps)
    def test_a_restart_appends(self) -> None:
        for number in range(3):
            driver = self.open()
            self.write(driver, Batch("stdout", START + number, [b"run %d" % number]))
            driver.call.log_close()
            driver.call.log_close()
        expected = ["run 0", "run 1", "run 2"]
        assert self.texts(3) == expected

    # reading

    def _filled(self, count: int = 100) -> Driver[LogHooks]:
        """Return an open driver that was given numbered lines, a second apart."""
        driver = self.open()
        for number in range(count):
            stream: Stream = "stderr" if number % 2 else "stdout"
            self.write(driver, Batch(stream, START + number * SECOND, [b"%d" % number]))
        driver.call.log_flush()
        self.came(count)
        return driver

    @staticmethod
    def _numbers(records: list[Record]) -> list[int]:
        return [int(record.line) for record in records]

    @needs("log_read")
    @when(_keeps)
    def test_a_tail_has_the_last_lines(self) -> None:
        self._filled()
        for tail, expected in ((0, 0), (1, 1), (99, 99), (100, 100), (101, 100), (-1, 100)):
            found = self._numbers(self.records(LogQuery(tail=tail)))
            assert found == list(range(100 - expected, 100))

    @needs("log_read")
    @when(_keeps)
    def test_a_line_in_pieces_counts_once_in_a_tail(self) -> None:
        driver = self._filled(3)
        for batch in _pieces("stdout", b"z" * 40_000):
            self.write(driver, batch)
        self.write(driver, Batch("stderr", START + 9 * SECOND, [b"last"]))
        driver.call.log_close()
        self.came(7)
        sizes = [len(record.line) for record in self.records(LogQuery(tail=2))]
        assert sizes == [PIECE, PIECE, 40_000 - 2 * PIECE, 4]

    @needs("log_read")
    @when(_keeps)
    def test_since_and_until_include_their_edges(self) -> None:
        self._filled()
        since, until = START + 10 * SECOND, START + 20 * SECOND
        assert self._numbers(self.records(LogQuery(since=since))) == list(range(10, 100))
        assert self._numbers(self.records(LogQuery(since=since + 1))) == list(range(11, 100))
        assert self._numbers(self.records(LogQuery(until=until))) == list(range(21))
        both = LogQuery(since=since, until=until, tail=3)
        assert self._numbers(self.records(both)) == [18, 19, 20]

    @needs("log_read")
    @when(_keeps)
    def test_a_clock_that_steps_back_loses_nothing(self) -> None:
        driver = self.open()
        times = [START + 50, START - 3600 * SECOND, START + 60, START - 7200 * SECOND]
        for number, moment in enumerate(times):
            self.write(driver, Batch("stdout", moment, [b"%d" % number]))
        driver.call.log_close()
        self.came(4)
        assert self._numbers(self.records()) == [0, 1, 2, 3]
        assert self._numbers(self.records(LogQuery(tail=2))) == [2, 3]
        assert self._numbers(self.records(LogQuery(since=START))) == [0, 2]

    @needs("log_read")
    @when(_keeps)
    def test_a_follow_begins_before_there_is_anything(self) -> None:
        reader = _Follower(self.reading)
        driver = self.open()
        for number in range(5):
            self.write(driver, Batch("stdout", START + number, [b"%d" % number]))
        driver.call.log_flush()
        assert reader.ended_with(5) == [0, 1, 2, 3, 4]

    @needs("log_read")
    @when(_keeps)
    def test_a_follow_in_mid_stream_has_no_gap_and_no_duplicate(self) -> None:
        driver = self.open()
        readers = []
        for number in range(300):
            self.write(driver, Batch("stdout", START + number, [b"%d" % number]))
            if number % 60 == 30:
                driver.call.log_flush()
                readers.append(_Follower(self.reading))
        driver.call.log_flush()
        for reader in readers:
            assert reader.ended_with(300) == list(range(300))

    @needs("log_read")
    @when(_keeps)
    def test_a_tail_is_followed(self) -> None:
        driver = self._filled(20)
        reader = _Follower(self.reading, tail=3)
        reader.wait(3)
        self.write(driver, Batch("stdout", START + 99 * SECOND, [b"20"]))
        driver.call.log_flush()
        assert reader.ended_with(4) == [17, 18, 19, 20]

    @needs("log_read")
    @when(_keeps)
    def test_a_follow_ends_at_until(self) -> None:
        self._filled(20)
        reader = _Follower(self.reading, until=START + 5 * SECOND)
        reader.thread.join(30)
        assert not reader.thread.is_alive()
        assert reader.numbers() == [0, 1, 2, 3, 4, 5]

    @needs("log_read")
    @when(_keeps)
    def test_a_reader_that_is_closed_frees_what_it_holds(self) -> None:
        self._filled(20)
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(5):
            records = self.reading(LogQuery(follow=True, ended=lambda: False))
            next(records)
            records.close()  # type: ignore[attr-defined]
        assert len(os.listdir("/proc/self/fd")) == before

    @when(_rotates)
    def test_rotation_keeps_the_newest_and_is_followed_without_a_gap(self) -> None:
        for compress in ("false", "true"):
            given = {"max_size": "4k", "max_file": "100", "compress": compress}
            driver = self.open(**given)
            reader = _Follower(self._reading_with(given))
            for number in range(2000):
                self.write(driver, Batch("stdout", START + number, [b"%d" % number]))
            assert reader.ended_with(2000) == list(range(2000))
            driver.call.log_close()
            assert self._numbers(self.records(LogQuery(), **given)) == list(range(2000))
            query = LogQuery(tail=700)
            assert self._numbers(self.records(query, **given)) == list(range(1300, 2000))
            self.context = self.context._replace(directory=self.folder / compress)
            self.context.directory.mkdir()

    def _reading_with(self, given: dict[str, str]) -> Callable[[LogQuery], Iterator[Record]]:
        return lambda query: self.reading(query, **given)

    @when(_rotates)
    def test_rotation_bounds_what_is_kept(self) -> None:
        given = {"max_size": "4k", "max_file": "3"}
        driver = self.open(**given)
        for number in range(3000):
            self.write(driver, Batch("stdout", START + number, [b"%d" % number]))
        driver.call.log_close()
        size = sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())
        assert size < 5 * 4096
        numbers = self._numbers(self.records(LogQuery(), **given))
        assert numbers == list(range(3000 - len(numbers), 3000))

    # trouble

    @when(_on_this_host)
    def test_a_crash_in_mid_write_leaves_the_rest_readable(self) -> None:
        for run in range(3):
            self._crash(run)
        driver = self.open()
        self.write(driver, Batch("stdout", START, [b"-1"]))
        driver.call.log_close()
        numbers = self._numbers(self.records())
        assert numbers[-1] == -1
        runs = [list(group) for _, group in itertools.groupby(numbers[:-1], lambda n: n // 10**9)]
        assert [run[0] for run in runs] == [0, 10**9, 2 * 10**9]
        assert all(run == list(range(run[0], run[0] + len(run))) for run in runs)

    def _crash(self, run: int) -> None:
        """Write numbered lines in a process of its own until it is killed."""
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                driver = self.open()
                for number in itertools.count(run * 10**9, 100):
                    lines = [b"%d" % (number + place) for place in range(100)]
                    driver.call.log_write(Batch("stdout", START, lines))
                    os.write(writing, b"x")
            finally:
                os._exit(1)
        os.close(writing)
        seen = 0
        while seen < 200:
            seen += len(os.read(reading, 200))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reading)

    @when(_on_this_host)
    def test_a_full_disk_loses_nothing_that_is_tried_again(self) -> None:
        place = self.folder / "disk"
        place.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", place], check=True)
        try:
            self.context = self.context._replace(directory=place)
            driver = self.open()
            (place / "other").write_bytes(bytes(128 << 10))
            written, full = 0, False
            while not full:
                batch = Batch("stdout", START, [b"%d" % (written + n) for n in range(100)])
                try:
                    driver.call.log_write(batch)
                except Exhausted:
                    full = True
                    (place / "other").unlink()
                    driver.call.log_write(batch)
                written += 100
            driver.call.log_close()
            assert self._numbers(self.records()) == list(range(written))
        finally:
            subprocess.run(["umount", place], check=True)

    @when(_remote)
    def test_a_receiver_that_is_down_is_unavailable(self) -> None:
        assert self.receiver is not None
        self.receiver.stop()
        driver = self.open()
        batch = Batch("stdout", START, [b"kept"])
        with pytest.raises(Unavailable):
            driver.call.log_write(batch)
        assert batch.lines == [b"kept"]
        with pytest.raises(Unavailable):
            self.open().call.log_connect()
        self.receiver.start()
        self.write(driver, batch)
        driver.call.log_flush()
        assert self.texts(1) == ["kept"]

    @when(_remote)
    def test_nothing_is_lost_while_the_receiver_is_away_for_a_while(self) -> None:
        assert self.receiver is not None
        driver = self.open()
        self.write(driver, Batch("stdout", START, [b"0"]))
        driver.call.log_flush()
        self.came(1)
        for number in range(1, 4):
            self.receiver.stop()
            batch = Batch("stdout", START + number, [b"%d" % number])
            with pytest.raises(Unavailable):
                driver.call.log_write(batch)
            self.receiver.start()
            self.write(driver, batch)
            driver.call.log_flush()
            self.came(number + 1)
        assert self.texts(4) == ["0", "1", "2", "3"]

    @when(_remote)
    def test_a_receiver_that_stalls_gets_everything_once(self) -> None:
        receiver = self.receiver
        assert receiver is not None
        driver = self.open()
        self.write(driver, Batch("stdout", START, [b"first"]))
        receiver.freeze()
        timer = threading.Timer(7, receiver.thaw)
        timer.start()
        line = b"x" * 1000
        for number in range(40):
            lines = [b"%d.%d %b" % (number, place, line) for place in range(200)]
            self.write(driver, Batch("stdout", START + number, lines), patience=60)
        driver.call.log_flush()
        timer.join()
        found = [text.partition(" ")[0] for text in self.texts(8001)]
        assert found == ["first", *(f"{n}.{place}" for n in range(40) for place in range(200))]

    @when(_keeps)
    def test_closing_takes_bounded_time_also_without_a_receiver(self) -> None:
        driver = self.open()
        self.write(driver, Batch("stdout", START, [b"text"]))
        if self.receiver is not None:
            self.receiver.stop()
        begun = time.monotonic()
        driver.call.log_close()
        # The contract says 5 s; the machine may be busy.
        assert time.monotonic() - begun < 20


def _pieces(stream: Stream, line: bytes) -> Iterator[Batch]:
    """Yield a long line as the engine cuts it."""
    places = range(0, len(line), PIECE)
    for ordinal, place in enumerate(places, 1):
        partial = Partial("ab" * 32, ordinal, ordinal == len(places))
        yield Batch(stream, START, [line[place : place + PIECE]], partial)


class _Follower:
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


class _audited:  # noqa: N801 - used as a function
    """What of files and sockets is touched by this thread meanwhile."""

    _seen: ClassVar[dict[int, list[str]]] = {}
    _installed: ClassVar[bool] = False

    def __enter__(self) -> list[str]:
        if not _audited._installed:
            _audited._installed = True
            sys.addaudithook(self._hook)
        seen: list[str] = []
        self._seen[threading.get_ident()] = seen
        return seen

    def __exit__(self, *details: object) -> None:
        del self._seen[threading.get_ident()]

    @classmethod
    def _hook(cls, event: str, arguments: tuple[object, ...]) -> None:
        seen = cls._seen.get(threading.get_ident())
        if seen is not None and event.partition(".")[0] in ("open", "socket", "os", "subprocess"):
            seen.append(f"{event} {arguments}")
