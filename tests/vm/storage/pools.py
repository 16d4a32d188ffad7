"""Block devices and thin pools for tests, in files below /tmp, which is memory here."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TypeVar

from drivetrain.testing.storage import StorageConformance

Kit = TypeVar("Kit", bound=StorageConformance)


def run(*command: object) -> str:
    """Run a command, which has to succeed, and return what it wrote."""
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stdout}{done.stderr}"
    return done.stdout


def block_device(file: Path, size: int) -> str:
    """Return a loop device on a new sparse file."""
    with file.open("wb") as made:
        made.truncate(size)
    return run("losetup", "--find", "--show", file).strip()


def thin_pool(
    folder: Path, name: str, size: int, metadata: int = 4 << 20, features: str = ""
) -> str:
    """Make a thin pool as an administrator may, by dmsetup, and return its name."""
    device = block_device(folder / f"{name}.metadata", metadata)
    data = block_device(folder / f"{name}.data", size)
    words = ["error_if_no_space", *features.split()]
    table = f"0 {size // 512} thin-pool {device} {data} 128 0 {len(words)} {' '.join(words)}"
    run("dmsetup", "create", name, "--table", table)
    return name


def grow_metadata(folder: Path, name: str, size: int) -> None:
    """Mend a pool that nothing uses and whose metadata was full, with more room for it."""
    table = run("dmsetup", "table", name)
    run("dmsetup", "remove", name)
    file = folder / f"{name}.metadata"
    os.truncate(file, size)
    device = run("losetup", "-j", file).split(":")[0]
    run("losetup", "--set-capacity", device)
    run("thin_check", "--clear-needs-check-flag", device)
    run("dmsetup", "create", name, "--table", table)


def devices() -> list[str]:
    """The names of all mapped devices."""
    text = run("dmsetup", "ls")
    return [] if "No devices" in text else [line.split()[0] for line in text.splitlines()]


def devices_in_pool(root: Path) -> int:
    """How many devices the pool in a driver's files itself knows, by its metadata."""
    pool = next(name for name in devices() if name.endswith("-pool"))
    device = run("losetup", "-j", root / "metadata").split(":")[0]
    run("dmsetup", "message", pool, "0", "reserve_metadata_snap")
    try:
        dump = run("thin_dump", "--metadata-snap", "--skip-mappings", device)
    finally:
        run("dmsetup", "message", pool, "0", "release_metadata_snap")
    return dump.count("<device ")


def free_all() -> None:
    """Remove all mapped devices, volume groups and loop devices of this machine."""
    for _ in range(3):
        for name in reversed(devices()):
            if not name.startswith("engine_"):
                subprocess.run(["dmsetup", "remove", name], capture_output=True)
    for group in run("vgs", "--noheadings", "-o", "vg_name").split():
        run("vgremove", "-f", "-y", group)
    run("losetup", "--detach-all")


def without_the_kit(kind: type[Kit]) -> type[Kit]:
    """Leave the checks of the kit out of a class, but for those that it has its own way of."""
    for name in dir(StorageConformance):
        if name.startswith("test_") and name not in vars(kind):
            setattr(kind, name, None)
    return kind
