"""What overlayfs can do on a file system, found out by mounting it.

The differences of a layer are read off its upper directory (see ``changes``), so that has to hold
whole files and no references: redirects of renamed directories and copies of metadata alone are
switched off, and it is looked whether they are.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from drivetrain.errors import NotSupported
from drivetrain.host import mounts
from drivetrain.storage import Mount

#: Options that are given where the kernel knows them. An index would refuse a second mount of a
#: lower directory; xino keeps inode numbers apart when the layers are on two file systems.
_WANTED = ("redirect_dir=off", "metacopy=off", "index=off", "xino=auto")


@dataclass(frozen=True, slots=True)
class Features:
    """What was found.

    Attributes:
        options: to be given at every mount.
        prefix: of overlayfs' own extended attributes: ``trusted.overlay.``, or
            ``user.overlay.`` in a user namespace.
        redirects: renamed directories leave references in the upper directory all the same.
        metacopy: files whose mode changed leave references in the upper directory all the same.
        volatile: mounts can be told not to write out what nobody needs after a power cut.
    """

    options: tuple[str, ...]
    prefix: str
    redirects: bool
    metacopy: bool
    volatile: bool

    @property
    def native_diff(self) -> bool:
        """Whether the upper directory tells all differences."""
        return not self.redirects and not self.metacopy


def probe(root: Path) -> Features:
    """Find out what overlayfs can do below ``root``.

    Raises:
        NotSupported: it cannot be used there; says why.
    """
    try:
        return _probe(root, ())
    except NotSupported:
        if _initial_user_namespace():
            raise
        return _probe(root, ("userxattr",))


def _initial_user_namespace() -> bool:
    return Path("/proc/self/uid_map").read_text().split() == ["0", "0", "4294967295"]


def _probe(root: Path, given: tuple[str, ...]) -> Features:
    with tempfile.TemporaryDirectory(prefix="probe-", dir=root) as name:
        folder = Path(name)
        for part in ("lower/gone", "lower/anew/old", "lower/renamed", "merged"):
            (folder / part).mkdir(parents=True)
        (folder / "lower" / "file").write_text("content")
        accepted = [option for option in _WANTED if _accepts(folder, (*given, option))]
        options = (*given, *accepted)
        prefix = "user.overlay." if "userxattr" in given else "trusted.overlay."
        with _mounted(folder, options) as (upper, merged):
            _check_whiteouts(root, upper, merged)
            _check_opaque(root, upper, merged, prefix)
            (merged / "file").chmod(0o600)
            with contextlib.suppress(OSError):  # EXDEV: as it should be
                (merged / "renamed").rename(merged / "renamed2")
            metacopy = _has(upper / "file", prefix + "metacopy")
            redirects = _has(upper / "renamed2", prefix + "redirect")
        volatile = _accepts(folder, (*options, "volatile"))
    return Features(options, prefix, redirects, metacopy, volatile)


@contextlib.contextmanager
def _mounted(folder: Path, options: tuple[str, ...]) -> Iterator[tuple[Path, Path]]:
    with tempfile.TemporaryDirectory(dir=folder) as name:
        upper, work = Path(name, "upper"), Path(name, "work")
        upper.mkdir()
        work.mkdir()
        data = (f"lowerdir={folder}/lower", f"upperdir={upper}", f"workdir={work}", *options)
        try:
            mounts.mount((Mount("overlay", "overlay", data),), folder / "merged")
        except OSError as error:
            raise NotSupported(
                f"overlayfs cannot be mounted on {folder.parent}: {error}; modprobe overlay, or put"
                " the data root on ext4, xfs (with ftype=1) or btrfs"
            ) from error
        try:
            yield upper, folder / "merged"
        finally:
            mounts.unmount(folder / "merged")


def _accepts(folder: Path, options: tuple[str, ...]) -> bool:
    try:
        with _mounted(folder, options):
            return True
    except NotSupported:
        return False


def _check_whiteouts(root: Path, upper: Path, merged: Path) -> None:
    (merged / "gone").rmdir()
    # Without d_type in its directory entries, a whiteout is listed as if it were a file.
    if not stat.S_ISCHR((upper / "gone").lstat().st_mode) or "gone" in os.listdir(merged):
        raise NotSupported(
            f"{root} cannot hold whiteouts: its file system has no d_type; make it anew, xfs with"
            " mkfs.xfs -n ftype=1"
        )


def _check_opaque(root: Path, upper: Path, merged: Path, prefix: str) -> None:
    try:
        (merged / "anew" / "old").rmdir()
        (merged / "anew").rmdir()
        (merged / "anew").mkdir()
        seen = os.listdir(merged / "anew")
    except OSError as error:
        raise NotSupported(f"overlayfs on {root} cannot make a directory anew: {error}") from error
    if seen or not _has(upper / "anew", prefix + "opaque"):
        raise NotSupported(
            f"{root} cannot hold overlayfs' extended attributes ({prefix}opaque), by which a"
            " directory hides what was in it before"
        )


def _has(path: Path, attribute: str) -> bool:
    try:
        return os.getxattr(path, attribute, follow_symlinks=False) is not None
    except OSError:
        return False
