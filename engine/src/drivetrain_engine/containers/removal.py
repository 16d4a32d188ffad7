"""Removing containers, and what was theirs."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable

from drivetrain.errors import EngineError, FailedPrecondition, InUse, Several
from drivetrain_engine.containers.container import Container
from drivetrain_engine.containers.services import Services
from drivetrain_engine.containers.spec.cgroups import cgroup_path, host_cgroups

logger = logging.getLogger(__name__)


def check_removable(container: Container, force: bool) -> None:
    """Refuse to remove a container that runs, unless forced.

    Raises:
        FailedPrecondition: in Docker's words.
    """
    record = container.record
    if force or not record.state.running:
        return
    name = f'cannot remove container "{record.name}"'
    if record.state.paused:
        raise FailedPrecondition(f"{name}: container is paused and must be unpaused first")
    if record.state.restarting:
        raise FailedPrecondition(
            f"{name}: container is restarting: stop the container before removing or force remove"
        )
    raise FailedPrecondition(
        f"{name}: container is running: stop the container before removing or force remove"
    )


class Remover:
    """Removes containers; every step may be repeated after a crash."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def claim(self, container: Container, volumes: bool, force: bool) -> None:
        """Note that a container is to be removed: from now on nobody can start it.

        Args:
            container: perhaps still running.
            volumes: the anonymous ones with it.
            force: one that runs, too; it has to be killed then.

        Raises:
            FailedPrecondition: it runs.
            InUse: somebody is removing it already.
        """
        with container.lock:
            record = container.record
            check_removable(container, force)
            if record.phase == "removing":
                raise InUse(f"removal of container {container.id} is already in progress")
            container.cancel_restart()
            record.phase = "removing"
            record.remove_volumes = record.remove_volumes or volumes
            self._services.store.save(container)

    def disclaim(self, container: Container) -> None:
        """Undo :meth:`claim`: it could not be killed."""
        with container.lock:
            container.record.phase = "ready"
            self._services.store.save(container)

    def remove(self, container: Container, volumes: bool) -> None:
        """Remove a container that does not run.

        Args:
            container: called with its lock held, or taken here.
            volumes: the anonymous ones with it.

        Raises:
            FailedPrecondition: it was started meanwhile.
            Several: parts could not be removed; the record stays, as dead, for another try.
        """
        with container.lock:
            services, record = self._services, container.record
            if services.store.get(record.id) is not container:
                return  # somebody was quicker
            if container.shim is not None:
                if record.phase == "removing":
                    self.disclaim(container)
                raise FailedPrecondition(
                    f'cannot remove container "{record.name}": container is running: stop the '
                    "container before removing or force remove"
                )
            container.cancel_restart()
            record.phase = "removing"
            record.remove_volumes = record.remove_volumes or volumes
            services.store.save(container)
            for pending in container.pending:
                pending.close()
            container.pending.clear()
            if errors := self._effects(container):
                record.phase = "ready"
                record.state.dead = True
                services.store.save(container)
                raise Several(f'cannot remove container "{record.name}"', errors)
            services.execs.forget(container)
            services.store.forget(container)
            services.rootfs.forget(record.id)
            services.emit(container, "destroy")
            container.notify("not-running", "next-exit", "removed")

    def undo(self, container: Container) -> None:
        """Remove what a creation that came to nothing has made; nobody was told about it."""
        container.record.remove_volumes = True
        for error in self._effects(container):
            logger.warning("undoing the creation of %s: %s", container.record.name, error)
        self._services.store.forget(container)
        self._services.rootfs.forget(container.id)

    def _effects(self, container: Container) -> list[Exception]:
        """Remove everything but the record; returns what went wrong."""
        services, record = self._services, container.record
        errors = services.mounts.release(record, remove_anonymous=record.remove_volumes)
        group = cgroup_path(record.id, record.host.cgroup_parent, services.settings.cgroup_parent)
        steps: tuple[Callable[[], object], ...] = (
            lambda: host_cgroups().remove(group),
            lambda: services.networks.release(record.id),
            lambda: services.layers.remove(record.id),
            lambda: services.logs.removing(container),
            lambda: shutil.rmtree(services.bundle(record.id), ignore_errors=True),
            lambda: self._directory(record.id),
        )
        for step in steps:
            try:
                step()
            except (EngineError, OSError) as error:
                errors.append(error)
        return errors

    def _directory(self, container_id: str) -> None:
        path = self._services.directory(container_id)
        for patience in (0.005, 0.02, 0.1, 0.2, 0.0):
            try:
                if path.exists():
                    shutil.rmtree(path)
                return
            except OSError:
                # Its shim may be writing how the log drivers did, and leaves right after.
                if not patience:
                    raise
                time.sleep(patience)
