"""Waiting for a change of a log's files."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from drivetrain_engine.containers.waking import Watch

#: Seconds; the tests fail by their timeout where a change is not noticed.
LONG = 3600.0


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[Watch]:
    made = Watch(tmp_path)
    made.wait(LONG)  # the first one begins to watch, and returns: something may have changed before
    yield made
    made.close()


@pytest.mark.timeout(60)
def test_a_line_that_is_appended_ends_a_wait(tmp_path: Path, watch: Watch) -> None:
    writer = threading.Timer(0.2, lambda: (tmp_path / "log").write_bytes(b"line\n"))
    writer.start()
    watch.wait(LONG)
    writer.join()
    assert (tmp_path / "log").exists()


@pytest.mark.timeout(60)
def test_what_changed_between_two_waits_ends_the_second(tmp_path: Path, watch: Watch) -> None:
    (tmp_path / "log").write_bytes(b"line\n")
    watch.wait(LONG)


@pytest.mark.timeout(60)
def test_directories_below_are_watched_also_when_they_come_later(
    tmp_path: Path, watch: Watch
) -> None:
    (tmp_path / "local").mkdir()
    watch.wait(LONG)  # it came
    watch.wait(LONG)  # it is watched from now on
    (tmp_path / "local" / "log").write_bytes(b"line\n")
    watch.wait(LONG)


def test_a_wait_without_a_change_ends_and_nothing_stays_open(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    watch = Watch(tmp_path)
    for _ in range(3):
        watch.wait(0.01)
    watch.close()
    assert len(os.listdir("/proc/self/fd")) == before
