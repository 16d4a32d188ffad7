"""How much a directory takes up."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def directory_size(path: Path) -> int:
    """Return the bytes allocated below a directory, files with several names counted once.

    Other file systems mounted below are left out; what vanishes meanwhile is too.
    """
    try:
        device = os.lstat(path).st_dev
    except FileNotFoundError:
        return 0
    seen: set[int] = set()
    total = 0
    pending = [os.fspath(path)]
    while pending:
        try:
            with os.scandir(pending.pop()) as entries:
                for entry in entries:
                    found = entry.stat(follow_symlinks=False)
                    if found.st_dev != device or found.st_ino in seen:
                        continue
                    if found.st_nlink > 1 and not stat.S_ISDIR(found.st_mode):
                        seen.add(found.st_ino)
                    total += found.st_blocks * 512
                    if stat.S_ISDIR(found.st_mode):
                        pending.append(entry.path)
        except FileNotFoundError:
            continue
    return total
