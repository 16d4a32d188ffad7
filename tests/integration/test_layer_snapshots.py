"""Comparing a tree with a snapshot of its blocks reads what was touched, and misses nothing."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from drivetrain.host import mounts, trees
from drivetrain.testing.entries import every_kind
from drivetrain.testing.filesystems import run
from drivetrain.testing.storage.stacks import edit

MIB = 1 << 20


@contextmanager
def mounted(image: Path, *options: str) -> Iterator[Path]:
    """Mount a file system that is in a file, for the time of the context."""
    place = image.with_suffix(".mounted")
    place.mkdir(exist_ok=True)
    run("mount", "-o", ",".join(("loop", *options)), str(image), str(place))
    try:
        yield place
    finally:
        mounts.unmount(place)


def read() -> int:
    """Return how many bytes this process has read."""
    return int(Path("/proc/self/io").read_text().split()[1])


# Inodes of 128 bytes have times in seconds.
@pytest.mark.parametrize(
    "mkfs", [("mkfs.xfs", "-q"), ("mkfs.ext4", "-q"), ("mkfs.ext4", "-q", "-I", "128")], ids=str
)
def test_a_snapshot_of_blocks_is_compared_by_what_was_touched(tmp_path, mkfs):
    old, new = tmp_path / "old", tmp_path / "new"
    with old.open("wb") as file:
        file.truncate(320 * MIB)
    run(*mkfs, str(old))
    same = ("nouuid",) if "xfs" in mkfs[0] else ()
    with mounted(old) as tree:
        (tree / "big").mkdir()
        for number in range(8):
            (tree / "big" / str(number)).write_bytes(os.urandom(MIB))
        edit(tree, random.Random(1))
        (tree / "every").mkdir()
        every_kind(tree / "every")
    time.sleep(3)  # what was written a moment before the snapshot is read
    with mounted(old) as tree:
        (tree / "young").write_text("1")
    snapshot_time = time.time_ns()
    run("cp", "--sparse=always", str(old), str(new))
    with mounted(old, "ro", *same) as before, mounted(new, *same) as after:
        times = (after / "young").stat()
        (after / "young").write_text("2")
        os.utime(after / "young", ns=(times.st_atime_ns, times.st_mtime_ns))
        edit(after, random.Random(2))
        begun = read()
        told = list(trees.compare(before, after, snapshot_time=snapshot_time))
        assert read() - begun < 4 * MIB
        begun = read()
        assert told == list(trees.compare(before, after)) != []
        assert read() - begun > 8 * MIB
    assert b"/young" in {change.path for change in told}
