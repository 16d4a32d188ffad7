"""Health checks: a command in the container, again and again."""

from __future__ import annotations

import collections
import contextlib
import socket
import threading
import time
from typing import Any

from drivetrain.errors import EngineError
from drivetrain_engine.containers.container import Container
from drivetrain_engine.containers.execs import Exec, ExecRequest
from drivetrain_engine.containers.record import timestamp
from drivetrain_engine.containers.request.config import Healthcheck
from drivetrain_engine.containers.services import Services

Json = dict[str, Any]

_INTERVAL, _TIMEOUT, _RETRIES, _START_INTERVAL = 30.0, 30.0, 3, 5.0
_KEPT = 5
_OUTPUT = 4096
_KILL = 9


class Monitor:
    """Runs the health check of one run of a container.

    Attributes:
        status: ``starting``, ``healthy`` or ``unhealthy``.
        failures: in a row.
        log: the last results, as in ``State.Health.Log``.
    """

    def __init__(self, services: Services, container: Container, check: Healthcheck) -> None:
        self._services = services
        self._container = container
        self._check = check
        self._stopped = threading.Event()
        self._began = time.monotonic()
        self.status = "starting"
        self.failures = 0
        self.log: collections.deque[Json] = collections.deque(maxlen=_KEPT)

    def start(self) -> None:
        """Begin; the first check comes after one interval."""
        threading.Thread(target=self._work, name="health check", daemon=True).start()

    def stop(self) -> None:
        """End; a check that runs ends with its container or at its timeout."""
        self._stopped.set()

    def shown(self) -> Json:
        """Return ``State.Health``."""
        return {"Status": self.status, "FailingStreak": self.failures, "Log": list(self.log)}

    def _seconds(self, nanoseconds: int, default: float) -> float:
        return nanoseconds / 1e9 if nanoseconds else default

    def _in_start_period(self) -> bool:
        return time.monotonic() - self._began < self._check.start_period / 1e9

    def _pause(self) -> float:
        if self.status == "starting" and self._in_start_period():
            return self._seconds(self._check.start_interval, _START_INTERVAL)
        return self._seconds(self._check.interval, _INTERVAL)

    def _work(self) -> None:
        while not self._stopped.wait(self._pause()):
            if self._container.record.state.paused:
                continue
            began = time.time_ns()
            code, output = self._probe()
            if self._stopped.is_set():
                return
            self._note(began, code, output)

    def _note(self, began: int, code: int, output: str) -> None:
        self.log.append(
            {
                "Start": timestamp(began),
                "End": timestamp(time.time_ns()),
                "ExitCode": code,
                "Output": output,
            }
        )
        before = self.status
        if code == 0:
            self.status, self.failures = "healthy", 0
        elif not (self.status == "starting" and self._in_start_period()):
            self.failures += 1
            if self.failures >= (self._check.retries or _RETRIES):
                self.status = "unhealthy"
        if self.status != before:
            self._services.emit(self._container, f"health_status: {self.status}")

    def _probe(self) -> tuple[int, str]:
        """Run the command once and return exit code and output; -1 when it took too long."""
        run = Exec(
            self._container,
            ExecRequest(cmd=self._command(), attach_stdout=True, attach_stderr=True),
        )
        execs = self._services.execs
        execs.add(run)
        try:
            attachment = execs.run(run, attach=True)
            assert attachment is not None
            assert attachment.socket is not None
            timeout = self._seconds(self._check.timeout, _TIMEOUT)
            output, ended = _collect(attachment.socket, timeout)
            if not (ended and run.ended.wait(5)):
                shim = self._container.shim
                if shim is not None:
                    with contextlib.suppress(EngineError, OSError):
                        shim.exec_signal(run.id, _KILL)
                return -1, f"Health check exceeded timeout ({timeout:g}s)"
            return run.exit_code or 0, output
        except EngineError as error:
            return -1, str(error)
        finally:
            execs.drop(run)

    def _command(self) -> list[str]:
        kind, *words = self._check.test or ["NONE"]
        if kind == "CMD":
            return words
        shell = self._container.record.config.shell or ["/bin/sh", "-c"]
        return [*shell, *words[:1]]


def _collect(connection: socket.socket, timeout: float) -> tuple[str, bool]:
    """Read frames until the end; return the first bytes of output, and whether the end came."""
    deadline = time.monotonic() + timeout
    received = bytearray()
    with connection:
        while (left := deadline - time.monotonic()) > 0:
            connection.settimeout(left)
            try:
                data = connection.recv(65536)
            except TimeoutError:
                break
            except OSError:
                data = b""
            if not data:
                return _unframed(bytes(received)), True
            if len(received) < 16 * _OUTPUT:
                received += data
    return _unframed(bytes(received)), False


def _unframed(data: bytes) -> str:
    """Return the content of frames, shortened."""
    parts, place = [], 0
    while place + 8 <= len(data):
        size = int.from_bytes(data[place + 4 : place + 8], "big")
        parts.append(data[place + 8 : place + 8 + size])
        place += 8 + size
    text = b"".join(parts)
    return text[:_OUTPUT].decode("utf-8", "replace") + ("..." if len(text) > _OUTPUT else "")


def enabled(check: Healthcheck | None) -> bool:
    """Tell whether there is a check to run."""
    return check is not None and bool(check.test) and check.test != ["NONE"]


def begin(services: Services, container: Container) -> None:
    """Start to check a container that runs now; called with its lock held."""
    check = container.record.config.healthcheck
    if check is not None and enabled(check):
        container.health = Monitor(services, container, check)
        container.health.start()


def end(container: Container) -> None:
    """Stop to check a container; called with its lock held."""
    if container.health is not None:
        container.health.stop()
