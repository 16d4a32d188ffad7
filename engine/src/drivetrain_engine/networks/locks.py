"""Who waits for whom: a lock for each container and each network, and a gate for each driver.

Whoever changes a container's sandbox holds its lock. While it joins or leaves one of its networks
it also passes the gate of that network's driver and holds the network's lock, for one network after
the other. So a driver sees one call at a time for a network, a slow one keeps others waiting for
that network only, and nobody who holds a network waits for anything but the driver itself: there is
no circle. What needs all networks of a driver to stand still goes through its gate alone.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class _Entry:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.users = 0


class Locks:
    """One lock for each key, kept while somebody holds it or waits for it."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._entries: dict[str, _Entry] = {}

    @contextmanager
    def hold(self, key: str) -> Iterator[None]:
        """Hold the lock of a key, which the thread does not hold yet."""
        entry = self._enter(key)
        try:
            with entry.lock:
                yield
        finally:
            self._leave(key, entry)

    @contextmanager
    def hold_if_free(self, key: str) -> Iterator[bool]:
        """Hold the lock of a key, or say at once that somebody else does."""
        entry = self._enter(key)
        held = entry.lock.acquire(blocking=False)
        try:
            yield held
        finally:
            if held:
                entry.lock.release()
            self._leave(key, entry)

    def _enter(self, key: str) -> _Entry:
        with self._guard:
            entry = self._entries.setdefault(key, _Entry())
            entry.users += 1
            return entry

    def _leave(self, key: str, entry: _Entry) -> None:
        with self._guard:
            entry.users -= 1
            if not entry.users:
                del self._entries[key]


class Gate:
    """Many pass at once, or one goes through alone; who waits to be alone goes first."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._passing = 0
        self._loners = 0
        self._alone = False

    @contextmanager
    def passing(self) -> Iterator[None]:
        """Be one of many; not twice in one thread."""
        with self._changed:
            self._changed.wait_for(lambda: not self._loners)
            self._passing += 1
        try:
            yield
        finally:
            with self._changed:
                self._passing -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Be the only one."""
        with self._changed:
            self._loners += 1
            self._changed.wait_for(lambda: not self._passing and not self._alone)
            self._alone = True
        try:
            yield
        finally:
            with self._changed:
                self._alone = False
                self._loners -= 1
                self._changed.notify_all()
