"""Checks of log drivers in trouble: crashes, full disks, receivers that are away or stall."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import threading
import time

import pytest

from drivetrain.errors import Exhausted, Unavailable
from drivetrain.log import Batch
from drivetrain.testing.base import when
from drivetrain.testing.log.kit import START, LogKit, keeps, numbers_of, on_this_host, remote


class Trouble(LogKit):
    """What is kept whatever happens."""

    @when(on_this_host)
    def test_a_crash_in_mid_write_leaves_the_rest_readable(self) -> None:
        for run in range(3):
            self._crash(run)
        driver = self.open()
        self.write(driver, Batch("stdout", START, [b"-1"]))
        driver.call.log_close()
        numbers = numbers_of(self.records())
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

    @when(on_this_host)
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
            assert numbers_of(self.records()) == list(range(written))
        finally:
            subprocess.run(["umount", place], check=True)

    @when(remote)
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

    @when(remote)
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

    @when(remote)
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

    @when(keeps)
    def test_closing_takes_bounded_time_also_without_a_receiver(self) -> None:
        driver = self.open()
        self.write(driver, Batch("stdout", START, [b"text"]))
        if self.receiver is not None:
            self.receiver.stop()
        begun = time.monotonic()
        driver.call.log_close()
        # The contract says 5 s; the machine may be busy.
        assert time.monotonic() - begun < 20
