"""The fuse-overlayfs storage driver: directories that a process unites, where no kernel can.

Each layer is a directory ``<key>`` with ``diff`` (its own files) and ``work`` (the program's own).
The engine runs the program when it mounts; see ``fuse.…`` in :class:`drivetrain.storage.Mount`.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from drivetrain import hookimpl
from drivetrain.errors import FailedPrecondition, NotSupported
from drivetrain.host import mounts, trees
from drivetrain.host.flags import remove_tree
from drivetrain.options import Options
from drivetrain.storage import Mount, Usage, Use

PROGRAM = "fuse-overlayfs"
#: As many as overlay2 stacks, so that containers can move between the two.
MAX_PARENTS = 128
#: Beginnings of the names of attributes that overlay file systems, or the one below, have for
#: themselves.
OWN_ATTRIBUTES = ("trusted.overlay.", "user.overlay.", "user.fuseoverlayfs.", "btrfs.")


class FuseOverlayfs:
    """Layers as directories that a process unites."""

    @hookimpl
    def storage_probe(self, root: Path) -> bool:
        """Mount for real, and see that a removed directory stays removed."""
        if shutil.which(PROGRAM) is None:
            raise NotSupported(f"the program {PROGRAM} is missing: apt-get install {PROGRAM}")
        if not Path("/dev/fuse").exists():
            raise NotSupported("/dev/fuse is missing: modprobe fuse")
        with tempfile.TemporaryDirectory(prefix="probe-", dir=root) as name:
            folder = Path(name)
            for part in ("lower/gone", "upper", "work", "merged"):
                (folder / part).mkdir(parents=True)
            try:
                mounts.mount((_united([folder / "lower"], folder, "upper"),), folder / "merged")
            except OSError as error:
                raise NotSupported(f"{PROGRAM} cannot mount on {root}: {error}") from error
            try:
                (folder / "merged" / "gone").rmdir()
                left = os.listdir(folder / "merged")
            finally:
                mounts.unmount(folder / "merged")
            if left:
                raise NotSupported(f"{root} cannot hold the whiteouts of {PROGRAM}")
        return True

    @hookimpl
    def storage_open(self, root: Path, options: Options) -> bool:
        self._root = root
        for path in (*root.glob("*.removing"), *root.glob("*.making"), *root.glob("probe-*")):
            remove_tree(path)
        return True

    @hookimpl
    def layer_create(self, key: str, parents: Sequence[str], use: Use) -> bool:
        if len(parents) > MAX_PARENTS:
            raise FailedPrecondition(
                f"layer {key}: {len(parents)} parents; {PROGRAM} stacks at most {MAX_PARENTS}"
            )
        self.layer_remove(key)
        making = self._root / f"{key}.making"
        shutil.rmtree(making, ignore_errors=True)
        making.mkdir(mode=0o711)
        try:
            for part, mode in (("diff", 0o755), ("work", 0o711)):
                (making / part).mkdir()
                (making / part).chmod(mode)
            if parents:  # the program shows the root of the uppermost directory
                parent = self._root / parents[0] / "diff"
                trees.take_over(parent, making / "diff", leave=OWN_ATTRIBUTES)
            if use == "throwaway":
                (making / "volatile").touch()
            making.rename(self._root / key)
        except BaseException:
            shutil.rmtree(making, ignore_errors=True)
            raise
        return True

    @hookimpl
    def layer_mounts(self, key: str, parents: Sequence[str], read_only: bool) -> Sequence[Mount]:
        place = self._root / key
        if not parents:
            return (Mount("bind", str(place / "diff"), ("ro" if read_only else "rw",)),)
        lowers = [self._root / parent / "diff" for parent in parents]
        if read_only:
            return (_united([place / "diff", *lowers]),)
        more = ("volatile",) if (place / "volatile").exists() else ()
        return (_united(lowers, place, "diff", *more),)

    @hookimpl
    def layer_commit(self, key: str) -> bool:
        shutil.rmtree(self._root / key / "work", ignore_errors=True)
        return True

    @hookimpl
    def layer_remove(self, key: str) -> bool:
        place, removing = self._root / key, self._root / f"{key}.removing"
        if place.exists():
            place.rename(removing)
        if removing.exists():
            remove_tree(removing)
        return True

    @hookimpl
    def layer_metadata(self, key: str, parents: Sequence[str]) -> Mapping[str, str]:
        place = self._root / key
        found = {"UpperDir": f"{place}/diff", "WorkDir": f"{place}/work"}
        if parents:
            found["LowerDir"] = ":".join(str(self._root / parent / "diff") for parent in parents)
        return found

    @hookimpl
    def layer_usage(self, key: str) -> Usage:
        size = inodes = 0
        seen: set[int] = set()
        for folder, names, files in os.walk(self._root / key / "diff"):
            for name in (*names, *files):
                entry = os.lstat(f"{folder}/{name}")
                if entry.st_ino not in seen and not _is_whiteout(entry):
                    seen.add(entry.st_ino)
                    size += entry.st_blocks * 512
                    inodes += 1
        return Usage(size, inodes)

    @hookimpl
    def storage_status(self) -> Sequence[tuple[str, str]]:
        return (("Program", shutil.which(PROGRAM) or PROGRAM),)


def _united(
    lowers: Sequence[Path], place: Path | None = None, upper: str = "", *more: str
) -> Mount:
    """Return the mount of some directories, the nearest first, below a writable one or none."""
    # As in every other root: device nodes of a layer are devices, unless the engine forbids it.
    data = ["dev", "suid", "lowerdir=" + ":".join(map(str, lowers))]
    if place is not None:
        data += [f"upperdir={place / upper}", f"workdir={place / 'work'}"]
    else:
        data.append("ro")
    return Mount(f"fuse.{PROGRAM}", PROGRAM, (*data, *more))


def _is_whiteout(entry: os.stat_result) -> bool:
    return stat.S_ISCHR(entry.st_mode) and entry.st_rdev == 0
