"""All log drivers of one container: opened, fed, told about, closed."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec

from drivetrain.log import Batch, LogContext, Stream
from drivetrain.options import parse_options
from drivetrain.registry import Registry
from drivetrain_engine.containers.protocol import LogSetup, LogStatus
from drivetrain_engine.containers.shim.logpipe import LogStream, Splitter
from drivetrain_engine.containers.shim.outlets import Direct, Outlet, Queued
from drivetrain_engine.containers.shim.queues import Memory, Spool
from drivetrain_engine.containers.shim.streams import Loop

#: Below a container's directory: records that wait, the read cache, how the drivers did.
SPOOL, CACHE, STATUS = "spool", "cache", "log-status.json"
#: Seconds that a container's end waits for a receiver that takes records, altogether.
PATIENCE = 1.0
#: Seconds that a shim goes on delivering after its container's end was told.
LINGER = 10.0


def context_of(setup: LogSetup, directory: Path) -> LogContext:
    """Return whose log it is, for a driver; the read cache has a directory of its own."""
    place = directory / CACHE if setup.cache else directory
    return LogContext(**{**setup.context, "directory": place})  # type: ignore[arg-type]


def read_status(directory: Path) -> list[LogStatus]:
    """Return how the drivers did when they were last closed."""
    try:
        return msgspec.json.decode((directory / STATUS).read_bytes(), type=list[LogStatus])
    except (OSError, msgspec.MsgspecError):
        return []


class Logs:
    """The drivers of one container.

    Args:
        setups: which.
        directory: the container's own.
        registry: where drivers come from.
        delivering: only bring away what spools have, for a container that has ended.
    """

    def __init__(
        self,
        setups: list[LogSetup],
        directory: Path,
        registry: Registry,
        *,
        delivering: bool = False,
    ) -> None:
        self._directory = directory
        self._registry = registry
        self._delivering = delivering
        self._before = {status.driver: status.dropped for status in read_status(directory)}
        self._saved = b""
        self._wakes, self._wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._outlets = [outlet for setup in setups if (outlet := self._outlet(setup))]

    def _outlet(self, setup: LogSetup) -> Outlet | None:
        driver = self._registry.log(setup.driver)
        traits = driver.call.log_traits()
        if traits.discards:
            return None
        name = f"log driver {setup.driver}"
        options = parse_options(name, driver.call.log_options(), setup.options)
        context = context_of(setup, self._directory)
        if setup.cache:
            context.directory.mkdir(mode=0o700, exist_ok=True)

        def opener() -> None:
            driver.call.log_open(context, options)

        if setup.mode != "blocking" and not self._delivering:
            memory = Memory(setup.max_buffer)
            return Queued(setup, driver.call, opener, self._changed, memory)
        if traits.remote and setup.mode == "blocking":
            folder = self._directory / SPOOL / setup.driver
            if self._delivering and not folder.is_dir():
                return None
            spool = Spool(folder, setup.spool_size, writing=not self._delivering)
            return Queued(setup, driver.call, opener, self._changed, spool)
        return None if self._delivering else Direct(setup, driver.call, opener, self._changed)

    def open(self) -> None:
        """Open all of them; one that refuses closes those before it.

        Raises:
            EngineError: what the driver said; receivers that are down are no error.
        """
        opened: list[Outlet] = []
        try:
            for outlet in self._outlets:
                outlet.open()
                opened.append(outlet)
        except Exception:
            for outlet in opened:
                outlet.end(0)
                outlet.linger(0)
            raise

    def streams(self) -> tuple[LogStream | None, LogStream | None]:
        """Return the ways in for standard output and error; ``None``: nothing is logged."""
        if not self._outlets:
            return None, None
        return self._stream("stdout"), self._stream("stderr")

    def _stream(self, stream: Stream) -> LogStream:
        limits: dict[int, list[Outlet]] = {}
        for outlet in self._outlets:
            limits.setdefault(outlet.setup.max_line, []).append(outlet)
        splitters = [Splitter(stream, _write(outlets), limit) for limit, outlets in limits.items()]
        blocking = [one for one in self._outlets if one.setup.spool_full == "block"]
        full = (lambda: any(outlet.full for outlet in blocking)) if blocking else None
        flushes = [one.flush for one in self._outlets if isinstance(one, Direct)]
        return LogStream(splitters, _all(flushes), full)

    def tick(self) -> bool:
        """Try again what a full disk refused; true: call it once a second, something is wrong."""
        for outlet in self._outlets:
            outlet.tick()
        return any(outlet.error for outlet in self._outlets)

    # telling

    def watch(self, loop: Loop, changed: Callable[[], None]) -> None:
        """Have the loop call ``changed`` after the status changed."""

        def woken(events: int) -> None:
            with suppress(BlockingIOError):
                os.read(self._wakes, 4096)
            changed()

        loop.watch(self._wakes, select.POLLIN, woken)

    def _changed(self) -> None:
        with suppress(BlockingIOError):
            os.write(self._wake, b"x")

    @property
    def waiting(self) -> int:
        """Bytes of records that drivers did not get yet."""
        return sum(outlet.waiting for outlet in self._outlets)

    def statuses(self) -> list[LogStatus]:
        """Return how the drivers are doing."""
        found = [outlet.status() for outlet in self._outlets]
        for status in found:
            status.dropped += self._before.get(status.driver, 0)
        return found

    # the end

    def end(self) -> None:
        """Nothing more comes. What receivers do not take within a moment stays in spools."""
        deadline = time.monotonic() + PATIENCE
        for outlet in self._outlets:
            outlet.end(max(0.05, deadline - time.monotonic()))
        self._save()

    def linger(self, patience: float = LINGER) -> None:
        """Deliver on for a while, as long as receivers take it, once the end was told."""
        deadline = time.monotonic() + patience
        for outlet in self._outlets:
            outlet.linger(max(0.05, deadline - time.monotonic()))
        if self._directory.is_dir():
            self._save()

    def _save(self) -> None:
        statuses = msgspec.json.encode(self.statuses())
        if statuses == self._saved:
            return  # the container may be being removed: nothing is written without need
        temporary = self._directory / f"{STATUS}.tmp"
        with suppress(OSError):
            temporary.write_bytes(statuses)
            temporary.rename(self._directory / STATUS)
            self._saved = statuses


def _write(outlets: list[Outlet]) -> Callable[[Batch], None]:
    if len(outlets) == 1:
        return outlets[0].write

    def write(batch: Batch) -> None:
        for outlet in outlets:
            outlet.write(batch)

    return write


def _all(calls: list[Callable[[], None]]) -> Callable[[], None] | None:
    if len(calls) < 2:
        return calls[0] if calls else None

    def call() -> None:
        for each in calls:
            each()

    return call
