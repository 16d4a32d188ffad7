"""What ``engine info`` shows of the driver, under docker's names."""

from __future__ import annotations

from pathlib import Path

from drivetrain_storage_devicemapper import setup
from drivetrain_storage_devicemapper.records import Record
from drivetrain_storage_devicemapper.settings import Settings
from drivetrain_storage_devicemapper.setup import Pool
from drivetrain_storage_devicemapper.thinpool import ThinPool


def pairs(
    root: Path, pool: Pool, thin: ThinPool, settings: Settings, base: Record, waiting: int
) -> list[tuple[str, str]]:
    """Return the pairs.

    Args:
        root: of the driver.
        pool: which pool it is.
        thin: the pool at work.
        settings: the options.
        base: the device of which all others descend.
        waiting: how many devices are to be deleted when nobody uses them.
    """
    status = thin.status()
    least = int(status.data_total * settings.least_free / 100)
    found = [
        ("Pool Name", thin.name),
        ("Pool Blocksize", human(thin.block)),
        ("Base Device Size", human(base.size)),
        ("Backing Filesystem", base.file_system),
        ("Data Space Used", human(status.data_used)),
        ("Data Space Total", human(status.data_total)),
        ("Data Space Available", human(status.data_total - status.data_used)),
        ("Metadata Space Used", human(status.metadata_used)),
        ("Metadata Space Total", human(status.metadata_total)),
        ("Metadata Space Available", human(status.metadata_total - status.metadata_used)),
        ("Thin Pool Minimum Free Space", human(least)),
        ("Thin Pool Mode", status.mode + (" needs_check" if status.needs_check else "")),
        ("Transaction Id", str(status.transaction)),
        ("Deferred Removal Enabled", str(settings.deferred_removal).lower()),
        ("Deferred Deletion Enabled", str(settings.deferred_deletion).lower()),
        ("Deferred Deleted Device Count", str(waiting)),
        *setup.files(root, pool),
    ]
    if pool.kind == "loop":
        found.append(("WARNING", setup.LOOP_WARNING))
    return found


def human(size: int) -> str:
    """Return bytes as docker prints them: ``10.74GB``."""
    value = float(size)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            break
        value /= 1000
    return f"{value:.4g}{unit}"
