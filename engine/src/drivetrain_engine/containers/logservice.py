"""What the containers service does about logs: reading, how drivers are doing, who delivers."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from drivetrain.errors import EngineError
from drivetrain_engine.containers import logs
from drivetrain_engine.containers.container import Container
from drivetrain_engine.containers.couriers import Couriers, undelivered
from drivetrain_engine.containers.logconfig import shown_options
from drivetrain_engine.containers.protocol import LogSetup, LogStatus
from drivetrain_engine.containers.shim.logset import read_status

if TYPE_CHECKING:
    from drivetrain_engine.containers.services import Services

logger = logging.getLogger(__name__)


class LogService:
    """Logs of containers, beyond what their shims do.

    Args:
        services: what it works with.
    """

    def __init__(self, services: Services) -> None:
        self._services = services
        self._couriers = Couriers(services.shims, services.root.parent / "undelivered")
        self._lock = threading.Lock()
        #: What was told of each container: lines dropped, and drivers whose receiver is down.
        self._told: dict[str, dict[str, LogStatus]] = {}

    @staticmethod
    def _setups(container: Container) -> list[LogSetup]:
        return msgspec.convert(container.record.logs, list[LogSetup])

    def read(
        self, container: Container, cancelled: Callable[[], bool], **query: Any
    ) -> Iterator[tuple[int, bytes]]:
        """Return a container's log; further arguments as of ``logs.read``."""
        return logs.read(
            self._services.registry,
            self._setups(container),
            self._services.directory(container.id),
            ended=lambda: not container.record.state.running,
            cancelled=cancelled,
            **query,
        )

    # how they are doing

    def statuses(self, container: Container) -> list[LogStatus]:
        """Return how the log drivers of a container are doing; empty before the first start."""
        shim = container.shim
        if shim is not None:
            try:
                return shim.logs()
            except EngineError:
                pass  # it has just ended
        directory = self._services.directory(container.id)
        found, left = read_status(directory), undelivered(directory)
        known = {status.driver for status in found}
        # A shim that was killed has not written how its drivers did.
        found += [LogStatus(driver) for driver in left if driver not in known]
        for status in found:
            status.waiting = left.get(status.driver, 0)
            status.error = status.error if status.waiting else ""
        return found

    def shown(self, container: Container) -> list[dict[str, Any]]:
        """Return the same as ``inspect`` shows it."""
        return [
            {
                "Driver": status.driver,
                "Cache": status.cache,
                "DroppedLines": status.dropped,
                "WaitingBytes": status.waiting,
                "Error": status.error,
            }
            for status in self.statuses(container)
        ]

    def shown_configs(self, container: Container) -> dict[str, Any]:
        """Return the log drivers of a container as ``HostConfig`` shows them, without secrets."""
        host, registry = container.record.host, self._services.registry
        found: list[dict[str, Any]] = [
            {"Type": each.type, "Config": shown_options(registry, each.type, each.config or {})}
            for each in (host.log_config, *(host.extra_log_configs or ()))
        ]
        return {"LogConfig": found[0], **({"ExtraLogConfigs": found[1:]} if found[1:] else {})}

    def on_log(self, container_id: str, statuses: list[LogStatus]) -> None:
        """A shim tells: emit events for lines that were lost, receivers gone and come back."""
        container = self._services.store.get(container_id)
        if container is None:
            return
        with self._lock:
            before = self._told.get(container_id, {})
            self._told[container_id] = {status.driver: status for status in statuses}
        for status in statuses:
            former = before.get(status.driver) or LogStatus(status.driver)
            about = {"driver": status.driver}
            if status.dropped > former.dropped:
                lost = status.dropped - former.dropped
                self._services.emit(container, "log-dropped", **about, lines=str(lost))
            if bool(status.error) != bool(former.error):
                action = "log-unavailable" if status.error else "log-available"
                error = {"error": status.error} if status.error else {}
                self._services.emit(container, action, **about, **error)

    # who delivers

    def ended(self, container: Container) -> None:
        """A container does not run: have its undelivered records brought away."""
        try:
            directory = self._services.directory(container.id)
            self._couriers.start(container.id, directory, self._setups(container))
        except (EngineError, OSError) as error:
            logger.warning("delivering the log of %s: %s", container.record.name, error)

    def starting(self, container: Container) -> None:
        """A container is about to have a shim, which delivers."""
        self._couriers.stop(container.id)

    def removing(self, container: Container) -> None:
        """A container is being removed: its undelivered records are kept elsewhere."""
        directory = self._services.directory(container.id)
        setups = self._setups(container)
        with self._lock:
            self._told.pop(container.id, None)
        for fault in logs.remove(self._services.registry, setups, directory):
            # A receiver that is away must not keep a container alive.
            logger.warning("removing the log of %s: %s", container.record.name, fault)
        self._couriers.set_aside(container.id, directory, setups)

    def resume(self) -> None:
        """After a start of the daemon: deliver what containers that are gone have left."""
        self._couriers.resume()

    def close(self) -> None:
        """The daemon ends."""
        self._couriers.close()
