"""The ways from a container's output to one log driver each.

An error of a driver never reaches the container. A driver that writes on this host is called at
once; one whose receiver may be down has a thread, and records wait for it in a spool on disk. In
non-blocking mode any driver has a thread, and records wait in memory.
"""

from __future__ import annotations

import collections
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from drivetrain.errors import EngineError, Exhausted, Unavailable
from drivetrain.log import Batch, LogHooks
from drivetrain_engine.containers.protocol import LogSetup, LogStatus
from drivetrain_engine.containers.shim.queues import Queue, size_of

#: Bytes that wait in memory for a disk that is full.
HELD = 1 << 20
#: Seconds between tries, at first and at most.
PAUSE, LONGEST = 0.1, 5.0
#: Seconds that a start waits for an open that should need no receiver.
OPENING = 0.5
#: Seconds that a strict start waits for the receiver.
STRICT = 15.0


class Outlet:
    """What all have in common: counting, and telling.

    Args:
        setup: the driver and how it is used.
        driver: loaded, not opened.
        opener: opens it.
        changed: called when the status has changed, from any thread.
    """

    def __init__(
        self,
        setup: LogSetup,
        driver: LogHooks,
        opener: Callable[[], object],
        changed: Callable[[], None],
    ) -> None:
        self.setup = setup
        self._call = driver
        self._opener = opener
        self._changed = changed
        self._complained = 0.0
        self._dropped = 0
        self.error = ""

    @property
    def full(self) -> bool:
        """Whether the container has to wait."""
        return False

    @property
    def waiting(self) -> int:
        """Bytes of records that the driver did not get yet."""
        return 0

    @property
    def dropped(self) -> int:
        """Lines that were given up by this process."""
        return self._dropped

    def open(self) -> None:
        """Get ready. Raises what the driver raised, unless its receiver is down."""
        raise NotImplementedError

    def write(self, batch: Batch) -> None:
        """Take a batch."""
        raise NotImplementedError

    def flush(self) -> None:
        """Output pauses."""

    def tick(self) -> None:
        """Try again what a full disk refused."""

    def end(self, patience: float) -> None:
        """No more comes: write what waits, for at most so many seconds while that works."""
        raise NotImplementedError

    def linger(self, patience: float) -> None:
        """The container's end was told; go on for at most so many seconds."""

    def status(self) -> LogStatus:
        """Return how it is doing."""
        setup = self.setup
        return LogStatus(setup.driver, self.dropped, self.waiting, self.error, setup.cache)

    def _drop(self, lines: int) -> None:
        if lines:
            self._dropped += lines
            self._changed()

    def _works(self) -> None:
        if self.error:
            self.error = ""
            self._changed()

    def _fails(self, error: Exception) -> None:
        """Remember an error, and say it on the daemon's log, but not for every line."""
        kind = "" if isinstance(error, EngineError) else f"{type(error).__name__}: "
        before, self.error = self.error, f"{kind}{error}"
        if not before:
            self._changed()
        now = time.monotonic()
        if now - self._complained > 10:
            self._complained = now
            # Where nobody reads the daemon's output any more, the container goes on.
            with suppress(OSError, ValueError):
                print(f"log driver {self.setup.driver}: {self.error}", file=sys.stderr, flush=True)


class Direct(Outlet):
    """Calls the driver at once. What a full disk refuses waits in memory, the oldest goes."""

    def open(self) -> None:
        self._held: collections.deque[Batch] = collections.deque()
        self._size = 0
        self._again = 0.0
        self._opener()

    @property
    def waiting(self) -> int:
        return self._size

    def write(self, batch: Batch) -> None:
        if self._held:
            self._hold(batch)
            if time.monotonic() >= self._again:
                self._retry()
        elif not self._try(batch):
            self._hold(batch)

    def _try(self, batch: Batch) -> bool:
        """Give a batch to the driver; false when it has to be tried again."""
        try:
            self._call.log_write(batch)
        except (Unavailable, Exhausted) as error:
            self._fails(error)
            self._again = time.monotonic() + 1
            return False
        except Exception as error:
            self._fails(error)
            self._drop(len(batch.lines))
            return True
        if self.error:
            self._works()
        return True

    def _hold(self, batch: Batch) -> None:
        self._held.append(batch)
        self._size += size_of(batch)
        while self._size > HELD and len(self._held) > 1:
            oldest = self._held.popleft()
            self._size -= size_of(oldest)
            self._drop(len(oldest.lines))

    def _retry(self) -> None:
        while self._held and self._try(self._held[0]):
            self._size -= size_of(self._held.popleft())

    def tick(self) -> None:
        if self._held:
            self._retry()

    def flush(self) -> None:
        if self._held and time.monotonic() >= self._again:
            self._retry()
        try:
            self._call.log_flush()
        except Exception as error:
            self._fails(error)

    def end(self, patience: float) -> None:
        self._retry()
        self._drop(sum(len(batch.lines) for batch in self._held))
        self._held.clear()
        try:
            self._call.log_close()
        except Exception as error:
            self._fails(error)


class Queued(Outlet):
    """Has a thread of its own that calls the driver, again and again while its receiver is down.

    Args:
        setup, driver, opener, changed: as for :class:`Outlet`.
        queue: where records wait.
    """

    def __init__(
        self,
        setup: LogSetup,
        driver: LogHooks,
        opener: Callable[[], object],
        changed: Callable[[], None],
        queue: Queue,
    ) -> None:
        super().__init__(setup, driver, opener, changed)
        self._queue = queue
        self._lock = threading.Condition()
        self._blocks = setup.mode == "blocking" and setup.spool_full == "block"
        self._was_full = False
        self._held: list[Batch] = []
        self._ending = self._stopping = False
        self._opened = threading.Event()
        self._refusal: Exception | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    # the shim's thread

    def open(self) -> None:
        self._thread.start()
        self._opened.wait(STRICT if self.setup.strict else OPENING)
        refusal = self._refusal
        if self.setup.strict and refusal is None and not self._opened.is_set():
            refusal = Unavailable(f"log driver {self.setup.driver}: the receiver does not answer")
        if refusal is not None:
            self._stop()
            raise refusal
        # From now on an error is one of a receiver, however long the open takes.
        self._opened.set()

    @property
    def full(self) -> bool:
        if not self._blocks:
            return False
        with self._lock:
            self._was_full = bool(self._held) or self._queue.full()
        return self._was_full

    @property
    def waiting(self) -> int:
        return self._queue.waiting + sum(map(size_of, self._held))

    @property
    def dropped(self) -> int:
        return max(0, self._dropped - self._queue.rescued)

    def write(self, batch: Batch) -> None:
        with self._lock:
            if self._held:
                self._held.append(batch)
                self._retry_held()
            else:
                self._put(batch)
            self._lock.notify()

    def _put(self, batch: Batch) -> None:
        size = size_of(batch)
        while not self._blocks and self._queue.full(size):
            lost = self._queue.drop_oldest()
            if not lost and self._queue.waiting == 0:
                break
            self._drop(lost)
        try:
            self._queue.put(batch)
        except OSError as error:
            self._no_space(batch, error)

    def _no_space(self, batch: Batch, error: OSError) -> None:
        """The disk is full: wait for space, or make it by giving up the oldest."""
        self._fails(error)
        if self._blocks:
            self._held.append(batch)
            return
        while self._queue.waiting:
            self._drop(self._queue.drop_oldest())
            with suppress(OSError):
                self._queue.put(batch)
                return
        self._drop(len(batch.lines))

    def _retry_held(self) -> None:
        with suppress(OSError):
            while self._held:
                self._queue.put(self._held[0])
                del self._held[0]

    def tick(self) -> None:
        if self._held:
            with self._lock:
                self._retry_held()
                self._lock.notify()

    def end(self, patience: float) -> None:
        with self._lock:
            self._retry_held()
            for batch in self._held:
                self._drop(len(batch.lines))
            self._held.clear()
            self._queue.close(writing=True)
            self._ending = True
            self._lock.notify()
        self._thread.join(0.05 if self.error else patience)

    def linger(self, patience: float) -> None:
        self._thread.join(0.05 if self.error else patience)
        self._stop()

    def _stop(self) -> None:
        """End between two batches."""
        with self._lock:
            self._ending = self._stopping = True
            self._lock.notify()
        self._thread.join(10)

    # the other thread

    def _run(self) -> None:
        try:
            if self._prepare():
                while (batch := self._next()) is not None:
                    self._deliver(batch)
        finally:
            with suppress(Exception):
                self._call.log_close()
            with self._lock:
                self._drop(self._queue.close(writing=False))

    def _prepare(self) -> bool:
        """Open the driver, and become the one who delivers; false: it came to nothing."""
        pause = PAUSE
        while not self._stopping:
            try:
                self._opener()
                if self.setup.strict and not self._opened.is_set():
                    self._call.log_connect()
                break
            except Exception as error:
                fatal = self.setup.strict or not isinstance(error, Unavailable)
                if fatal and not self._opened.is_set():
                    self._refusal = error
                    self._opened.set()
                    return False
                self._fails(error)
                self._opened.set()
            if self._ending:
                return False
            self._pause(pause)
            pause = min(pause * 2, LONGEST)
        self._opened.set()
        while not self._stopping:
            if self._queue.acquire():
                return True
            time.sleep(0.02)
        return False

    def _next(self) -> Batch | None:
        flushed = False
        while True:
            with self._lock:
                while True:
                    if self._stopping:
                        return None
                    batch = self._queue.peek()
                    if batch is not None or self._ending:
                        return batch
                    if not flushed:
                        break
                    self._lock.wait()
            flushed = True
            try:
                self._call.log_flush()
            except Exception as error:
                self._fails(error)

    def _deliver(self, batch: Batch) -> None:
        pause = PAUSE
        while True:
            try:
                self._call.log_write(batch)
            except (Unavailable, Exhausted) as error:
                self._fails(error)
                with self._lock:
                    self._queue.partly()
                    # Not for longer at the end: the rest waits in the spool for the next one.
                    self._stopping = self._stopping or self._ending
                if self._stopping:
                    return
                self._pause(pause)
                if self._stopping:
                    return
                pause = min(pause * 2, LONGEST)
                continue
            except Exception as error:
                self._fails(error)
                self._drop(len(batch.lines))
            else:
                if self.error:
                    self._works()
            break
        with self._lock:
            self._queue.done()
            if self._held:
                self._retry_held()
            now_full = self._was_full and (bool(self._held) or self._queue.full())
            woken, self._was_full = self._was_full and not now_full, now_full
        if woken:
            self._changed()

    def _pause(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        with self._lock:
            while not self._ending and (left := deadline - time.monotonic()) > 0:
                self._lock.wait(left)
