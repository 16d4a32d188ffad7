"""Which storage driver a data root gets."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from drivetrain.errors import EngineError, Internal, NotSupported
from drivetrain.registry import Registry
from drivetrain_engine.layers.places import free
from drivetrain_engine.state import State

PRIORITY = ("overlay2", "fuse-overlayfs", "btrfs", "vfs")
#: Name of the table that remembers the default of a data root.
TABLE = "storage"


def choose_default(
    root: Path,
    registry: Registry,
    state: State,
    wanted: str | None = None,
    priority: Sequence[str] = PRIORITY,
) -> str:
    """Return the driver for what comes, after probing it.

    A named driver wins; else the one that this data root had; else the first of ``priority`` that
    this host supports. A driver that was named, or worked before, and fails now is an error: a
    silent change would hide containers.

    Args:
        root: the directory below which drivers have their roots.
        registry: the installed drivers.
        state: remembers the choice.
        wanted: the user's.
        priority: most wanted first.

    Raises:
        NotFound, NotSupported: says which driver and why.
    """
    root.mkdir(parents=True, exist_ok=True)
    for left in root.glob("probe-*"):  # of a start that was killed
        free(left)
        shutil.rmtree(left)
    table = state.table(TABLE)
    remembered = (table.get("default") or {}).get("driver")
    name = wanted or remembered
    if name:
        try:
            registry.storage(name).call.storage_probe(root)
        except EngineError as error:
            before = "" if wanted else f" {root} was made with it; name another to change."
            raise NotSupported(f"storage driver {name} cannot be used: {error}.{before}") from error
    else:
        name = _first(root, registry, priority)
    if name != remembered:
        table.put("default", {"driver": name})
    return name


def _first(root: Path, registry: Registry, priority: Sequence[str]) -> str:
    installed = registry.names("storage")
    reasons: list[str] = []
    for name in [*priority, *(name for name in installed if name not in priority)]:
        if name not in installed:
            continue
        try:
            registry.storage(name).call.storage_probe(root)
        except NotSupported as error:
            reasons.append(f"{name}: {error}")
            continue
        return name
    if not reasons:
        raise Internal("no storage driver is installed: pip install drivetrain-storage-overlay2")
    raise NotSupported("no storage driver can be used here: " + "; ".join(reasons))
