"""Programs that go on with their work on a directory after who started them was killed.

Who starts a program that fills a directory lets it inherit a lock, by ``working``; who finds the
directory half done after a crash calls ``end`` before it is removed or used::

    with orphans.working(folder) as lock:
        subprocess.run(["cp", "-a", source, folder], pass_fds=(lock,))

A lock is held as long as any process has it open, so no program is missed, however the moments of
its start and of the kill fall.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from drivetrain.errors import Unavailable

_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
#: How long a killed program may take to end, seconds: it may wait for a slow disk.
PATIENCE = 60.0


@contextlib.contextmanager
def working(place: Path) -> Iterator[int]:
    """Yield a descriptor that the program has to inherit (``pass_fds``).

    Args:
        place: a directory or file that exists; locks on one place do not hinder each other.
    """
    descriptor = os.open(place, _FLAGS)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield descriptor
    finally:
        os.close(descriptor)


def end(place: Path, patience: float = PATIENCE) -> None:
    """Kill the programs at work on a place and wait until they have ended; none is fine.

    Called by who knows that nobody else is at work there any more.

    Raises:
        Unavailable: one of them does not end within ``patience`` seconds.
    """
    descriptor = os.open(place, _FLAGS)
    try:
        deadline = time.monotonic() + patience
        while not _free(descriptor):
            holders = _holders(place)
            if time.monotonic() > deadline:
                raise Unavailable(f"{place} is still being written by process {holders}")
            for holder in holders:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(holder, signal.SIGKILL)
            time.sleep(0.002)
    finally:
        os.close(descriptor)


def _free(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holders(place: Path) -> list[int]:
    """Return the other processes that have the lock open."""
    wanted = os.stat(place)
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        if process.name != str(os.getpid()) and _holds(process, wanted):
            found.append(int(process.name))
    return found


def _holds(process: Path, wanted: os.stat_result) -> bool:
    try:
        for entry in os.scandir(process / "fd"):
            try:
                same = os.path.samestat(os.stat(entry.path), wanted)
            except OSError:
                continue
            if same and "FLOCK" in (process / "fdinfo" / entry.name).read_text():
                return True
    except OSError:  # it has ended
        pass
    return False
