"""The containers of this host: one service for everything that happens to them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from drivetrain.errors import (
    EngineError,
    FailedPrecondition,
    InvalidArgument,
)
from drivetrain_engine.containers import attaching, pausing
from drivetrain_engine.containers.committing import commit
from drivetrain_engine.containers.connecting import connect, disconnect
from drivetrain_engine.containers.container import Container
from drivetrain_engine.containers.creation import Creator
from drivetrain_engine.containers.execs import Attachment, Execs
from drivetrain_engine.containers.files import Files
from drivetrain_engine.containers.lifecycle import Lifecycle
from drivetrain_engine.containers.listing import Listing
from drivetrain_engine.containers.logservice import LogService
from drivetrain_engine.containers.migrating import Migrator
from drivetrain_engine.containers.mountpoints import MountPoints
from drivetrain_engine.containers.reconcile import Reconciler
from drivetrain_engine.containers.removal import Remover
from drivetrain_engine.containers.renaming import rename
from drivetrain_engine.containers.rootfs import Rootfs
from drivetrain_engine.containers.services import Services
from drivetrain_engine.containers.settings import ContainerSettings
from drivetrain_engine.containers.shimlink import Shim
from drivetrain_engine.containers.spec.cgroups import cgroup_path
from drivetrain_engine.containers.starting import Starter
from drivetrain_engine.containers.statistics import sample
from drivetrain_engine.containers.store import Store
from drivetrain_engine.containers.top import processes
from drivetrain_engine.containers.updating import update
from drivetrain_engine.containers.views import Views

if TYPE_CHECKING:
    from drivetrain.registry import Registry
    from drivetrain_engine.containers.protocol import ExitStatus, LogStatus
    from drivetrain_engine.containers.shims import Shims
    from drivetrain_engine.content import Images
    from drivetrain_engine.layers import Layers
    from drivetrain_engine.networks import Networks
    from drivetrain_engine.state import Events, State
    from drivetrain_engine.volumes import Volumes

Json = dict[str, Any]
# inside the class, ``list`` is a method
Documents = list[Json]
Strings = list[str]

_WORKERS = 16


class Containers:
    """The container service. Thread-safe; everything is synchronous.

    Args:
        root: a directory per container.
        exec_root: for what a reboot may take away; short, sockets live there.
        state, events, images, layers, networks, volumes, shims, registry: the services below.
        settings: the daemon's defaults.
    """

    def __init__(
        self,
        *,
        root: Path,
        exec_root: Path,
        state: State,
        events: Events,
        images: Images,
        layers: Layers,
        networks: Networks,
        volumes: Volumes,
        shims: Shims,
        registry: Registry,
        settings: ContainerSettings | None = None,
    ) -> None:
        root.mkdir(mode=0o710, parents=True, exist_ok=True)
        exec_root.mkdir(mode=0o711, parents=True, exist_ok=True)
        store = Store(state)
        self._services = Services(
            root=root,
            exec_root=exec_root,
            events=events,
            images=images,
            layers=layers,
            networks=networks,
            volumes=volumes,
            shims=shims,
            registry=registry,
            settings=settings or ContainerSettings(),
            store=store,
            mounts=MountPoints(
                volumes, layers, images, lambda name: store.find(name).record, exec_root / "mapped"
            ),
            rootfs=Rootfs(layers),
            pool=ThreadPoolExecutor(_WORKERS, thread_name_prefix="containers"),
        )
        self._services.execs = Execs(self._services)
        self._services.logs = LogService(self._services)
        self._store = store
        self._starter = Starter(self._services)
        self._remover = Remover(self._services)
        self._lifecycle = Lifecycle(self._services, self._starter, self._remover.remove)
        self._creator = Creator(self._services, self._remover)
        self._migrator = Migrator(self._services, self._lifecycle)
        self._files = Files(self._services)
        self._views = Views(self._services)
        self._listing = Listing(self._services)
        self._pruning = threading.Lock()
        images.users.append(self._users_of_image)

    def _users_of_image(self, image_id: str) -> Strings:
        return [
            f"container {one.id} ({one.record.status})"
            for one in self._store.all()
            if one.record.image_id == image_id
        ]

    # what the shims tell

    def on_exit(self, shim: Shim, status: ExitStatus) -> None:
        """Take note of the end of a shim's container; returns at once."""
        self._lifecycle.exited(shim, status)

    def on_exec_exit(self, container_id: str, exec_id: str, code: int) -> None:
        """Take note of the end of an exec."""
        self._services.execs.exited(container_id, exec_id, code)

    def on_log(self, container_id: str, statuses: list[LogStatus]) -> None:
        """Take note of how a container's log drivers are doing."""
        self._services.logs.on_log(container_id, statuses)

    def log_statuses(self) -> Iterator[tuple[str, LogStatus]]:
        """Yield name and status of each log driver of each container, for metrics."""
        for container in self._store.all():
            for status in self._services.logs.statuses(container):
                yield container.record.name, status

    # making, removing

    def create(self, name: str | None, body: Mapping[str, Any]) -> tuple[str, Strings]:
        """Make a container; returns its id and warnings. Errors as for ``Creator.create``."""
        return self._creator.create(name, body)

    def remove(self, reference: str, volumes: bool = False, force: bool = False) -> None:
        """Remove a container.

        Args:
            reference: id, name or beginning of an id.
            volumes: its anonymous volumes too.
            force: kill it first if it runs.

        Raises:
            NotFound: no such container.
            FailedPrecondition: it runs.
        """
        container = self._store.find(reference)
        self._remover.claim(container, volumes, force)
        container.keep = True
        try:
            if force:
                self._kill_before_removal(container)
            self._remover.remove(container, volumes)
        finally:
            container.keep = False

    def _kill_before_removal(self, container: Container) -> None:
        try:
            with contextlib.suppress(FailedPrecondition):
                self._lifecycle.kill(container, "SIGKILL")
        except EngineError:
            self._remover.disclaim(container)
            raise

    def prune(self, filters: Mapping[str, Any] | None = None) -> Json:
        """Remove all containers that do not run.

        Args:
            filters: label, label!, until.
        """
        if not self._pruning.acquire(blocking=False):
            raise FailedPrecondition("a prune operation is already running")
        try:
            deleted, freed = [], 0
            for container in self._listing.prunable(filters or {}):
                try:
                    size, _ = self._services.layers.usage(container.id)
                    self._remover.remove(container, False)
                except EngineError:
                    continue
                deleted.append(container.id)
                freed += size
            self._services.events.emit("container", "prune", "", {"reclaimed": str(freed)})
            return {"ContainersDeleted": deleted or None, "SpaceReclaimed": freed}
        finally:
            self._pruning.release()

    # what there is

    def inspect(self, reference: str, size: bool = False) -> Json:
        """Return ``ContainerInspectResponse``."""
        return self._views.inspect(self._store.find(reference), size)

    def list(
        self,
        all: bool = False,
        limit: int = 0,
        size: bool = False,
        filters: Mapping[str, Any] | None = None,
    ) -> Documents:
        """Return the API's list, the latest first; see ``Listing.choose``."""
        chosen = self._listing.choose(filters or {}, all=all, limit=limit)
        return [self._views.summary(container, size) for container in chosen]

    def counts(self) -> dict[str, int]:
        """Return how many containers there are, run, are paused and are stopped."""
        statuses = [one.record.status for one in self._store.all()]
        running = statuses.count("running") + statuses.count("restarting")
        paused = statuses.count("paused")
        return {
            "total": len(statuses),
            "running": running,
            "paused": paused,
            "stopped": len(statuses) - running - paused,
        }

    # running

    def start(self, reference: str) -> None:
        """Start a container; errors as for ``Lifecycle.start``."""
        self._lifecycle.start(self._store.find(reference))

    def stop(self, reference: str, timeout: int | None = None, signal: str | None = None) -> None:
        """Stop a container; ``NotModified`` when it does not run."""
        self._lifecycle.stop(self._store.find(reference), timeout, signal)

    def restart(
        self, reference: str, timeout: int | None = None, signal: str | None = None
    ) -> None:
        """Stop and start a container."""
        self._lifecycle.restart(self._store.find(reference), timeout, signal)

    def kill(self, reference: str, signal: str = "SIGKILL") -> None:
        """Send a signal to a container's first process."""
        self._lifecycle.kill(self._store.find(reference), signal)

    def pause(self, reference: str) -> None:
        """Freeze a container."""
        pausing.pause(self._services, self._store.find(reference))

    def unpause(self, reference: str) -> None:
        """Let a container go on."""
        pausing.unpause(self._services, self._store.find(reference))

    def wait(self, reference: str, condition: str = "not-running") -> Future[Json]:
        """Return a future of the exit code; the waiter is registered when this returns.

        Args:
            reference: the container.
            condition: ``not-running``, ``next-exit`` or ``removed``.
        """
        if condition not in ("", "not-running", "next-exit", "removed"):
            raise InvalidArgument(f'invalid condition: "{condition}"')
        return self._store.find(reference).wait(condition or "not-running")

    def rename(self, reference: str, name: str) -> None:
        """Give a container another name; errors as for ``rename``."""
        rename(self._services, self._store.find(reference), name)

    def update(self, reference: str, body: Mapping[str, Any]) -> Strings:
        """Change limits and restart policy; returns warnings."""
        return update(self._services, self._store.find(reference), body)

    def top(self, reference: str, ps_args: str = "-ef") -> Json:
        """Return the processes of a running container, as ``ps`` on the host shows them."""
        container = self._store.find(reference)
        self._check_running(container)
        found = processes(self._group(container), ps_args)
        self._services.emit(container, "top")
        return found

    def stats(self, reference: str) -> Json:
        """Return one sample of what a container uses."""
        container = self._store.find(reference)
        return sample(container.record, self._group(container))

    def _group(self, container: Container) -> str:
        parent = container.record.host.cgroup_parent
        return cgroup_path(container.id, parent, self._services.settings.cgroup_parent)

    @staticmethod
    def _check_running(container: Container) -> Shim:
        shim = container.shim
        if shim is None:
            raise FailedPrecondition(f"container {container.id} is not running")
        return shim

    # files

    def changes(self, reference: str) -> Documents:
        """Return what differs from the image."""
        return self._files.changes(self._store.find(reference))

    def export(self, reference: str) -> Iterator[bytes]:
        """Return a tar of the whole root."""
        return self._files.export(self._store.find(reference))

    def commit(self, query: Mapping[str, str], body: Json | None = None) -> str:
        """Make an image of ``query["container"]`` and return its id."""
        container = self._store.find(query.get("container") or "")
        return commit(self._services, container, query, body)

    def archive_stat(self, reference: str, path: str) -> Json:
        """Return the stat of a path in a container."""
        return self._files.stat(self._store.find(reference), path)

    def archive_get(self, reference: str, path: str) -> tuple[Json, Iterator[bytes]]:
        """Return the stat of a path and a tar of it."""
        return self._files.get(self._store.find(reference), path)

    def archive_put(
        self,
        reference: str,
        path: str,
        stream: IO[bytes],
        no_overwrite: bool = False,
        copy_uid_gid: bool = False,
    ) -> None:
        """Unpack a tar at a path in a container; see ``Files.put``."""
        self._files.put(
            self._store.find(reference),
            path,
            stream,
            no_overwrite=no_overwrite,
            keep_owner=copy_uid_gid,
        )

    # streams

    def logs(
        self,
        reference: str,
        *,
        stdout: bool = True,
        stderr: bool = True,
        since: int = 0,
        until: int = 0,
        timestamps: bool = False,
        tail: int = -1,
        follow: bool = False,
        details: bool = False,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> tuple[bool, Iterator[tuple[int, bytes]]]:
        """Return whether a container has a terminal, and its log; arguments as of ``logs.read``."""
        container = self._store.find(reference)
        source = self._services.logs.read(
            container,
            cancelled,
            stdout=stdout,
            stderr=stderr,
            since=since,
            until=until,
            tail=tail,
            follow=follow,
            timestamps=timestamps,
            details=details,
        )
        return container.record.config.tty, source

    def attach(
        self,
        reference: str,
        *,
        stdin: bool = False,
        stdout: bool = False,
        stderr: bool = False,
        stream: bool = True,
        logs: bool = False,
    ) -> Attachment:
        """Return the streams of a container; one that does not run yet gives them at its start.

        Raises:
            FailedPrecondition: it is paused or restarting.
        """
        container = self._store.find(reference)
        backlog = None
        if logs:
            _, backlog = self.logs(reference, stdout=stdout, stderr=stderr)
        connection = None
        with container.lock:
            attaching.check(container, reference)
            if stream:
                connection = attaching.attach(container, stdin=stdin, stdout=stdout, stderr=stderr)
            self._services.emit(container, "attach")
        return Attachment(connection, container.record.config.tty, backlog)

    def resize(self, reference: str, height: int, width: int) -> None:
        """Set the size of a container's terminal, in characters."""
        container = self._store.find(reference)
        self._check_running(container).resize(height, width)
        self._services.emit(container, "resize", height=str(height), width=str(width))

    # execs

    def exec_create(self, reference: str, body: Mapping[str, Any]) -> str:
        """Make an exec and return its id."""
        return self._services.execs.create(self._store.find(reference), body)

    def exec_start(self, exec_id: str, body: Mapping[str, Any] | None = None) -> Attachment | None:
        """Start an exec and return its streams; ``None`` when detached."""
        return self._services.execs.start(exec_id, body or {})

    def exec_inspect(self, exec_id: str) -> Json:
        """Return ``ExecInspectResponse``."""
        return self._services.execs.inspect(exec_id)

    def exec_resize(self, exec_id: str, height: int, width: int) -> None:
        """Set the size of an exec's terminal, in characters."""
        self._services.execs.resize(exec_id, height, width)

    # storage

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
        """Move containers to another storage driver; see ``Migrator.migrate``."""
        return self._migrator.migrate(
            references,
            target,
            everything=everything,
            stop=stop,
            timeout=timeout,
            dry_run=dry_run,
        )

    # networks

    def network_connect(self, reference: str, network: str, endpoint: Mapping[str, Any]) -> None:
        """Connect a container to one more network; errors as for ``connect``."""
        connect(self._services, self._store.find(reference), network, endpoint)

    def network_disconnect(self, reference: str, network: str, force: bool = False) -> None:
        """Take a container off a network; errors as for ``disconnect``."""
        disconnect(self._services, self._store.find(reference), network, force)

    # the daemon

    def reconcile(self) -> None:
        """Bring records and host together after a start, then go by the restart policies."""
        Reconciler(self._services, self._starter, self._lifecycle, self._remover).run()
        self._migrator.resume()

    def configure(self, settings: ContainerSettings) -> None:
        """Take other defaults, for what is made and started from now on."""
        self._services.settings = settings

    def stop_all(self, timeout: int | None = None) -> None:
        """Stop all running containers at once, as a daemon without live-restore does at its end.

        Restart policies start them again with the daemon.

        Args:
            timeout: seconds before SIGKILL; ``None``: each container's own.
        """
        self._lifecycle.stop_all(timeout)

    def close(self) -> None:
        """End the service's own work. Containers and their shims go on."""
        self._lifecycle.close()
        self._services.logs.close()
        for container in self._store.all():
            if container.health is not None:
                container.health.stop()
        self._services.pool.shutdown(wait=True, cancel_futures=True)


__all__ = ["Attachment", "ContainerSettings", "Containers"]
