"""``engine storage migrate``: containers change their storage driver, running ones too."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from typing import Any

from drivetrain.errors import (
    EngineError,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    NotModified,
)
from drivetrain.storage import Use
from drivetrain_engine.containers.container import Container
from drivetrain_engine.containers.lifecycle import Lifecycle
from drivetrain_engine.containers.services import Services
from drivetrain_engine.content import Image

logger = logging.getLogger(__name__)
Json = dict[str, Any]


class Migrator:
    """Moves containers between storage drivers, one after the other."""

    def __init__(self, services: Services, lifecycle: Lifecycle) -> None:
        self._services = services
        self._lifecycle = lifecycle

    def migrate(
        self,
        references: Sequence[str],
        target: str,
        *,
        everything: bool = False,
        stop: bool = False,
        timeout: int | None = None,
        dry_run: bool = False,
    ) -> Iterator[Json]:
        """Move containers and tell how it goes; one that fails does not keep others from it.

        Args:
            references: ids or names.
            target: name of the driver.
            everything: all containers instead.
            stop: stop those that run, and start them again.
            timeout: seconds before the kill; ``None``: each container's own.
            dry_run: tell what would be done.

        Returns:
            Documents with ``id``, ``name``, ``from``, ``to``, ``status``; ``error`` of a failed
            one; ``current``, ``total`` (entries), ``bytes`` and ``seconds`` on the way.

        Raises:
            NotFound: a container or the driver.
            NotSupported: the driver cannot be used here.
            InvalidArgument: nothing was named, or both names and all.
        """
        if bool(references) == everything:
            raise InvalidArgument("name containers to migrate, or give --all; not both")
        store = self._services.store
        chosen = store.all()[::-1] if everything else [store.find(name) for name in references]
        self._services.layers.driver(target)
        return self._each(chosen, target, stop, timeout, dry_run)

    def _each(
        self,
        chosen: Sequence[Container],
        target: str,
        stop: bool,
        timeout: int | None,
        dry_run: bool,
    ) -> Iterator[Json]:
        for container in chosen:
            record = container.record
            source = record.driver
            about = {"id": record.id, "name": record.name, "from": source, "to": target}
            try:
                for step in self._one(container, target, stop, timeout, dry_run):
                    yield {**about, **step}
            except (EngineError, OSError) as error:
                reason = (
                    f"container {record.name} cannot move from {source} to {target}: {error}"
                    if record.driver != target
                    else f"container {record.name} moved to {target}, but: {error}"
                )
                yield {**about, "status": "failed", "error": reason}

    def _one(
        self, container: Container, target: str, stop: bool, timeout: int | None, dry_run: bool
    ) -> Iterator[Json]:
        services, record = self._services, container.record
        if record.driver == target:
            yield {"status": "there"}
            return
        running = record.state.running
        self._check(container, stop)
        image = self._image(container)
        services.layers.migrations.check(record.id, target)
        if dry_run:
            size, _ = services.layers.usage(record.id)
            yield {"status": "planned", "bytes": size, "running": running}
            return
        begun = time.monotonic()
        try:
            if running:
                yield {"status": "stopping"}
                self._stop(container, target, timeout)
            yield from self._move(container, image, target, running)
        finally:
            if running:
                self._start_again(container)
        yield {"status": "migrated", "seconds": round(time.monotonic() - begun, 3)}

    @staticmethod
    def _check(container: Container, stop: bool) -> None:
        state = container.record.state
        if container.record.phase != "ready" or state.dead:
            raise FailedPrecondition("it is being made or removed")
        if state.paused:
            raise FailedPrecondition("it is paused: engine unpause it first")
        if state.running and not stop:
            raise FailedPrecondition("it is running: stop it, or give --stop")

    def _image(self, container: Container) -> Image | None:
        record = container.record
        if not record.image_id:
            return None
        try:
            return self._services.images.get(record.image_id)
        except NotFound:
            raise FailedPrecondition(
                f"its image {record.image} ({record.image_id[7:19]}) is not here any more, and has"
                " to be unpacked for the other driver: load it again, or export the container"
            ) from None

    def _stop(self, container: Container, target: str, timeout: int | None) -> None:
        self._services.layers.migrations.announce(container.id, target)
        container.keep = True
        try:
            self._lifecycle.stop(container, timeout)
        except NotModified:
            pass
        finally:
            container.keep = False

    def _move(
        self, container: Container, image: Image | None, target: str, running: bool
    ) -> Iterator[Json]:
        """Move one that does not run; who wants to start or remove it meanwhile waits."""
        services, record = self._services, container.record
        layers, source = services.layers, record.driver

        def switched() -> None:
            record.driver = target
            services.store.save(container)

        with container.lock:
            if services.store.get(record.id) is not container:
                raise NotFound("it was removed meanwhile")
            if record.state.running:
                raise FailedPrecondition("it was started meanwhile: try again")
            use: Use = "throwaway" if record.host.auto_remove else "container"
            try:
                with layers.held(record.id):
                    for progress in layers.migrations.migrate(
                        record.id, image, target, use=use, restart=running, switched=switched
                    ):
                        if progress.step != "migrated":
                            yield {
                                "status": progress.step,
                                "current": progress.done,
                                "total": progress.total,
                                "bytes": progress.bytes,
                            }
            finally:
                record.driver = layers.driver_of(record.id)
        services.emit(container, "migrate", source=source, target=target)

    def _start_again(self, container: Container) -> None:
        services = self._services
        if services.store.get(container.id) is not container:
            return
        try:
            self._lifecycle.start(container)
        except NotModified:
            pass
        finally:
            services.layers.migrations.started(container.id)

    def resume(self) -> None:
        """After a start of the daemon: start what was stopped for a move that was interrupted."""
        services = self._services
        for migration in list(services.layers.migrations.pending):
            container = services.store.get(migration.container)
            if container is None:
                continue
            if migration.phase == "copying":
                logger.warning(
                    "the move of container %s from %s to %s was interrupted; to go on: engine"
                    " storage migrate --to %s %s",
                    container.record.name,
                    migration.source,
                    migration.target,
                    migration.target,
                    container.record.name,
                )
            if migration.restart:
                try:
                    self._start_again(container)
                except (EngineError, OSError) as error:
                    logger.warning("starting container %s: %s", container.record.name, error)
