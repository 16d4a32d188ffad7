"""Writing a tar into a container's root, each path resolved inside it."""

from __future__ import annotations

import errno
import os
import posixpath
import stat
import tarfile
from pathlib import Path
from typing import IO

from drivetrain.errors import InvalidArgument, NotFound, PermissionDenied
from drivetrain_engine.containers.rooted import Root

_CHUNK = 1 << 18
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Extraction:
    """Unpacks one tar.

    Args:
        root: of the container.
        directory: where to, inside the root.
        no_overwrite: refuse to put a file in place of a directory, or the other way round.
        owner: uid and gid for everything; ``None``: those of the tar.
    """

    def __init__(
        self, root: Root, directory: str, *, no_overwrite: bool, owner: tuple[int, int] | None
    ) -> None:
        self._root = root
        self._directory = directory
        self._no_overwrite = no_overwrite
        self._owner = owner
        self._times: list[tuple[str, float]] = []

    def run(self, stream: IO[bytes]) -> None:
        """Unpack all entries.

        Raises:
            InvalidArgument: no tar, or an entry that cannot be put there.
            PermissionDenied: the place is read-only.
        """
        try:
            with tarfile.open(fileobj=stream, mode="r|*") as archive:
                for entry in archive:
                    self._entry(archive, entry)
            for path, mtime in reversed(self._times):
                self._set_time(path, mtime)
        except tarfile.TarError as error:
            raise InvalidArgument(f"the request body is no tar archive: {error}") from None
        except OSError as error:
            if error.errno == errno.EROFS:
                raise PermissionDenied("container rootfs is marked read-only") from None
            if error.errno in (errno.ENOENT, errno.ENOTDIR):
                raise NotFound(f"cannot unpack: {error}") from None
            raise InvalidArgument(f"cannot unpack: {error}") from None

    def _entry(self, archive: tarfile.TarFile, entry: tarfile.TarInfo) -> None:
        # A path is taken as if the directory were the root: ".." leads nowhere.
        relative = posixpath.normpath("/" + entry.name).lstrip("/")
        path = posixpath.join(self._directory, relative) if relative else self._directory
        parent_path, name = posixpath.split(path.rstrip("/"))
        if not relative or not name:
            return  # "./", as in "cp dir/. c:/place", says nothing about the place itself
        self._root.make_directories(parent_path)
        parent = self._root.open(parent_path, os.O_PATH | os.O_DIRECTORY)
        try:
            self._make(archive, entry, parent, name, path)
        finally:
            os.close(parent)

    def _make(
        self, archive: tarfile.TarFile, entry: tarfile.TarInfo, parent: int, name: str, path: str
    ) -> None:
        if not self._clear(parent, name, entry, path):
            return
        if entry.isdir():
            self._make_directory(parent, name)
            self._times.append((path, entry.mtime))
        elif entry.isreg():
            self._write(archive, entry, parent, name)
        elif entry.issym():
            os.symlink(entry.linkname, name, dir_fd=parent)
        elif entry.islnk():
            self._link(entry, parent, name)
            return
        elif entry.isfifo():
            os.mkfifo(name, 0o600, dir_fd=parent)
        elif entry.ischr() or entry.isblk():
            kind = stat.S_IFCHR if entry.ischr() else stat.S_IFBLK
            os.mknod(name, kind | 0o600, os.makedev(entry.devmajor, entry.devminor), dir_fd=parent)
        else:
            return
        self._dress(entry, parent, name)

    def _clear(self, parent: int, name: str, entry: tarfile.TarInfo, path: str) -> bool:
        """Make place for an entry; directories are kept for directories.

        Raises:
            InvalidArgument: a directory is in the way of a file.
        """
        try:
            found = os.lstat(name, dir_fd=parent)
        except FileNotFoundError:
            return True
        there = stat.S_ISDIR(found.st_mode)
        if entry.isdir() and not there and stat.S_ISLNK(found.st_mode):
            # A link to a directory stands for it, as /var/run for /run.
            try:
                place = self._root.open(path, os.O_PATH | os.O_DIRECTORY)
            except OSError:
                pass
            else:
                os.close(place)
                return False
        if self._no_overwrite and there != entry.isdir():
            words = ("directory", "non-directory") if there else ("non-directory", "directory")
            raise InvalidArgument(f'cannot overwrite {words[0]} "{path}" with {words[1]}')
        if there and not entry.isdir():
            os.rmdir(name, dir_fd=parent)  # as Docker: only an empty one gives way
        elif not there:
            os.unlink(name, dir_fd=parent)
        return True

    @staticmethod
    def _make_directory(parent: int, name: str) -> None:
        try:
            os.mkdir(name, 0o700, dir_fd=parent)
        except FileExistsError:
            pass

    @staticmethod
    def _write(archive: tarfile.TarFile, entry: tarfile.TarInfo, parent: int, name: str) -> None:
        source = archive.extractfile(entry)
        assert source is not None
        file = os.open(name, _CREATE, 0o600, dir_fd=parent)
        with open(file, "wb", buffering=0) as target:
            while data := source.read(_CHUNK):
                view = memoryview(data)
                while view:
                    view = view[target.write(view) or 0 :]

    def _link(self, entry: tarfile.TarInfo, parent: int, name: str) -> None:
        target = posixpath.normpath("/" + entry.linkname).lstrip("/")
        place, source = posixpath.split(posixpath.join(self._directory, target))
        directory = self._root.open(place, os.O_PATH | os.O_DIRECTORY)
        try:
            os.link(source, name, src_dir_fd=directory, dst_dir_fd=parent, follow_symlinks=False)
        finally:
            os.close(directory)

    def _dress(self, entry: tarfile.TarInfo, parent: int, name: str) -> None:
        """Set owner, permissions, attributes and times."""
        uid, gid = self._owner or (entry.uid, entry.gid)
        os.chown(name, uid, gid, dir_fd=parent, follow_symlinks=False)
        if not entry.issym():
            place = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
            try:
                path = f"/proc/self/fd/{place}"
                Path(path).chmod(stat.S_IMODE(entry.mode))
                for key, value in entry.pax_headers.items():
                    if key.startswith("SCHILY.xattr."):
                        _set_attribute(path, key.removeprefix("SCHILY.xattr."), value)
            finally:
                os.close(place)
        if not entry.isdir():
            moment = int(entry.mtime * 10**9)
            os.utime(name, ns=(moment, moment), dir_fd=parent, follow_symlinks=False)

    def _set_time(self, path: str, mtime: float) -> None:
        place = self._root.open(path, os.O_PATH | os.O_DIRECTORY)
        try:
            moment = int(mtime * 10**9)
            os.utime(f"/proc/self/fd/{place}", ns=(moment, moment))
        finally:
            os.close(place)


def _set_attribute(path: str, name: str, value: str) -> None:
    if not name.startswith(("user.", "security.capability")):
        return
    try:
        os.setxattr(path, name, value.encode("utf-8", "surrogateescape"))
    except OSError as error:
        if error.errno not in (errno.ENOTSUP, errno.EPERM):
            raise
