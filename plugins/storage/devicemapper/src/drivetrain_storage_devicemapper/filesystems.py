"""The file systems on thin devices: making and growing them."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from drivetrain.errors import Exhausted, Internal, InvalidArgument, NotSupported
from drivetrain.host import mounts
from drivetrain.storage import Mount

#: The directory of a file system that is a layer's root; beside it may be lost+found.
ROOT = "rootfs"
_PACKAGES = {"xfs": "xfsprogs", "ext4": "e2fsprogs"}
_PATH = "/usr/sbin:/sbin:" + os.environ.get("PATH", "/usr/bin:/bin")


def command(name: str, package: str) -> str:
    """Return the path of a program.

    Raises:
        NotSupported: it is missing; names the package.
    """
    found = shutil.which(name, path=_PATH)
    if found is None:
        raise NotSupported(f"{name} is missing: apt-get install {package}")
    return found


def run(arguments: Sequence[str], purpose: str) -> str:
    """Run a program and return what it wrote.

    Args:
        arguments: the program first.
        purpose: begins the message of an error.

    Raises:
        Exhausted: it said that there is no space.
        Internal: it failed otherwise; with its last words.
    """
    done = subprocess.run(arguments, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        reason = "; ".join(lines[-3:]) or f"exit code {done.returncode}"
        full = "o space left" in done.stderr or "nsufficient free space" in done.stderr
        raise (Exhausted if full else Internal)(f"{purpose}: {reason}")
    return done.stdout


def preferred() -> str:
    """Return the file system for roots when none was asked for.

    Raises:
        NotSupported: none can be made here.
    """
    for kind in ("xfs", "ext4"):
        if shutil.which(f"mkfs.{kind}", path=_PATH):
            return kind
    raise NotSupported(
        "neither mkfs.xfs nor mkfs.ext4 is here: apt-get install xfsprogs or e2fsprogs"
    )


def make(kind: str, device: Path, arguments: Sequence[str], scratch: Path, *, zeroed: bool) -> None:
    """Make a file system with an empty root for a layer.

    Args:
        kind: ``xfs`` or ``ext4``.
        device: where.
        arguments: more of them for mkfs.
        scratch: a directory in which it can be mounted for a moment.
        zeroed: what was never written reads as zeros, so that no tables need be written.
    """
    mkfs = command(f"mkfs.{kind}", _PACKAGES[kind])
    if kind == "xfs":
        usual = ["-q", "-K", "-m", "crc=1"]
    else:
        lazy = f"lazy_itable_init={int(zeroed)},lazy_journal_init={int(zeroed)}"
        usual = ["-q", "-F", "-m", "0", "-E", f"nodiscard,{lazy}"]
    run([mkfs, *usual, *arguments, str(device)], f"mkfs.{kind} on {device}")
    with mounted(kind, device, scratch) as place:
        (place / ROOT).mkdir()
        (place / ROOT).chmod(0o755)


def mount_options(kind: str) -> tuple[str, ...]:
    """Return the options that every mount needs.

    All snapshots have one UUID, and unwritten tables of inodes would be written in each of them.
    """
    return ("nouuid",) if kind == "xfs" else ("noinit_itable",)


@contextmanager
def mounted(kind: str, device: Path, scratch: Path) -> Iterator[Path]:
    """Mount a device for the time of the context."""
    with tempfile.TemporaryDirectory(prefix="mnt-", dir=scratch) as folder:
        place = Path(folder)
        mounts.mount((Mount(kind, str(device), mount_options(kind)),), place)
        try:
            yield place
        finally:
            mounts.unmount(place, detach=False)


def sweep(scratch: Path) -> None:
    """Remove what a process that was killed has left of such mounts."""
    for left in scratch.iterdir():
        mounts.unmount(left)
        left.rmdir()


def grow(kind: str, device: Path, scratch: Path) -> None:
    """Let a file system fill its device, which has grown."""
    with mounted(kind, device, scratch) as place:
        if kind == "xfs":
            run([command("xfs_growfs", "xfsprogs"), str(place)], f"growing {device}")
        else:
            run([command("resize2fs", "e2fsprogs"), str(device)], f"growing {device}")


def check_size(kind: str, size: int) -> None:
    """Refuse sizes that mkfs refuses, before anything is made.

    Raises:
        InvalidArgument: says what is the least.
    """
    least = {"xfs": 300 << 20, "ext4": 8 << 20}[kind]
    if size < least:
        raise InvalidArgument(f"a root of {size} bytes is too small; {kind} needs {least}")
