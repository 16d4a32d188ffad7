"""Where records wait for a driver that is not called at once: in memory, or in a spool on disk."""

from __future__ import annotations

import collections
from pathlib import Path
from typing import Protocol

from drivetrain.log import Batch
from drivetrain_engine.containers.shim import spool


class Queue(Protocol):
    """Batches in order; each is looked at, and leaves once it is delivered.

    All methods but ``acquire`` are called with the outlet's lock held.
    """

    def acquire(self) -> bool:
        """Get ready for delivering; false: somebody else delivers still, ask again."""

    def put(self, batch: Batch) -> None:
        """Append. Raises OSError when there is no space."""

    def full(self, size: int = 0) -> bool:
        """Whether so many bytes more are too many."""

    def drop_oldest(self) -> int:
        """Make room; returns the number of lines that are lost."""

    def peek(self) -> Batch | None:
        """Return the oldest batch."""

    def done(self) -> None:
        """It is delivered."""

    def partly(self) -> None:
        """The lines that are not in it any more are delivered."""

    @property
    def waiting(self) -> int:
        """Bytes that are not delivered."""

    @property
    def rescued(self) -> int:
        """Lines that were delivered though ``drop_oldest`` counted them."""

    def close(self, *, writing: bool) -> int:
        """End writing, or reading; returns the lines that are lost by that."""


def size_of(batch: Batch) -> int:
    """Return about how many bytes a batch takes."""
    return sum(map(len, batch.lines)) + 64 * len(batch.lines)


class Memory:
    """A bounded queue in memory: nothing touches a disk.

    Args:
        bound: bytes that may wait.
    """

    rescued = 0

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._batches: collections.deque[Batch] = collections.deque()
        self._taken: Batch | None = None
        self.waiting = 0

    def acquire(self) -> bool:
        return True

    def put(self, batch: Batch) -> None:
        # A driver may take lines away from its batch, which others have, too.
        self._batches.append(batch._replace(lines=list(batch.lines)))
        self.waiting += size_of(batch)

    def full(self, size: int = 0) -> bool:
        return bool(self._batches) and self.waiting + size > self._bound

    def drop_oldest(self) -> int:
        oldest = self._batches.popleft()
        self.waiting -= size_of(oldest)
        return len(oldest.lines)

    def peek(self) -> Batch | None:
        if self._taken is None and self._batches:
            # What is being delivered is not among those that may be dropped.
            self._taken = self._batches.popleft()
            self.waiting -= size_of(self._taken)
        return self._taken

    def done(self) -> None:
        self._taken = None

    def partly(self) -> None:
        return

    def close(self, *, writing: bool) -> int:
        if writing:
            return 0
        lost = sum(len(batch.lines) for batch in self._batches)
        lost += len(self._taken.lines) if self._taken is not None else 0
        self._batches.clear()
        self._taken = None
        self.waiting = 0
        return lost


class Spool:
    """A bounded queue on disk, which outlives the process.

    Args:
        folder: of the spool.
        bound: bytes that may wait.
        writing: false for who only delivers what is there.
    """

    def __init__(self, folder: Path, bound: int, *, writing: bool = True) -> None:
        self._folder = folder
        self._writer = spool.Writer(folder, bound) if writing else None
        self._reader = spool.Reader(folder)

    @property
    def waiting(self) -> int:
        return spool.waiting(self._folder)

    @property
    def rescued(self) -> int:
        return self._reader.rescued

    def acquire(self) -> bool:
        return self._reader.acquire()

    def put(self, batch: Batch) -> None:
        assert self._writer is not None
        self._writer.put(batch)

    def full(self, size: int = 0) -> bool:
        return self._writer is not None and self._writer.full(size)

    def drop_oldest(self) -> int:
        return self._writer.drop_oldest() if self._writer is not None else 0

    def peek(self) -> Batch | None:
        return self._reader.peek()

    def done(self) -> None:
        self._reader.done()

    def partly(self) -> None:
        self._reader.partly()

    def close(self, *, writing: bool) -> int:
        if writing and self._writer is not None:
            self._writer.close()
        elif not writing:
            self._reader.close()
        return 0
