"""Block devices and thin pools for tests, in files below /tmp, which is memory here."""

from __future__ import annotations

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


def thin_pool(folder: Path, name: str, size: int) -> str:
    """Make a thin pool as an administrator may, by dmsetup, and return its name."""
    metadata = block_device(folder / f"{name}.metadata", 4 << 20)
    data = block_device(folder / f"{name}.data", size)
    table = f"0 {size // 512} thin-pool {metadata} {data} 128 0 1 error_if_no_space"
    run("dmsetup", "create", name, "--table", table)
    return name


def devices() -> list[str]:
    """The names of all mapped devices."""
    text = run("dmsetup", "ls")
    return [] if "No devices" in text else [line.split()[0] for line in text.splitlines()]


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
