"""Reading a directory tree into a tar, following no link and leaving no mount out.

Owners are numbers; extended attributes go into PAX headers as GNU tar, bsdtar and Docker know
them; a file with several names is stored once.
"""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Iterator

_CHUNK = 1 << 18
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_BLOCK = 512


def tar_directory(directory: int, prefix: str = "", *, root: bool = False) -> Iterator[bytes]:
    """Yield the chunks of a tar with the content of an open directory.

    Args:
        directory: a descriptor; stays open.
        prefix: put before every name, with a slash at its end, or empty.
        root: store the directory itself too, under the prefix.
    """
    writer = _Writer()
    if root and prefix:
        yield writer.header(os.fstat(directory), prefix, directory, None)
    yield from writer.content(directory, prefix)
    yield b"\0" * (2 * _BLOCK)


def tar_entry(parent: int, name: str, as_name: str) -> Iterator[bytes]:
    """Yield the chunks of a tar with one entry of an open directory, and all that is below it.

    Args:
        parent: a descriptor of the directory; stays open.
        name: in the directory.
        as_name: in the tar.
    """
    writer = _Writer()
    yield from writer.entry(parent, name, as_name)
    yield b"\0" * (2 * _BLOCK)


class _Writer:
    """One tar; knows the files with several names."""

    def __init__(self) -> None:
        self._links: dict[tuple[int, int], str] = {}

    def content(self, directory: int, prefix: str) -> Iterator[bytes]:
        """Yield the entries of a directory, names sorted."""
        for name in sorted(os.listdir(directory)):
            yield from self.entry(directory, name, prefix + name)

    def entry(self, parent: int, name: str, path: str) -> Iterator[bytes]:
        """Yield one entry and all that is below it; what vanished meanwhile is left out."""
        try:
            found = os.lstat(name, dir_fd=parent)
        except FileNotFoundError:
            return
        if stat.S_ISDIR(found.st_mode):
            yield from self._directory(parent, name, path)
        elif stat.S_ISREG(found.st_mode):
            yield from self._file(parent, name, path)
        elif stat.S_ISLNK(found.st_mode):
            yield self.header(found, path, None, os.readlink(name, dir_fd=parent))
        elif not stat.S_ISSOCK(found.st_mode):  # a tar has no sockets
            yield self.header(found, path, None, None)

    def _directory(self, parent: int, name: str, path: str) -> Iterator[bytes]:
        try:
            directory = os.open(name, _DIRECTORY, dir_fd=parent)
        except OSError:
            return
        try:
            yield self.header(os.fstat(directory), path + "/", directory, None)
            yield from self.content(directory, path + "/")
        finally:
            os.close(directory)

    def _file(self, parent: int, name: str, path: str) -> Iterator[bytes]:
        try:
            file = os.open(name, _FILE, dir_fd=parent)
        except OSError:
            return
        try:
            found = os.fstat(file)
            key = (found.st_dev, found.st_ino)
            if found.st_nlink > 1 and key in self._links:
                info = self._info(found, path)
                info.type, info.linkname, info.size = tarfile.LNKTYPE, self._links[key], 0
                yield _encode(info)
                return
            self._links[key] = path
            yield self.header(found, path, file, None)
            yield from _bytes(file, found.st_size)
        finally:
            os.close(file)

    def _info(self, found: os.stat_result, path: str) -> tarfile.TarInfo:
        info = tarfile.TarInfo(path)
        info.mode = stat.S_IMODE(found.st_mode)
        info.uid, info.gid = found.st_uid, found.st_gid
        info.mtime = found.st_mtime_ns / 1e9 if found.st_mtime_ns % 10**9 else int(found.st_mtime)
        return info

    def header(
        self, found: os.stat_result, path: str, opened: int | None, link: str | None
    ) -> bytes:
        """Return the header of an entry.

        Args:
            found: its metadata.
            path: its name in the tar.
            opened: a descriptor, for its attributes.
            link: where it leads, for a symbolic link.
        """
        info = self._info(found, path)
        kinds = {
            stat.S_IFDIR: tarfile.DIRTYPE, stat.S_IFREG: tarfile.REGTYPE,
            stat.S_IFLNK: tarfile.SYMTYPE, stat.S_IFIFO: tarfile.FIFOTYPE,
            stat.S_IFCHR: tarfile.CHRTYPE, stat.S_IFBLK: tarfile.BLKTYPE,
        }  # fmt: skip
        info.type = kinds[stat.S_IFMT(found.st_mode)]
        if info.type == tarfile.REGTYPE:
            info.size = found.st_size
        if info.type in (tarfile.CHRTYPE, tarfile.BLKTYPE):
            info.devmajor, info.devminor = os.major(found.st_rdev), os.minor(found.st_rdev)
        info.linkname = link or ""
        if opened is not None:
            info.pax_headers = _attributes(opened)
        return _encode(info)


def _encode(info: tarfile.TarInfo) -> bytes:
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _attributes(opened: int) -> dict[str, str]:
    found = {}
    try:
        for name in os.listxattr(opened):
            if name.startswith(("security.capability", "user.", "trusted.")) and not (
                name.startswith("trusted.overlay.")
            ):
                value = os.getxattr(opened, name)
                found["SCHILY.xattr." + name] = value.decode("utf-8", "surrogateescape")
    except OSError:
        pass  # a file system without attributes
    return found


def _bytes(file: int, size: int) -> Iterator[bytes]:
    """Yield exactly ``size`` bytes of a file, padded; one that shrank is filled with zeros."""
    left = size
    while left:
        data = os.read(file, min(_CHUNK, left))
        if not data:
            data = b"\0" * min(_CHUNK, left)
        left -= len(data)
        yield data
    if size % _BLOCK:
        yield b"\0" * (_BLOCK - size % _BLOCK)
