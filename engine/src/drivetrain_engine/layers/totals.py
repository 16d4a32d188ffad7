"""What each storage driver of a data root holds: ``engine storage df``."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from drivetrain.errors import EngineError
from drivetrain.storage import Change
from drivetrain_engine.layers.records import LayerRecord, Migration


def totals(
    records: Iterable[LayerRecord],
    migrations: Iterable[Migration],
    default: str,
    size: Callable[[LayerRecord], int],
) -> list[dict[str, Any]]:
    """Return a document per driver that has layers, the default one first.

    Args:
        records: all layers.
        migrations: those that were interrupted, or are under way.
        default: name of the default driver.
        size: returns a layer's own bytes.

    Returns:
        ``driver``, ``default``, ``containers``, ``container_bytes``, ``image_layers``,
        ``image_bytes``, ``interrupted`` (moves to it), ``state``: ``ok``, or why the driver
        cannot be asked.
    """
    found: dict[str, dict[str, Any]] = {default: _empty(default, True)}
    for record in records:
        one = found.setdefault(record.driver, _empty(record.driver, False))
        kind = "image" if record.committed else "container"
        if record.committed:
            one["image_layers"] += 1
        elif record.container:
            one["containers"] += 1
        if one["state"] != "ok":
            continue
        try:
            one[f"{kind}_bytes"] += size(record)
        except (EngineError, OSError) as error:
            one["state"] = str(error)
    for migration in migrations:
        if migration.target in found:
            found[migration.target]["interrupted"] += migration.phase == "copying"
    return sorted(found.values(), key=lambda one: (not one["default"], one["driver"]))


def allocated(root: Path, changes: Iterable[Change]) -> int:
    """Return how many bytes of disk the entries take up that were added or modified."""
    return sum(
        (root / os.fsdecode(change.path.lstrip(b"/"))).lstat().st_blocks * 512
        for change in changes
        if change.kind != "deleted"
    )


def _empty(driver: str, default: bool) -> dict[str, Any]:
    return {
        "driver": driver,
        "default": default,
        "containers": 0,
        "container_bytes": 0,
        "image_layers": 0,
        "image_bytes": 0,
        "interrupted": 0,
        "state": "ok",
    }
