"""The vfs storage driver: each layer is a full copy of its parent.

It works on every file system and needs nothing of the kernel; where the file system can share
blocks (btrfs, xfs) a copy costs next to nothing, elsewhere time and space.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from drivetrain import hookimpl
from drivetrain.errors import Exhausted, Internal
from drivetrain.options import Options
from drivetrain.storage import Mount


class Vfs:
    """Layers as directories that stand alone."""

    @hookimpl
    def storage_open(self, root: Path, options: Options) -> bool:
        self._root = root
        for path in (*root.glob("*.removing"), *root.glob("*.making")):
            shutil.rmtree(path)
        return True

    @hookimpl
    def layer_create(self, key: str, parents: Sequence[str]) -> bool:
        self.layer_remove(key)
        making = self._root / f"{key}.making"
        try:
            if parents:
                self._copy(self._root / parents[0], making)
            else:
                making.mkdir()
                making.chmod(0o755)
        except BaseException:
            shutil.rmtree(making, ignore_errors=True)
            raise
        making.rename(self._root / key)
        return True

    @staticmethod
    def _copy(source: Path, target: Path) -> None:
        # cp keeps hard links, extended attributes, sparse files, devices and nanoseconds.
        done = subprocess.run(
            ["cp", "-a", "--reflink=auto", "--sparse=auto", source, target],
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            message = done.stderr.strip().splitlines()[-1:] or ["cp failed"]
            kind = Exhausted if "No space left" in done.stderr else Internal
            raise kind(f"cannot copy layer {source.name}: {message[0]}")

    @hookimpl
    def layer_mounts(self, key: str, read_only: bool) -> Sequence[Mount]:
        return (Mount("bind", str(self._root / key), ("ro" if read_only else "rw",)),)

    @hookimpl
    def layer_commit(self, key: str) -> bool:
        return True

    @hookimpl
    def layer_remove(self, key: str) -> bool:
        place, removing = self._root / key, self._root / f"{key}.removing"
        if place.exists():
            place.rename(removing)
        if removing.exists():
            shutil.rmtree(removing)
        return True
