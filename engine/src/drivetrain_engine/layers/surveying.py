"""What comparing two trees entry by entry does not see: names of one file, and inode flags."""

from __future__ import annotations

import os
import stat
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from drivetrain.host.flags import get_flags

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_ENTRY = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


@dataclass(slots=True)
class Survey:
    """One tree.

    Attributes:
        names: of each file that has several, by device and inode; absolute inside the tree.
        flags: of the entries that have some, see ``drivetrain.host.flags.KEPT``.
        entries: how many there are.
    """

    names: dict[tuple[int, int], list[bytes]] = field(default_factory=dict)
    flags: dict[bytes, int] = field(default_factory=dict)
    entries: int = 0

    def groups(self) -> set[frozenset[bytes]]:
        """Return the names of each file that has several of them."""
        return {frozenset(names) for names in self.names.values() if len(names) > 1}


def survey(root: Path) -> Survey:
    """Look at a whole tree; no link is followed.

    Raises:
        OSError: a directory cannot be read.
    """
    found = Survey()
    names: defaultdict[tuple[int, int], list[bytes]] = defaultdict(list)
    top = os.open(root, DIRECTORY)
    try:
        if flags := get_flags(top):
            found.flags[b"/"] = flags
        for folder, name, path, entry in walk(top):
            found.entries += 1
            mode = entry.st_mode
            if not stat.S_ISDIR(mode) and entry.st_nlink > 1:
                names[entry.st_dev, entry.st_ino].append(path)
            if (stat.S_ISDIR(mode) or stat.S_ISREG(mode)) and (flags := flags_of(folder, name)):
                found.flags[path] = flags
    finally:
        os.close(top)
    found.names = dict(names)
    return found


def walk(top: int, prefix: bytes = b"") -> Iterator[tuple[int, bytes, bytes, os.stat_result]]:
    """Yield the open directory, name, path and state of each entry; parents before children."""
    for name in sorted(map(os.fsencode, os.listdir(top))):
        entry = os.lstat(name, dir_fd=top)
        path = prefix + b"/" + name
        yield top, name, path, entry
        if stat.S_ISDIR(entry.st_mode):
            below = os.open(name, DIRECTORY, dir_fd=top)
            try:
                yield from walk(below, path)
            finally:
                os.close(below)


def flags_of(folder: int, name: bytes) -> int:
    """Return the inode flags of a directory or regular file; 0 where there are none."""
    descriptor = os.open(name, _ENTRY, dir_fd=folder)
    try:
        return get_flags(descriptor)
    finally:
        os.close(descriptor)
