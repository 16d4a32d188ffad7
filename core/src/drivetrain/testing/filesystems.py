"""File systems for tests: made in a sparse file, mounted by a loop device, gone afterwards."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from drivetrain.host import mounts

MIB = 1 << 20
_MAKERS = {
    "btrfs": ("mkfs.btrfs", "-q", "-f"),
    "ext4": ("mkfs.ext4", "-q", "-F"),
    "xfs": ("mkfs.xfs", "-q", "-f"),
}


@contextlib.contextmanager
def file_system(
    kind: str,
    place: Path,
    *,
    size: int = 2048,
    make: Sequence[str] = (),
    options: Sequence[str] = (),
) -> Iterator[Path]:
    """Mount a new file system for the time of the context.

    Args:
        kind: ``btrfs``, ``ext4`` or ``xfs``.
        place: where the image and the mount point are made; it must exist.
        size: MiB; only what is written takes up space.
        make: further arguments of mkfs.
        options: of the mount.

    Yields:
        The root of the file system.
    """
    maker = _MAKERS[kind]
    if shutil.which(maker[0]) is None:
        pytest.fail(f"{maker[0]} is missing: make test installs it")
    image, target = place / f"{kind}.image", place / f"{kind}.mounted"
    with image.open("wb") as file:
        file.truncate(size * MIB)
    run(*maker, *make, str(image))
    target.mkdir()
    # mount(8) finds a free loop device and has the kernel free it with the mount.
    run("mount", "-o", ",".join(("loop", *options)), str(image), str(target))
    try:
        yield target
    finally:
        run("umount", str(target))
        target.rmdir()
        image.unlink()


def run(*command: str) -> str:
    """Run a command of the host and return what it printed; a failure fails the test."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr.strip()}"
    return done.stdout


def mounted_below(place: Path) -> list[str]:
    """Return where something is mounted below a directory, deepest first."""
    prefix = f"{place}/"
    found = [entry.target for entry in mounts.mount_table() if entry.target.startswith(prefix)]
    return sorted(found, key=len, reverse=True)


def loop_devices(place: Path) -> set[str]:
    """Return the loop devices whose file is below a directory, or was."""
    listed = run("losetup", "--list", "--noheadings", "--output", "NAME,BACK-FILE")
    lines = (line.split(maxsplit=1) for line in listed.splitlines())
    return {line[0] for line in lines if len(line) > 1 and line[1].startswith(f"{place}/")}
