"""What a daemon is put together from, and the order in which that happens."""

from __future__ import annotations

import logging
import socket
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from drivetrain.registry import Registry
from drivetrain_engine.api.backend import Backend, Facts
from drivetrain_engine.containers.logconfig import LogOwner, parse_log_config, shown_options
from drivetrain_engine.containers.service import Containers
from drivetrain_engine.containers.shims import Shims
from drivetrain_engine.content import Images
from drivetrain_engine.daemon.settings import Settings
from drivetrain_engine.daemon.translation import (
    container_settings,
    default_runtime,
    find_runtimes,
    network_settings,
    registry_settings,
)
from drivetrain_engine.daemon.watching import Watchers
from drivetrain_engine.layers import Layers, choose_default
from drivetrain_engine.networks import Networks
from drivetrain_engine.state import Events, State
from drivetrain_engine.volumes import Volumes

log = logging.getLogger("engine.daemon")


class Assembly:
    """All services of one daemon.

    The constructor only starts the zygote, which gets ready meanwhile; what touches the host is
    in :meth:`open`.

    Args:
        settings: of the daemon.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.started = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        self.root = Path(settings.data_root)
        self.exec_root = Path(settings.exec_root)
        self._closers: list[tuple[str, Callable[[], object]]] = []
        self._containers: Containers | None = None
        self._storage_driver = ""
        self.shims = Shims(
            exec_root=self.exec_root,
            on_exit=lambda *arguments: self._service().on_exit(*arguments),
            on_exec_exit=lambda *arguments: self._service().on_exec_exit(*arguments),
            on_log=lambda *arguments: self._service().on_log(*arguments),
        )
        self._closers.append(("shims", self.shims.close))
        self.runtimes = find_runtimes(settings, self.root / "runtimes")
        self.backend: Backend = None  # type: ignore[assignment]

    def _service(self) -> Containers:
        assert self._containers is not None, "no container runs before the services are open"
        return self._containers

    def open(self) -> None:
        """Make the services, and make the host agree with what they remember.

        Raises:
            EngineError: the daemon cannot start; names what is missing.
        """
        settings = self.settings
        registry = self._registry = Registry()
        state = State(self.root / "state.db")
        self._closers.append(("state", state.close))
        events = Events()
        watchers = Watchers(registry.extensions(), self._shown())
        self._closers.append(("extensions", watchers.close))
        events.listeners.append(watchers.emitted)
        self._check_log_driver(registry)
        images = Images(
            root=self._directory("content"),
            state=state,
            events=events,
            registries=registry_settings(settings),
        )
        layers = self._open_layers(registry, state, images)
        networks = self._open_networks(registry, state, events)
        volumes = Volumes(
            root=self._directory("volumes", 0o711), state=state, registry=registry, events=events
        )
        self._closers.append(("volumes", volumes.close))
        containers = Containers(
            root=self._directory("containers"),
            exec_root=self.exec_root,
            state=state,
            events=events,
            images=images,
            layers=layers,
            networks=networks,
            volumes=volumes,
            shims=self.shims,
            registry=registry,
            settings=container_settings(settings, self.runtimes),
        )
        self._containers = containers
        self._closers.append(("containers", containers.close))
        containers.reconcile()
        self.backend = Backend(
            registry=registry,
            events=events,
            images=images,
            layers=layers,
            networks=networks,
            volumes=volumes,
            containers=containers,
            facts=self.facts,
            extensions=tuple(watchers.extensions),
        )

    def _open_networks(self, registry: Registry, state: State, events: Events) -> Networks:
        networks = Networks(
            root=self._directory("networks"),
            exec_root=self.exec_root,
            state=state,
            registry=registry,
            events=events,
            settings=network_settings(self.settings),
        )
        self._closers.append(("networks", networks.close))
        networks.open()
        return networks

    def _open_layers(self, registry: Registry, state: State, images: Images) -> Layers:
        settings = self.settings
        root = self._directory("storage", 0o711)
        self._storage_driver = choose_default(
            root,
            registry,
            state,
            settings.storage_driver or None,
            settings.storage_driver_priority,
        )
        log.info("storage driver %s", self._storage_driver)
        layers = Layers(
            root=root,
            mounts_root=self._directory("mounts", 0o711),
            state=state,
            images=images,
            registry=registry,
            default=self._storage_driver,
            options=settings.storage_options(),
        )
        self._closers.append(("layers", layers.close))
        return layers

    def _check_log_driver(self, registry: Registry) -> None:
        """Fail at the start and not at the first container.

        Raises:
            EngineError: the driver does not exist, or does not know an option.
        """
        parse_log_config(
            registry,
            self.settings.log_driver,
            self.settings.log_opts,
            LogOwner("0" * 64, "example", self.root),
        )

    def _directory(self, name: str, mode: int = 0o700) -> Path:
        path = self.root / name
        path.mkdir(mode=mode, exist_ok=True)
        return path

    def _shown(self) -> dict[str, object]:
        """Return all settings by key, without secrets."""
        driver, options = self.settings.log_driver, self.settings.log_opts
        shown = shown_options(self._registry, driver, options)
        return {**self.settings.as_dict(), "log-opts": shown}

    def facts(self) -> Facts:
        """Return what ``info`` tells of the daemon."""
        settings = self.settings
        return Facts(
            id=self._identity(),
            root=settings.data_root,
            exec_root=settings.exec_root,
            name=socket.gethostname(),
            debug=settings.debug,
            labels=settings.labels,
            storage_driver=self._storage_driver,
            log_driver=settings.log_driver,
            default_runtime=settings.default_runtime or default_runtime(self.runtimes),
            runtimes=self.runtimes,
            init_binary=settings.init_path or "engine-init",
            live_restore=settings.live_restore,
            pools=[(pool.base, pool.size) for pool in settings.default_address_pools],
            seccomp_profile=settings.seccomp_profile,
            started=self.started,
            settings=self._shown(),
        )

    def _identity(self) -> str:
        """Return the id of this data root; made the first time."""
        path = self.root / "engine-id"
        try:
            return path.read_text(encoding="ascii").strip()
        except FileNotFoundError:
            text = str(uuid.uuid4())
            path.write_text(text + "\n", encoding="ascii")
            return text

    def busy(self) -> bool:
        """Tell whether a container runs, so that an idle daemon stays."""
        counts = self._service().counts()
        return bool(counts["running"] or counts["paused"])

    def reload(self, changed: Mapping[str, object]) -> None:
        """Hand changed settings on to the services."""
        if changed:
            self._service().configure(container_settings(self.settings, self.runtimes))
            self.backend.images.registries.settings = registry_settings(self.settings)
        attributes = {"name": socket.gethostname(), **{k: str(v) for k, v in changed.items()}}
        self.backend.events.emit("daemon", "reload", self._identity(), attributes)

    def stop_containers(self, timeout: int) -> None:
        """Stop what runs, because the daemon ends without ``live-restore``.

        Args:
            timeout: seconds that a container has before it is killed.
        """
        self._service().stop_all(timeout)

    def close(self) -> None:
        """Close everything, last made first; containers and mounts stay."""
        for name, closer in reversed(self._closers):
            try:
                closer()
            except Exception as error:
                log.warning("closing %s: %s", name, error)
        self._closers = []
