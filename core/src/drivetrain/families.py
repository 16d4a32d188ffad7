"""The five families of drivers: their hooks, which of them must be there, and what absent ones do.

:func:`family` imports a family's contract when it is first asked for, so that a process which
needs one family (a container's shim) pays for no other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Generic, TypeVar

from drivetrain.errors import InvalidArgument
from drivetrain.markers import hookimpl

H = TypeVar("H")

NAMES = ("storage", "network", "log", "volume", "extension")


class _Defaults:
    """A pluggy plugin whose hooks return constants."""

    def __init__(self, values: Mapping[str, object]) -> None:
        for name, value in values.items():
            setattr(self, name, hookimpl(_constant(value), trylast=True))


def _constant(value: object):  # type: ignore[no-untyped-def]  # pluggy looks at the real function
    def default():  # type: ignore[no-untyped-def]
        return value

    return default


@dataclass(frozen=True)
class Family(Generic[H]):
    """One kind of driver.

    Attributes:
        name: ``storage``, ``network``, ``log``, ``volume`` or ``extension``.
        hooks: the class of its hookspecs.
        required: the hooks that every driver of it must implement.
        defaults: what each other hook returns for a driver that lacks it, or that returned
            ``None`` from it.
    """

    name: str
    hooks: type[H]
    required: tuple[str, ...]
    defaults: Mapping[str, object]

    @property
    def group(self) -> str:
        """The group of its entry points."""
        return "drivetrain." + self.name

    @cached_property
    def hook_names(self) -> tuple[str, ...]:
        """All hooks, in the order of the contract."""
        return tuple(
            name for name, value in vars(self.hooks).items() if hasattr(value, "drivetrain_spec")
        )

    @cached_property
    def defaults_plugin(self) -> object:
        """The plugin that is registered behind each driver."""
        return _Defaults(self.defaults)


@cache
def family(name: str) -> Family[object]:
    """Return a family by its name.

    Raises:
        InvalidArgument: there is no such family.
    """
    match name:
        case "storage":
            return _storage()
        case "network":
            return _network()
        case "log":
            return _log()
        case "volume":
            return _volume()
        case "extension":
            return _extension()
    raise InvalidArgument(f"no such family of drivers: {name} (known: {', '.join(NAMES)})")


def _storage() -> Family[object]:
    from drivetrain.storage import StorageHooks

    return Family(
        name="storage",
        hooks=StorageHooks,
        required=(
            "storage_open",
            "layer_create",
            "layer_mounts",
            "layer_commit",
            "layer_remove",
        ),
        defaults={
            "storage_probe": True,
            "layer_unmounted": True,
            "layer_usage": None,
            "layer_changes": None,
            "layer_metadata": None,
            "layer_snapshot_time": 0,
            "storage_options": (),
            "layer_options": (),
            "storage_status": (),
            "storage_close": True,
        },
    )


def _network() -> Family[object]:
    from drivetrain.network import NetworkHooks, NetworkTraits, PortPolicy

    return Family(
        name="network",
        hooks=NetworkHooks,
        required=("network_create", "network_delete", "endpoint_join"),
        defaults={
            "network_probe": True,
            "network_traits": NetworkTraits(),
            "network_driver_options": (),
            "network_options": (),
            "endpoint_options": (),
            "network_open": True,
            "network_sync": True,
            "endpoint_create": True,
            "endpoint_leave": True,
            "endpoint_rename": True,
            "endpoint_delete": True,
            "port_policy": PortPolicy(),
            "port_publish": True,
            "port_unpublish": True,
            "subnets_choose": None,
            "subnets_release": True,
            "address_take": None,
            "address_release": True,
            "network_list": None,
            "peer_list": (),
            "peer_find": (),
            "network_status": (),
            "network_close": True,
        },
    )


def _log() -> Family[object]:
    from drivetrain.log import LogHooks, LogTraits

    return Family(
        name="log",
        hooks=LogHooks,
        required=("log_open", "log_write"),
        defaults={
            "log_probe": True,
            "log_traits": LogTraits(),
            "log_options": (),
            "log_validate": True,
            "log_connect": True,
            "log_flush": True,
            "log_close": True,
            "log_read": None,
            "log_remove": True,
        },
    )


def _volume() -> Family[object]:
    from drivetrain.volume import VolumeHooks, VolumeTraits

    return Family(
        name="volume",
        hooks=VolumeHooks,
        required=("volume_open", "volume_create", "volume_mount", "volume_remove"),
        defaults={
            "volume_probe": True,
            "volume_traits": VolumeTraits(),
            "volume_options": (),
            "volume_unmount": True,
            "volume_path": None,
            "volume_usage": None,
            "volume_snapshot": None,
            "volume_clone": None,
            "volume_restore": None,
            "volume_list": (),
            "volume_close": True,
        },
    )


def _extension() -> Family[object]:
    from drivetrain.extension import ExtensionHooks

    return Family(
        name="extension",
        hooks=ExtensionHooks,
        required=(),
        defaults={
            "extension_open": None,
            "extension_close": None,
            "event_emitted": None,
            "container_creating": None,
            "extension_middleware": (),
            "extension_routes": (),
            "extension_metrics": (),
            "extension_commands": (),
        },
    )
