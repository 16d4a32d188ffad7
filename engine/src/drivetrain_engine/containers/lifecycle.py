"""Start, stop and everything between: each step a record first, then its effects."""

from __future__ import annotations

import concurrent.futures
import logging
import threading
import time
from functools import partial
from typing import TYPE_CHECKING

from drivetrain.errors import EngineError, FailedPrecondition, Internal, NotModified
from drivetrain_engine.containers import health, restarts
from drivetrain_engine.containers.container import Container
from drivetrain_engine.containers.exitcodes import exit_code_of_error
from drivetrain_engine.containers.pausing import take_off_pause
from drivetrain_engine.containers.record import parse_timestamp, timestamp
from drivetrain_engine.containers.services import Services
from drivetrain_engine.containers.signals import parse_signal
from drivetrain_engine.containers.starting import Starter

if TYPE_CHECKING:
    from collections.abc import Callable

    from drivetrain_engine.containers.protocol import ExitStatus
from drivetrain_engine.containers.shimlink import Shim

logger = logging.getLogger(__name__)

_KILL = 9
#: Seconds that a killed container has to be gone.
_KILL_PATIENCE = 10.0


class Lifecycle:
    """Starts, stops and restarts containers, and notes their ends.

    Args:
        services: what it works with.
        starter: provides what a start needs.
        remove: removes a container that is not to be kept.
    """

    def __init__(
        self, services: Services, starter: Starter, remove: Callable[[Container, bool], None]
    ) -> None:
        self._services = services
        self._starter = starter
        self._remove = remove
        self._closed = threading.Event()

    # start

    def start(self, container: Container, *, by_policy: bool = False) -> None:
        """Start a container.

        Args:
            container: to be started.
            by_policy: the restart policy asks; otherwise a user does, and counts begin anew.

        Raises:
            NotModified: it runs.
            FailedPrecondition: it is paused, dead or being removed.
            EngineError: it cannot be started; its state says why.
        """
        with container.lock:
            record = container.record
            if record.phase == "removing" or record.state.dead:
                raise FailedPrecondition(
                    "container is marked for removal and cannot be started: " + record.id
                )
            if record.state.paused:
                raise FailedPrecondition("cannot start a paused container, try unpause instead")
            if record.state.running and not record.state.restarting:
                raise NotModified(f"container {record.name} is running already")
            container.cancel_restart()
            if not by_policy:
                record.restart_count = 0
                container.backoff = 0.0
            self._start(container)

    def _start(self, container: Container) -> None:
        record, store = container.record, self._services.store
        record.phase = "starting"
        record.stopped_by_user = False
        store.save(container)
        self._forget_shim(container)
        self._services.logs.starting(container)
        try:
            shim = self._starter.prepare(container)
        except Exception as error:
            self._failed(container, error)
            raise
        container.shim = shim
        try:
            for pending in container.pending:
                pending.join(shim.attach(**pending.streams))
            container.pending.clear()
            shim.start()
        except Exception as error:
            container.shim = None
            self._services.shims.destroy(shim)
            self._log_errors(container, self._starter.cleanup(container))
            self._failed(container, error)
            raise
        state = record.state
        state.running, state.restarting, state.paused = True, False, False
        state.pid, state.exit_code, state.error = shim.pid, 0, ""
        state.oom_killed = False
        state.started_at = timestamp(time.time_ns())
        record.phase = "ready"
        record.started_once = True
        store.save(container)
        self._services.emit(container, "start")
        health.begin(self._services, container)

    def _failed(self, container: Container, error: Exception) -> None:
        """Note that a start came to nothing."""
        record = container.record
        for pending in container.pending:
            pending.close()
        container.pending.clear()
        record.phase = "ready"
        state = record.state
        state.running = state.restarting = state.paused = False
        state.pid = 0
        state.exit_code = exit_code_of_error(str(error))
        state.error = str(error)
        state.finished_at = timestamp(time.time_ns())
        self._services.store.save(container)
        self._services.logs.ended(container)
        container.notify("not-running", "next-exit")
        if record.host.auto_remove:
            self._services.pool.submit(self._discard, lambda: self._remove(container, True))

    # the end

    def exited(self, shim: Shim, status: ExitStatus) -> None:
        """Take note of an end; called by the shims, handed over to the pool at once."""
        container = self._services.store.get(shim.container_id)
        if container is not None and not self._closed.is_set():
            self._services.pool.submit(
                self._discard, lambda: self.note_exit(container, shim, status)
            )

    def note_exit(self, container: Container, shim: Shim, status: ExitStatus) -> None:
        """Write down that a container has ended, free what it used, and go by its policy.

        Args:
            container: whose run it was.
            shim: of that run; the end of another run than the present one changes nothing.
            status: how it ended.
        """
        with container.lock:
            record, state = container.record, container.record.state
            if not state.running or state.restarting or container.shim is not shim:
                return
            container.shim = None
            health.end(container)
            ran_for = status.time_ns / 1e9 - parse_timestamp(state.started_at)
            state.running = state.paused = False
            state.pid = 0
            state.exit_code, state.oom_killed = status.code, status.oom
            state.finished_at = timestamp(status.time_ns)
            again = (
                not self._closed.is_set()
                and not container.keep
                and restarts.wanted(record, status.code)
            )
            if again:
                # Docker: a container between two runs counts as running.
                state.running = state.restarting = True
                record.restart_count += 1
            self._services.store.save(container)
            if status.oom:
                self._services.emit(container, "oom")
            duration = str(max(0, int(ran_for)))
            self._services.emit(container, "die", exitCode=str(status.code), execDuration=duration)
            container.former = shim
            self._log_errors(container, self._starter.cleanup(container))
            for run in container.execs.values():
                run.container_ended()
            if again:
                container.backoff = restarts.backoff(container.backoff, ran_for)
                self.restart_later(container, container.backoff)
            container.notify("not-running", "next-exit")
            if record.host.auto_remove and not again and not container.keep:
                self._remove(container, True)
            elif not again:
                self._services.logs.ended(container)
        # It takes a moment to leave, which nobody has to wait for.
        self._forget_shim(container, shim)

    def _forget_shim(self, container: Container, shim: Shim | None = None) -> None:
        """Remove what the shim of the last run kept, before there is another one."""
        with container.shim_lock:
            former = container.former
            if former is not None and shim in (None, former):
                container.former = None
                self._discard(former.remove)

    def restart_later(self, container: Container, delay: float) -> None:
        """Plan a start by the restart policy; called with the lock held.

        Args:
            container: in the state ``restarting``.
            delay: seconds.
        """
        timer = threading.Timer(delay, self._restart_now, (container,))
        timer.daemon = True
        container.restart_timer = timer
        timer.start()

    def _restart_now(self, container: Container) -> None:
        with container.lock:
            if container.restart_timer is None or self._closed.is_set():
                return
            container.restart_timer = None
            record = container.record
            if not record.state.restarting or record.phase == "removing":
                return
            try:
                self._start(container)
            except Exception as error:
                logger.warning("cannot restart container %s: %s", record.name, error)
                self._retry(container)

    def _retry(self, container: Container) -> None:
        """Plan one more try after a start by policy that failed."""
        record = container.record
        if record.phase == "removing" or not restarts.wanted(record, record.state.exit_code):
            return
        record.state.running = record.state.restarting = True
        record.restart_count += 1
        self._services.store.save(container)
        container.backoff = restarts.backoff(container.backoff, 0.0)
        self.restart_later(container, container.backoff)

    # signals

    def kill(self, container: Container, signal: str) -> None:
        """Send a signal; after SIGKILL wait for the end.

        Raises:
            FailedPrecondition: it does not run.
            InvalidArgument: there is no such signal.
        """
        number = parse_signal(signal or "SIGKILL")
        with container.lock:
            record = container.record
            if record.state.restarting and container.cancel_restart():
                self._give_up(container)
                return
            if not record.state.running or container.shim is None:
                raise FailedPrecondition(
                    f"cannot kill container: {record.name}: container {record.id} is not running"
                )
            if number == _KILL or number == self._stop_signal(container):
                record.stopped_by_user = True
                self._services.store.save(container)
            ended = container.wait("next-exit")
            self._signal(container, number)
        if number == _KILL:
            self._await(container, ended, _KILL_PATIENCE)

    def _signal(self, container: Container, number: int) -> None:
        """Send a signal to the first process; called with the lock held."""
        shim = container.shim
        if shim is None:
            return
        state = container.record.state
        # A frozen process gets no signal.
        thaws = state.paused and (number == _KILL or number == self._stop_signal(container))
        if thaws:
            take_off_pause(self._services, container, to_die=number == _KILL)
        self._services.emit(container, "kill", signal=str(number))
        try:
            shim.signal(number)
        except FailedPrecondition:
            return  # it has just ended; that is being noted
        if thaws:
            shim.resume()
            self._services.store.save(container)

    def _stop_signal(self, container: Container) -> int:
        return parse_signal(container.record.config.stop_signal or "SIGTERM")

    def stop(
        self, container: Container, timeout: int | None = None, signal: str | None = None
    ) -> None:
        """Ask a container to end, and kill it when it does not.

        Args:
            container: to be stopped.
            timeout: seconds before SIGKILL; ``None``: the container's own; negative: never.
            signal: instead of the container's stop signal.

        Raises:
            NotModified: it does not run.
        """
        with container.lock:
            record = container.record
            if not record.state.running:
                raise NotModified(f"container {record.name} does not run")
            record.stopped_by_user = True
            if record.state.restarting:
                container.cancel_restart()
                self._give_up(container)
                return
            self._services.store.save(container)
            number = parse_signal(signal) if signal else self._stop_signal(container)
            if timeout is None:
                timeout = record.config.stop_timeout
            if timeout is None:
                timeout = self._services.settings.stop_timeout
            ended = container.wait("next-exit")
            self._signal(container, number)
        try:
            ended.result(None if timeout < 0 else timeout)
        except concurrent.futures.TimeoutError:
            with container.lock:
                self._signal(container, _KILL)
            self._await(container, ended, _KILL_PATIENCE)
        self._services.emit(container, "stop")

    def _give_up(self, container: Container) -> None:
        """End the wait for a restart by policy; called with the lock held."""
        state = container.record.state
        state.running = state.restarting = False
        container.record.stopped_by_user = True
        self._services.store.save(container)
        container.notify("not-running", "next-exit")

    def _await(
        self, container: Container, ended: concurrent.futures.Future[dict[str, object]],
        seconds: float,
    ) -> None:  # fmt: skip
        try:
            ended.result(seconds)
        except concurrent.futures.TimeoutError:
            raise Internal(
                f"tried to kill container {container.record.name}, but did not receive an exit "
                f"event; look at process {container.record.state.pid} on the host"
            ) from None

    def restart(
        self, container: Container, timeout: int | None = None, signal: str | None = None
    ) -> None:
        """Stop a container, if it runs, and start it."""
        container.keep = True
        try:
            self.stop(container, timeout, signal)
        except NotModified:
            pass
        finally:
            container.keep = False
        self.start(container)
        self._services.emit(container, "restart")

    def stop_all(self, timeout: int | None = None) -> None:
        """Stop all containers at once because the daemon ends; see ``Containers.stop_all``."""
        running = [one for one in self._services.store.all() if one.record.state.running]
        if not running:
            return
        with concurrent.futures.ThreadPoolExecutor(min(len(running), 64)) as pool:
            for container in running:
                pool.submit(self._discard, partial(self._shut_down, container, timeout))

    def _shut_down(self, container: Container, timeout: int | None) -> None:
        """Stop a container that still counts as running for its policy."""
        record = container.record
        by_user = record.stopped_by_user
        try:
            self.stop(container, timeout)
        except NotModified:
            return
        with container.lock:
            record.stopped_by_user = by_user
            if self._services.store.get(container.id) is container:
                self._services.store.save(container)

    def close(self) -> None:
        """Plan nothing more. Containers go on."""
        self._closed.set()
        for container in self._services.store.all():
            container.cancel_restart()

    def _discard(self, work: Callable[[], None]) -> None:
        """Do something whose failure nobody waits for; it is logged."""
        try:
            work()
        except EngineError as error:
            logger.warning("%s", error)
        except Exception:
            logger.exception("unexpected error")

    def _log_errors(self, container: Container, errors: list[Exception]) -> None:
        for error in errors:
            logger.warning("cleaning up container %s: %s", container.record.name, error)
