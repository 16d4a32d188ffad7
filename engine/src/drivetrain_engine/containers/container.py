"""A container in memory: its record, its lock, and what lives only as long as the daemon."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import msgspec

from drivetrain_engine.containers.record import Record

if TYPE_CHECKING:
    from drivetrain_engine.containers.attaching import Pending
    from drivetrain_engine.containers.execs import Exec
    from drivetrain_engine.containers.health import Monitor
    from drivetrain_engine.containers.shimlink import Shim


class Container:
    """One container.

    Attributes:
        record: what is remembered; saved by the store.
        lock: held by whoever changes record or shim. Waiting for an exit without it.
        shim: of the running container.
        former: the shim of the last run, which is about to leave; changed under shim_lock.
        waiters: condition and future of each ``wait``.
        pending: attachments made before the start.
        execs: by id.
        restart_timer: of the restart policy.
        backoff: seconds until the next restart by the policy.
        keep: a restart is going on: the exit must not remove it.
        health: runs the health check.
    """

    def __init__(self, record: Record) -> None:
        self.record = record
        self.lock = threading.RLock()
        self.shim: Shim | None = None
        self.former: Shim | None = None
        self.shim_lock = threading.Lock()
        self.waiters: list[tuple[str, Future[dict[str, Any]]]] = []
        self.pending: list[Pending] = []
        self.execs: dict[str, Exec] = {}
        self.restart_timer: threading.Timer | None = None
        self.backoff = 0.0
        self.keep = False
        self.health: Monitor | None = None

    @property
    def id(self) -> str:
        """Its id."""
        return self.record.id

    def document(self) -> dict[str, Any]:
        """Return the record as JSON."""
        document: dict[str, Any] = msgspec.to_builtins(self.record)
        return document

    def cancel_restart(self) -> bool:
        """Stop a restart that was planned; tell whether there was one."""
        timer, self.restart_timer = self.restart_timer, None
        if timer is not None:
            timer.cancel()
        return timer is not None

    # waiting

    def wait(self, condition: str) -> Future[dict[str, Any]]:
        """Return a future of the exit; done already when ``not-running`` holds."""
        future: Future[dict[str, Any]] = Future()
        with self.lock:
            state = self.record.state
            if condition == "not-running" and not (state.running or state.restarting):
                future.set_result(self.outcome())
            else:
                self.waiters.append((condition, future))
        return future

    def outcome(self) -> dict[str, Any]:
        """Return the answer of ``wait``."""
        return {"StatusCode": self.record.state.exit_code}

    def notify(self, *conditions: str) -> None:
        """Fulfil the futures of some conditions; called with the lock held."""
        done = [future for condition, future in self.waiters if condition in conditions]
        self.waiters = [pair for pair in self.waiters if pair[0] not in conditions]
        for future in done:
            if future.set_running_or_notify_cancel():
                future.set_result(self.outcome())
