"""Making containers: everything is checked first, then recorded, then made."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from drivetrain.errors import InvalidArgument, NotFound
from drivetrain_engine.containers.container import Container
from drivetrain_engine.containers.logconfig import (
    LogOwner,
    parse_log_configs,
    share_options,
)
from drivetrain_engine.containers.networking import chosen_networks
from drivetrain_engine.containers.record import Record, timestamp
from drivetrain_engine.containers.removal import Remover
from drivetrain_engine.containers.request.modes import container_mode
from drivetrain_engine.containers.request.parse import CreateRequest, parse_create
from drivetrain_engine.containers.services import Services
from drivetrain_engine.state import new_id

if TYPE_CHECKING:
    from drivetrain_engine.containers.mountpoints import Wanted
    from drivetrain_engine.content import Image

Json = dict[str, Any]


class Creator:
    """Makes containers."""

    def __init__(self, services: Services, remover: Remover) -> None:
        self._services = services
        self._remover = remover

    def create(self, name: str | None, body: Mapping[str, Any]) -> tuple[str, list[str]]:
        """Make a container; returns its id and warnings.

        Raises:
            NotFound: no such image.
            AlreadyExists: the name is taken.
            InvalidArgument: something in the body is wrong.
            EngineError: a volume or layer could not be made; nothing is left.
        """
        services = self._services
        reference = str(body.get("Image") or "")
        image = services.images.get(reference) if reference else None
        try:
            return self._create(name, body, image)
        except NotFound as error:
            # Clients take "not found" for the image's, and would pull it.
            raise InvalidArgument(error.message) from error

    def _create(
        self, name: str | None, body: Mapping[str, Any], image: Image | None
    ) -> tuple[str, list[str]]:
        services = self._services
        request = parse_create(body, image.settings if image else {}, services.settings)
        wanted = services.mounts.plan(request.config, request.host)
        self._resolve_networks(request)
        networks = chosen_networks(request.host, request.networks)
        self._resolve_modes(request)
        container_id = new_id()
        name = services.store.reserve(name, container_id)
        try:
            record = self._record(container_id, name, request, image)
            record.networks = networks
            record.mounts = [want.point for want in wanted]
            self._set_log(record, request)
            container = Container(record)
            with container.lock:
                self._make(container, wanted, image, request)
        except BaseException:
            services.store.release(name, container_id)
            raise
        return container_id, request.warnings

    def _resolve_networks(self, request: CreateRequest) -> None:
        """Replace ids of networks by names; those that do not exist are told of at the start."""

        def name(reference: str) -> str:
            try:
                return self._services.networks.resolve(reference).name
            except NotFound:
                return reference

        host = request.host
        if not container_mode(host.network_mode):
            host.network_mode = name(host.network_mode)
        request.networks = {name(key): value for key, value in request.networks.items()}

    def _resolve_modes(self, request: CreateRequest) -> None:
        """Replace the names of other containers by their ids, which renaming does not change."""
        host = request.host
        for field in ("network_mode", "ipc_mode", "pid_mode"):
            if reference := container_mode(getattr(host, field)):
                other = self._services.store.find(reference)
                setattr(host, field, f"container:{other.id}")
                if field == "network_mode" and not request.config.hostname:
                    request.config.hostname = other.record.config.hostname

    def _record(
        self, container_id: str, name: str, request: CreateRequest, image: Image | None
    ) -> Record:
        config, host = request.config, request.host
        if not config.hostname:
            own = host.network_mode == "host" or host.uts_mode == "host"
            config.hostname = self._services.settings.host if own else ""
            config.hostname = config.hostname or container_id[:12]
        words = [*(config.entrypoint or ()), *(config.cmd or ())]
        return Record(
            id=container_id,
            name=name,
            created=timestamp(time.time_ns()),
            image=config.image,
            image_id=image.id if image else "",
            config=config,
            host=host,
            path=words[0],
            args=words[1:],
        )

    def _set_log(self, record: Record, request: CreateRequest) -> None:
        settings, first = self._services.settings, request.host.log_config
        first.type = first.type or settings.log_driver
        registry = self._services.registry
        configs = [first, *(request.host.extra_log_configs or ())]
        shared = share_options(registry, [(each.type, each.config or {}) for each in configs])
        for config, (driver, options) in zip(configs, shared, strict=True):
            defaults = settings.log_opts if driver == settings.log_driver else {}
            config.config = {**defaults, **options}
        owner = LogOwner(
            container_id=record.id,
            container_name=record.name,
            directory=self._services.directory(record.id),
            image_id=record.image_id,
            image_name=record.image,
            command=" ".join([record.path, *record.args]),
            created=record.created,
            host=settings.host,
            labels=record.labels,
            env=record.config.env or (),
        )
        chosen = [(each.type, each.config or {}) for each in configs]
        setups = parse_log_configs(registry, chosen, owner, settings.log_cache_driver)
        record.logs = msgspec.to_builtins(setups)

    def _make(
        self, container: Container, wanted: list[Wanted], image: Image | None,
        request: CreateRequest,
    ) -> None:  # fmt: skip
        services, record = self._services, container.record
        services.store.add(container)
        try:
            services.directory(record.id).mkdir(mode=0o710, parents=True)
            services.layers.create(
                record.id,
                image,
                driver=record.host.storage_driver or None,
                options=record.host.storage_opt or {},
                throwaway=bool(record.host.auto_remove),
            )
            record.driver = services.layers.driver_of(record.id)
            services.mounts.acquire(wanted, record.id)
        except BaseException:
            self._remover.undo(container)
            raise
        record.phase = "ready"
        services.store.save(container)
        services.emit(container, "create")
