"""``ContainerConfig`` of the API."""

from __future__ import annotations

from typing import Any

import msgspec


class Api(msgspec.Struct, rename="pascal", kw_only=True):
    """An object of the API: fields in the API's spelling, unknown ones ignored."""


class Healthcheck(Api):
    """A command that tells how a container is; times in nanoseconds, 0: the default."""

    test: list[str] | None = None
    interval: int = 0
    timeout: int = 0
    retries: int = 0
    start_period: int = 0
    start_interval: int = 0


class Config(Api):
    """What a container is; the rest, tied to the host, is in ``HostConfig``."""

    hostname: str = ""
    domainname: str = ""
    user: str = ""
    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    exposed_ports: dict[str, Any] | None = None
    tty: bool = False
    open_stdin: bool = False
    stdin_once: bool = False
    env: list[str] | None = None
    cmd: list[str] | None = None
    healthcheck: Healthcheck | None = None
    args_escaped: bool = False
    image: str = ""
    volumes: dict[str, Any] | None = None
    working_dir: str = ""
    entrypoint: list[str] | None = None
    network_disabled: bool = False
    mac_address: str = ""
    on_build: list[str] | None = None
    labels: dict[str, str] | None = None
    stop_signal: str = ""
    stop_timeout: int | None = None
    shell: list[str] | None = None


#: Left out of answers when empty, as Docker does.
_OMITTED = (
    "ExposedPorts", "Healthcheck", "ArgsEscaped", "NetworkDisabled", "MacAddress", "StopSignal",
    "StopTimeout", "Shell",
)  # fmt: skip


def echo(config: Config) -> dict[str, Any]:
    """Return the config as ``inspect`` shows it."""
    document: dict[str, Any] = msgspec.to_builtins(config)
    for key in _OMITTED:
        if not document[key]:
            del document[key]
    document["Labels"] = document["Labels"] or {}
    return document
