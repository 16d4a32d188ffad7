"""Checks of log drivers: what they say of themselves, and what comes out."""

from __future__ import annotations

import sys
import threading
from typing import ClassVar

import pytest

from drivetrain.errors import InvalidArgument
from drivetrain.log import Batch, Partial, Stream
from drivetrain.testing.base import needs, when
from drivetrain.testing.log.kit import ODD_LINES, START, LogKit, keeps, on_this_host, pieces, remote


class Output(LogKit):
    """What a driver says of itself, and what comes out of it."""

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
        with audited() as seen:
            driver.call.log_validate(options)
        assert seen == []

    # what comes out

    @when(keeps)
    def test_lines_come_out_in_order_and_once(self) -> None:
        driver = self.open()
        for number in range(50):
            lines = [b"%d.%d" % (number, place) for place in range(20)]
            self.write(driver, Batch("stdout", START + number, lines))
        driver.call.log_flush()
        expected = [f"{number}.{place}" for number in range(50) for place in range(20)]
        assert self.texts(1000) == (expected if self.ordered else sorted(expected))

    @when(keeps)
    def test_two_streams_keep_their_order_and_are_told_apart(self) -> None:
        driver = self.open()
        for number in range(40):
            stream: Stream = "stderr" if number % 3 == 0 else "stdout"
            self.write(driver, Batch(stream, START + number, [b"%d" % number]))
        driver.call.log_flush()
        assert [int(text) for text in self.texts(40, "stderr")] == sorted(range(0, 40, 3))
        assert len(self.texts(40, "stdout")) == 26

    @when(keeps)
    def test_empty_binary_and_invalid_lines_come_out(self) -> None:
        driver = self.open()
        for line in ODD_LINES:
            self.write(driver, Batch("stdout", START, [line]))
        driver.call.log_flush()
        expected = [line.decode("utf-8", "replace") for line in ODD_LINES]
        assert self.texts(len(ODD_LINES)) == (expected if self.ordered else sorted(expected))

    @when(on_this_host)
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

    @when(keeps)
    def test_pieces_of_a_long_line_come_out_in_order(self) -> None:
        driver = self.open()
        line = b"".join(b"%07d " % number for number in range(6250))
        for batch in pieces("stdout", line):
            self.write(driver, batch)
        self.write(driver, Batch("stdout", START + 1, [b"after"]))
        driver.call.log_flush()
        assert self.ordered is False or "".join(self.texts(5)) == line.decode() + "after"

    @needs("log_read")
    @when(keeps)
    def test_pieces_are_read_back_as_pieces(self) -> None:
        driver = self.open()
        for batch in pieces("stderr", b"y" * 40_000):
            self.write(driver, batch)
        unfinished = Partial("cd" * 32, 1, False)
        self.write(driver, Batch("stdout", START + 1, [b"no newline"], unfinished))
        driver.call.log_close()
        self.came(4)
        found = self.records()
        ends = [record.partial is None or record.partial.last for record in found]
        assert ends == [False, False, True, False]
        assert {record.time for record in found[:3]} == {START}

    @when(keeps)
    def test_attributes_and_tags_come_out(self) -> None:
        driver = self.open()
        self.write(driver, Batch("stdout", START, [b"hello"]))
        driver.call.log_close()
        if remote(driver):
            raw = self.came(1)[0].raw
            assert "web/1" in raw
        else:
            assert (self.records()[0].attributes or {})["team"] == "blue"

    @when(keeps)
    def test_a_restart_appends(self) -> None:
        for number in range(3):
            driver = self.open()
            self.write(driver, Batch("stdout", START + number, [b"run %d" % number]))
            driver.call.log_close()
            driver.call.log_close()
        expected = ["run 0", "run 1", "run 2"]
        assert self.texts(3) == expected


class audited:  # noqa: N801 - used as a function
    """What of files and sockets is touched by this thread meanwhile."""

    _seen: ClassVar[dict[int, list[str]]] = {}
    _installed: ClassVar[bool] = False

    def __enter__(self) -> list[str]:
        if not audited._installed:
            audited._installed = True
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
