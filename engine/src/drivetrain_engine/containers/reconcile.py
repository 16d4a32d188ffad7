"""After a start of the daemon: records against shims, and what a crash left half done.

Every record says what it was about to do (``phase``), so each crash has one repair:

- ``creating``: nobody was told of it; it is undone.
- ``removing``: the removal is finished.
- ``starting``: a process that had not started is removed; one that had is adopted.
- running: the shim is adopted; an end that nobody saw is noted; so is the end of a shim.
- not running: whatever is mounted, linked or alive of it is freed.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable
from functools import partial

from drivetrain.errors import EngineError
from drivetrain.host.mounts import unmount
from drivetrain_engine.containers import health, restarts
from drivetrain_engine.containers.container import Container
from drivetrain_engine.containers.lifecycle import Lifecycle
from drivetrain_engine.containers.protocol import ExitStatus
from drivetrain_engine.containers.record import timestamp
from drivetrain_engine.containers.removal import Remover
from drivetrain_engine.containers.request.modes import container_mode
from drivetrain_engine.containers.services import Services
from drivetrain_engine.containers.shimlink import Shim
from drivetrain_engine.containers.starting import Starter
from drivetrain_engine.networks import SandboxRequest

logger = logging.getLogger(__name__)

#: Of a container whose end nobody saw, as in Docker.
_UNKNOWN = 255


class Reconciler:
    """Brings records and host together again; called once, before requests are served."""

    def __init__(
        self, services: Services, starter: Starter, lifecycle: Lifecycle, remover: Remover
    ) -> None:
        self._services = services
        self._starter = starter
        self._lifecycle = lifecycle
        self._remover = remover

    def run(self) -> None:
        """Repair everything; what fails is logged and does not keep others from it."""
        services = self._services
        ended: list[tuple[Container, Shim, ExitStatus]] = []
        for container in services.store.all():
            with container.lock:  # its end has to wait until its shim is known
                self._attempt(container, partial(self._adopt, container, ended))
        self._services_reconcile()
        for container, shim, status in ended:
            self._attempt(container, partial(self._lifecycle.note_exit, container, shim, status))
        for container in services.store.all():
            self._attempt(container, partial(self._settle, container))
        self._sweep()
        services.logs.resume()
        for container in services.store.all():
            self._attempt(container, partial(self._restart, container))

    def _attempt(self, container: Container, work: Callable[[], None]) -> None:
        try:
            work()
        except (EngineError, OSError) as error:
            logger.warning("repairing container %s: %s", container.record.name, error)
        except Exception:
            logger.exception("repairing container %s", container.record.name)

    def _adopt(self, container: Container, ended: list[tuple[Container, Shim, ExitStatus]]) -> None:
        """Find the shim of a container that ran, or was about to."""
        services, record = self._services, container.record
        state = record.state
        begun = record.phase in ("starting", "removing")
        active = begun or (state.running and not state.restarting)
        if not active:
            return
        found = services.shims.adopt(record.id, services.directory(record.id))
        if isinstance(found, Shim) and record.phase in ("starting", "removing"):
            # Whether its process was started is not known, so it was not.
            services.shims.destroy(found)
            found = None
        if record.phase == "starting":
            record.phase = "ready"
            state.running = state.restarting = False
            state.pid = 0
            state.exit_code, state.error = _UNKNOWN, "the engine ended while it was starting"
            state.finished_at = timestamp(time.time_ns())
            record.started_once = True
            services.store.save(container)
            return
        if record.phase == "removing":
            state.running = state.paused = False
            return
        if isinstance(found, Shim):
            container.shim = found
            state.pid = found.pid
            services.rootfs.adopt(record.id)
            health.begin(services, container)
            return
        shim: Shim = _Ended()  # type: ignore[assignment]  # its end is noted below
        container.shim = shim
        services.rootfs.adopt(record.id)
        if found is None:
            state.error = "the container's shim is gone"
            found = ExitStatus(_UNKNOWN, time.time_ns(), False)
        ended.append((container, shim, found))

    def _services_reconcile(self) -> None:
        """Tell the services below who is there and who runs."""
        services = self._services
        everyone = services.store.all()
        known = {container.id for container in everyone}
        running: dict[str, SandboxRequest] = {}
        active: set[str] = set()
        for container in everyone:
            if isinstance(container.shim, _Ended) or container.shim is None:
                continue
            active.add(container.id)
            if not container_mode(container.record.host.network_mode):
                running[container.id] = self._starter.request(container.record)
        ended = {one.id for one in everyone if isinstance(one.shim, _Ended)}
        works: tuple[tuple[str, Callable[[], object]], ...] = (
            ("layers", lambda: services.layers.reconcile(known, active | ended)),
            ("networks", lambda: services.networks.reconcile(running, known)),
            ("volumes", lambda: services.volumes.reconcile(known, active | ended)),
        )
        for name, work in works:
            try:
                faults = work()
                for fault in faults if isinstance(faults, list) else ():
                    logger.warning("%s", fault)
            except (EngineError, OSError) as error:
                logger.warning("repairing %s: %s", name, error)

    def _settle(self, container: Container) -> None:
        """Finish what was begun, and free what a container that does not run still has."""
        services, record = self._services, container.record
        if services.store.get(record.id) is not container or container.shim is not None:
            return
        if record.phase == "creating":
            self._remover.undo(container)
            return
        services.shims.clear(record.id)
        if record.phase == "removing":
            self._starter.cleanup(container)
            self._remover.remove(container, record.remove_volumes)
            return
        for error in self._starter.cleanup(container):
            logger.warning("cleaning up container %s: %s", record.name, error)
        if record.host.auto_remove and record.started_once:
            self._remover.remove(container, True)
        else:
            services.logs.ended(container)

    def _sweep(self) -> None:
        """Remove what is left of containers that do not exist."""
        services = self._services
        known = services.store.ids()
        services.shims.clear_others(known)
        for place in (services.exec_root / "shm").glob("*"):
            if place.name not in known:
                unmount(place)
                place.rmdir()
        for parent in (services.root, services.exec_root / "bundles"):
            if parent.is_dir():
                for entry in parent.iterdir():
                    if entry.name not in known:
                        shutil.rmtree(entry, ignore_errors=True)

    def _restart(self, container: Container) -> None:
        """Start a container whose policy says so."""
        record = container.record
        with container.lock:
            if container.shim is not None or record.phase != "ready" or container.restart_timer:
                return
            if record.state.restarting or (
                not record.state.running and restarts.wanted_at_start(record)
            ):
                record.state.running = record.state.restarting = True
                self._services.store.save(container)
                self._lifecycle.restart_later(container, 0.0)


class _Ended:
    """In the place of a shim that is gone."""

    def remove(self) -> None:
        """There is nothing left of it."""
