"""Drivers as the core's registry finds them, for when no daemon runs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from drivetrain.absent import advice
from drivetrain.errors import NotFound
from drivetrain.options import Option
from drivetrain.registry import DriverInfo, Registry
from drivetrain_engine.cli.address import DEFAULT_DATA_ROOT
from drivetrain_engine.cli.errors import CliError
from drivetrain_engine.cli.session import Session

FAMILIES = ("storage", "network", "log", "volume", "extension")


def _entry(session: Session, registry: Registry, info: DriverInfo) -> dict[str, Any]:
    default = {
        "storage": session.setting("storage-driver"),
        "log": session.setting("log-driver", "json-file"),
        "network": "bridge",
        "volume": "local",
    }
    supported, reason = None, info.reason
    if info.state == "ok" and info.family != "extension":
        reason = registry.probe(info.family, info.name, _place(session))
        supported = not reason
    return {
        "family": info.family,
        "name": info.name,
        "distribution": info.distribution,
        "version": info.version,
        "state": info.state,
        "supported": supported,
        "reason": reason,
        "default": default.get(info.family) == info.name,
        "in_use": 0,
    }


def describe(session: Session) -> list[dict[str, Any]]:
    """Return all installed drivers in the shape of ``GET /engine/drivers``."""
    registry = Registry()
    return [
        _entry(session, registry, info) for family in FAMILIES for info in registry.describe(family)
    ]


def inspect(session: Session, family: str, name: str) -> dict[str, Any]:
    """Return one driver in the shape of ``GET /engine/drivers/{family}/{name}``."""
    registry = Registry()
    found = [info for info in registry.describe(family) if info.name == name]
    if not found:
        known = ", ".join(registry.names(family)) or "none"
        raise CliError(
            f"No such {family} driver: {name} (installed: {known}). {advice(family, name)}"
        )
    entry = _entry(session, registry, found[0])
    entry["options"] = []
    if found[0].state == "ok":
        entry["options"] = [_option(option) for option in _options(registry, family, name)]
    return entry


def _options(registry: Registry, family: str, name: str) -> list[Option]:
    if family == "storage":
        storage = registry.storage(name).call
        return [*(storage.storage_options() or ()), *(storage.layer_options() or ())]
    if family == "network":
        network = registry.network(name).call
        return [*(network.network_options() or ()), *(network.endpoint_options() or ())]
    if family == "log":
        return list(registry.log(name).call.log_options() or ())
    return list(registry.volume(name).call.volume_options() or ())


def _option(option: Option) -> dict[str, Any]:
    return {
        "name": option.name,
        "type": option.type,
        "default": option.default,
        "help": option.help,
        "choices": list(option.choices),
        "secret": option.secret,
    }


def probe(session: Session, family: str, name: str) -> tuple[bool, str]:
    """Try a driver on this host; return whether it is supported, and why not."""
    try:
        reason = Registry().probe(family, name, _place(session))
    except NotFound as error:
        raise CliError(error.message) from error
    return not reason, reason


def _place(session: Session) -> Path:
    """Return the data root, or the nearest directory above it that exists."""
    path = os.path.abspath(session.setting("data-root", DEFAULT_DATA_ROOT))
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return Path(path)
