"""From the JSON of a request to checked objects with defaults filled in."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from drivetrain.errors import InvalidArgument
from drivetrain_engine.containers.request import checks, modes, resources
from drivetrain_engine.containers.request.config import Config, Healthcheck
from drivetrain_engine.containers.request.hostconfig import HostConfig
from drivetrain_engine.containers.request.ports import normalize_ports
from drivetrain_engine.containers.settings import ContainerSettings
from drivetrain_engine.containers.signals import parse_signal
from drivetrain_engine.containers.spec import paths

Json = dict[str, Any]


class CreateRequest(msgspec.Struct):
    """A checked request.

    Attributes:
        config, host: with defaults filled in, and the image's settings.
        networks: ``NetworkingConfig.EndpointsConfig``, what is asked of each network.
        warnings: for the user.
    """

    config: Config
    host: HostConfig
    networks: dict[str, Json]
    warnings: list[str]


def _without_nulls(document: Mapping[str, Any]) -> Json:
    return {key: value for key, value in document.items() if value is not None}


def _convert(document: object, kind: type[Any], where: str) -> Any:
    if not isinstance(document, Mapping):
        raise InvalidArgument(f"{where}: an object is needed")
    document = _without_nulls(document)
    for key in ("Cmd", "Entrypoint"):
        # Clients older than API 1.20 send one string.
        if isinstance(document.get(key), str):
            document[key] = [document[key]]
    for key in ("LogConfig", "RestartPolicy", "Healthcheck"):
        if isinstance(document.get(key), Mapping):
            document[key] = _without_nulls(document[key])
    try:
        return msgspec.convert(document, kind)
    except msgspec.ValidationError as error:
        raise InvalidArgument(f"invalid JSON: {where}: {error}") from None


def parse_host_config(document: object) -> HostConfig:
    """Return ``HostConfig`` without defaults filled in.

    Raises:
        InvalidArgument: a field has the wrong type.
    """
    parsed: HostConfig = _convert(document, HostConfig, "HostConfig")
    return parsed


def parse_create(
    body: Mapping[str, Any], image_config: Mapping[str, Any], settings: ContainerSettings
) -> CreateRequest:
    """Check the body of ``POST /containers/create``.

    Args:
        body: the JSON.
        image_config: the ``config`` object of the image's config.
        settings: the daemon's defaults.

    Raises:
        InvalidArgument: anything in it is wrong; in Docker's words where it has some.
    """
    top = {key: value for key, value in body.items() if key not in ("HostConfig", "Networking")}
    config: Config = _convert(top, Config, "Config")
    host = parse_host_config(body.get("HostConfig") or {})
    networking = body.get("NetworkingConfig") or {}
    endpoints = networking.get("EndpointsConfig") if isinstance(networking, Mapping) else None
    networks = {name: dict(value or {}) for name, value in (endpoints or {}).items()}
    _check_config(config)
    _merge_image(config, image_config)
    if not (config.entrypoint or config.cmd):
        raise InvalidArgument("no command specified")
    warnings = _fill_host(config, host, settings)
    modes.check_network_conflicts(config, host)
    _place_mac_address(config, host, networks)
    return CreateRequest(config, host, networks, warnings)


def _check_config(config: Config) -> None:
    for variable in config.env or ():
        if not variable or variable.startswith("=") or "\0" in variable:
            raise InvalidArgument(f"invalid environment variable: {variable}")
    if config.hostname and len(config.hostname) > 63:
        raise InvalidArgument(f"invalid hostname: {config.hostname} is longer than 63 characters")
    for name in (config.hostname, config.domainname):
        if name and not re.fullmatch(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?", name):
            raise InvalidArgument(f"invalid hostname: {name}")
    if config.working_dir:
        if not config.working_dir.startswith("/"):
            raise InvalidArgument(
                f"the working directory '{config.working_dir}' is invalid, it needs to be an "
                "absolute path"
            )
        config.working_dir = "/" + posixpath.normpath(config.working_dir).lstrip("/")
    if config.stop_signal:
        parse_signal(config.stop_signal)
    _check_health(config.healthcheck)


def _check_health(health: Healthcheck | None) -> None:
    if health is None:
        return
    for field in ("interval", "timeout", "start_period", "start_interval"):
        value = getattr(health, field)
        if value and value < 1_000_000:
            name = "".join(word.title() for word in field.split("_"))
            raise InvalidArgument(f"{name} in Healthcheck cannot be less than 1ms")
    if health.retries < 0:
        raise InvalidArgument("Retries in Healthcheck cannot be negative")
    if health.test and health.test[0] not in ("NONE", "CMD", "CMD-SHELL"):
        raise InvalidArgument(
            f"unknown type {health.test[0]} of health check: NONE, CMD or CMD-SHELL is needed"
        )


def _merge_image(config: Config, image: Mapping[str, Any]) -> None:
    """Fill in what the request leaves to the image."""
    config.user = config.user or image.get("User") or ""
    config.working_dir = config.working_dir or image.get("WorkingDir") or ""
    config.stop_signal = config.stop_signal or image.get("StopSignal") or ""
    config.shell = config.shell or image.get("Shell")
    if config.entrypoint is None:
        config.cmd = config.cmd or image.get("Cmd")
        config.entrypoint = image.get("Entrypoint")
    elif config.entrypoint == [""]:
        config.entrypoint = None  # --entrypoint "" takes the image's away
    names = {variable.partition("=")[0] for variable in config.env or ()}
    inherited = [one for one in image.get("Env") or () if one.partition("=")[0] not in names]
    config.env = [*inherited, *(config.env or ())]
    config.labels = {**(image.get("Labels") or {}), **(config.labels or {})}
    for field in ("exposed_ports", "volumes"):
        key = "ExposedPorts" if field == "exposed_ports" else "Volumes"
        if image.get(key):
            setattr(config, field, {**image[key], **(getattr(config, field) or {})})
    _merge_health(config, image.get("Healthcheck"))


def _merge_health(config: Config, document: Mapping[str, Any] | None) -> None:
    if not document:
        return
    image: Healthcheck = _convert(document, Healthcheck, "Healthcheck")
    own = config.healthcheck
    if own is None:
        config.healthcheck = image
        return
    for field in own.__struct_fields__:
        if not getattr(own, field):
            setattr(own, field, getattr(image, field))


def _fill_host(config: Config, host: HostConfig, settings: ContainerSettings) -> list[str]:
    """Fill in defaults and check; return warnings."""
    warnings = resources.check_resources(host, update=False)
    modes.fill_modes(config, host, settings)
    checks.check_host(host, settings)
    config.exposed_ports, host.port_bindings = normalize_ports(
        config.exposed_ports, host.port_bindings
    )
    if host.shm_size < 0:
        raise InvalidArgument("SHM size can not be less than 0")
    if not host.shm_size and not host.ipc_mode.startswith(("host", "container:", "none")):
        host.shm_size = settings.shm_size
    if host.privileged:
        host.masked_paths = host.masked_paths or []
        host.readonly_paths = host.readonly_paths or []
    else:
        if host.masked_paths is None:
            host.masked_paths = list(paths.MASKED)
        if host.readonly_paths is None:
            host.readonly_paths = list(paths.READ_ONLY)
    return warnings


def _place_mac_address(config: Config, host: HostConfig, networks: dict[str, Json]) -> None:
    """Give the container-wide address of old clients to the main network."""
    if config.mac_address and modes.is_named_network(host.network_mode):
        endpoint = networks.setdefault(host.network_mode, {})
        given = endpoint.get("MacAddress")
        if given and given != config.mac_address:
            raise InvalidArgument(
                "the container-wide MAC address must match the endpoint-specific MAC address for "
                "the main network, or be left empty"
            )
        endpoint["MacAddress"] = config.mac_address
