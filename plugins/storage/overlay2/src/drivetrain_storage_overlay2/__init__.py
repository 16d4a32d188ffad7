"""The overlay2 storage driver: kernel overlayfs.

Each layer is a directory ``<key>`` with ``diff`` (its own files), ``work`` (overlayfs' own) and
``link``, the name of a short symbolic link in ``l/`` that leads to ``diff``. The links keep the
list of lower directories within the one page that mount(2) takes for it. A layer with a limit of
size may have a sparse file instead of the two directories, see :mod:`drivetrain.host.limits`.
"""

from __future__ import annotations

import os
import secrets
import shutil
import string
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from drivetrain import hookimpl
from drivetrain.errors import FailedPrecondition
from drivetrain.host import mounts, trees
from drivetrain.host.flags import remove_tree
from drivetrain.host.limits import Limits
from drivetrain.options import Option, Options
from drivetrain.storage import TARGET, Change, Mount, Usage, Use
from drivetrain_storage_overlay2.changes import changes
from drivetrain_storage_overlay2.features import probe

#: Lower directories that this driver stacks; docker's limit as well.
MAX_PARENTS = 128
#: Beginnings of the names of attributes that overlayfs, or the file system, has for itself.
OWN_ATTRIBUTES = ("trusted.overlay.", "user.overlay.", "btrfs.")
_LETTERS = string.ascii_uppercase + string.digits


class Overlay2:
    """Layers as directories that the kernel unites."""

    @hookimpl
    def storage_probe(self, root: Path) -> bool:
        probe(root)
        return True

    @hookimpl
    def storage_options(self) -> Sequence[Option]:
        retired = "the kernel is probed instead"
        return (
            Option("overlay2.size", "size", help="limit of every container's writable layer"),
            Option("overlay2.override_kernel_check", "boolean", retired=retired),
        )

    @hookimpl
    def layer_options(self) -> Sequence[Option]:
        return (Option("size", "size", help="limit of the writable layer"),)

    @hookimpl
    def storage_open(self, root: Path, options: Options) -> bool:
        self._root = root
        self._features = probe(root)
        self._limits = Limits(root)
        self._size = options.integer("overlay2.size")
        (root / "l").mkdir(mode=0o700, exist_ok=True)
        for path in (*root.glob("*.removing"), *root.glob("*.making"), *root.glob("probe-*")):
            remove_tree(path)
        for link in (root / "l").iterdir():
            if not link.exists():
                link.unlink()
        return True

    @hookimpl
    def layer_create(self, key: str, parents: Sequence[str], options: Options, use: Use) -> bool:
        if len(parents) > MAX_PARENTS:
            raise FailedPrecondition(
                f"layer {key}: {len(parents)} parents; overlay2 stacks at most {MAX_PARENTS}"
            )
        size = options.integer("size") or (self._size if use != "image" else 0)
        self.layer_remove(key)
        making = self._root / f"{key}.making"
        shutil.rmtree(making, ignore_errors=True)
        making.mkdir(mode=0o711)
        try:
            for part in ("diff", "work"):
                (making / part).mkdir()
                (making / part).chmod(0o755 if part == "diff" else 0o711)
            if parents:  # overlayfs shows the root of the uppermost directory
                parent = self._root / parents[0] / "diff"
                trees.take_over(parent, making / "diff", leave=OWN_ATTRIBUTES)
            if use == "throwaway" and self._features.volatile:
                (making / "volatile").touch()
            if size:
                throwaway = use == "throwaway"
                self._limits.apply(making, size, content=("diff", "work"), throwaway=throwaway)
            link = "".join(secrets.choice(_LETTERS) for _ in range(26))
            (making / "link").write_text(link)
            making.rename(self._root / key)
        except BaseException:
            shutil.rmtree(making, ignore_errors=True)
            raise
        (self._root / "l" / link).symlink_to(f"../{key}/diff")
        return True

    def _link(self, key: str) -> str:
        name = (self._root / key / "link").read_text()
        link = self._root / "l" / name
        if not link.is_symlink():
            link.symlink_to(f"../{key}/diff")
        return f"{self._root}/l/{name}"

    @hookimpl
    def layer_mounts(self, key: str, parents: Sequence[str], read_only: bool) -> Sequence[Mount]:
        place = self._root / key
        first = self._limits.mounts(place)
        inside = TARGET if first else str(place)
        if not parents:
            return (*first, Mount("bind", f"{inside}/diff", ("ro" if read_only else "rw",)))
        lowers = [self._link(parent) for parent in parents]
        if read_only:
            lowers.insert(0, f"{inside}/diff" if first else self._link(key))
            return (*first, self._overlay(lowers, "ro"))
        data = [f"upperdir={inside}/diff", f"workdir={inside}/work"]
        if not first and (place / "volatile").exists():
            # Left by the last mount; it would refuse this one, since a power cut may be between.
            shutil.rmtree(place / "work" / "work" / "incompat", ignore_errors=True)
            data.append("volatile")
        return (*first, self._overlay(lowers, *data))

    def _overlay(self, lowers: Sequence[str], *options: str) -> Mount:
        data = (f"lowerdir={':'.join(lowers)}", *options, *self._features.options)
        return Mount("overlay", "overlay", data)

    @hookimpl
    def layer_unmounted(self, key: str) -> bool:
        self._limits.unmounted(self._root / key)
        return True

    @hookimpl
    def layer_commit(self, key: str) -> bool:
        if self._limits.in_image(self._root / key):
            raise FailedPrecondition(f"layer {key} has a limit of size and cannot be a parent")
        shutil.rmtree(self._root / key / "work", ignore_errors=True)
        return True

    @hookimpl
    def layer_remove(self, key: str) -> bool:
        place, removing = self._root / key, self._root / f"{key}.removing"
        try:
            link = (place / "link").read_text()
            (self._root / "l" / link).unlink(missing_ok=True)
            self._limits.lift(place)
            place.rename(removing)
        except FileNotFoundError:
            pass
        if removing.exists():
            remove_tree(removing)
        return True

    @hookimpl
    def layer_usage(self, key: str) -> Usage | None:
        if self._limits.in_image(self._root / key):
            return None
        size = inodes = 0
        seen: set[int] = set()
        for folder, names, files in os.walk(self._root / key / "diff"):
            for name in (*names, *files):
                entry = os.lstat(f"{folder}/{name}")
                if entry.st_ino not in seen:
                    seen.add(entry.st_ino)
                    size += entry.st_blocks * 512
                    inodes += 1
        return Usage(size, inodes)

    @hookimpl
    def layer_metadata(self, key: str, parents: Sequence[str]) -> Mapping[str, str]:
        place = self._root / key
        found = {"LowerDir": ":".join(str(self._root / parent / "diff") for parent in parents)}
        if not self._limits.in_image(place):
            found |= {"UpperDir": f"{place}/diff", "WorkDir": f"{place}/work"}
        return {name: value for name, value in found.items() if value}

    @hookimpl
    def layer_changes(self, key: str, parents: Sequence[str]) -> Iterable[Change] | None:
        """Read the changes off the upper directory, where that can be seen and tells all."""
        if self._limits.in_image(self._root / key) or not self._features.native_diff:
            return None
        uppers = [self._root / parent / "diff" for parent in parents]
        return changes(self._root / key / "diff", b"", uppers, self._features.prefix + "opaque")

    @hookimpl
    def storage_status(self) -> Sequence[tuple[str, str]]:
        features = self._features
        return (
            ("Backing Filesystem", _file_system(self._root)),
            ("Supports d_type", "true"),
            ("Using metacopy", str(features.metacopy).lower()),
            ("Native Overlay Diff", str(features.native_diff).lower()),
            ("userxattr", str("userxattr" in features.options).lower()),
            ("Limits of Size", self._limits.method),
        )


def _file_system(path: Path) -> str:
    """Return the type of the file system that holds ``path``, in docker's words."""
    for entry in reversed(mounts.mount_table()):
        if f"{path}/".startswith(str(entry.target).rstrip("/") + "/"):
            return "extfs" if entry.type.startswith("ext") else entry.type
    return "unknown"
