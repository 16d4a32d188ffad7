"""Waiting for a change of files, for who follows a log."""

from __future__ import annotations

import ctypes
import os
import select
import time
from pathlib import Path

#: From linux/inotify.h: modified, moved to, created.
_CHANGES = 0x2 | 0x80 | 0x100
#: Seconds between two waits that end early: under load a reader takes many lines at a time.
_BREATH = 0.005
_libc = ctypes.CDLL(None, use_errno=True)


class Watch:
    """Tells when a file in a directory, or in one right below it, has changed.

    Without inotify, of which a user has a limited number, a wait is a sleep.

    Args:
        directory: what is not there yet is watched from the next wait on.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._descriptor = -2
        self._watched: set[Path] = set()
        self._woken = 0.0

    def wait(self, seconds: float) -> None:
        """Return at a change since the last wait, or after so many seconds."""
        if self._descriptor == -2:
            self._descriptor = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        time.sleep(max(0.0, self._woken + _BREATH - time.monotonic()))
        if self._descriptor < 0:
            time.sleep(seconds)
        elif not self._add():
            poll = select.poll()
            poll.register(self._descriptor, select.POLLIN)
            if poll.poll(seconds * 1000):
                os.read(self._descriptor, 1 << 16)
        self._woken = time.monotonic()

    def _add(self) -> bool:
        """Watch what has come; true: something had, and may have changed before."""
        try:
            places = [self._directory, *(e for e in self._directory.iterdir() if e.is_dir())]
        except OSError:
            return False
        fresh = [place for place in places if place not in self._watched]
        for place in fresh:
            _libc.inotify_add_watch(self._descriptor, os.fsencode(place), _CHANGES)
            self._watched.add(place)
        return bool(fresh)

    def close(self) -> None:
        """Stop watching."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -2
