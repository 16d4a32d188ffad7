"""Copying an image's directory into an empty volume, with everything that a file has.

Owners, permissions, extended attributes, times, hard links, devices and holes are kept. Every
access goes through descriptors of directories and follows no link: the tree comes from an image
that somebody else made.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NOATIME
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_CHUNK = 1 << 20
_UNSUPPORTED = frozenset({errno.ENOTSUP, errno.EPERM, errno.ENODATA, errno.EACCES, errno.EINVAL})
#: Set on the root while the copy is not complete, so that the next one starts anew.
_MARK = "trusted.drivetrain.copying"


def copy_up(path: Path, source: Path) -> bool:
    """Copy the content of ``source`` into the volume at ``path``, if the volume is empty.

    The root takes owner, permissions and attributes of ``source`` too. A copy that a crash
    ended is made anew.

    Args:
        path: where the volume is mounted.
        source: a directory of the image, as a path without links that lead elsewhere.

    Returns:
        Whether anything was copied: false when the volume has content, or there is no source.

    Raises:
        OSError: such as no space; the volume is then empty again.
    """
    try:
        source_root = os.open(source, _DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        if error.errno == errno.ELOOP:
            return False
        raise
    try:
        target_root = os.open(path, _DIRECTORY)
        try:
            return _copy_root(source_root, target_root)
        finally:
            os.close(target_root)
    finally:
        os.close(source_root)


def empty(path: Path) -> None:
    """Remove everything below a directory, following no link."""
    root = os.open(path, _DIRECTORY)
    try:
        _clear(root)
    finally:
        os.close(root)


def _copy_root(source: int, target: int) -> bool:
    if _is_marked(target):
        _clear(target)
    # a freshly made ext4 is empty too
    elif any(name != "lost+found" for name in os.listdir(target)):
        return False
    marked = _set_mark(target)
    try:
        _Copy().directory(source, target)
    except BaseException:
        _clear(target)
        raise
    finally:
        if marked:
            os.removexattr(target, _MARK)
    return True


def _is_marked(root: int) -> bool:
    try:
        return bool(os.getxattr(root, _MARK))
    except OSError:
        return False


def _set_mark(root: int) -> bool:
    try:
        os.setxattr(root, _MARK, b"1")
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        return False
    return True


def _clear(directory: int) -> None:
    for name in os.listdir(directory):
        if name == "lost+found":
            continue
        try:
            os.unlink(name, dir_fd=directory)
        except IsADirectoryError:
            below = os.open(name, _DIRECTORY, dir_fd=directory)
            try:
                _clear(below)
            finally:
                os.close(below)
            os.rmdir(name, dir_fd=directory)


class _Copy:
    """One copy; knows the files with several names."""

    def __init__(self) -> None:
        self._links: dict[tuple[int, int], str] = {}
        self._root = -1
        #: whether the kernel copies between these file systems, as far as is known
        self._by_kernel = True

    def directory(self, source: int, target: int, prefix: str = "") -> None:
        """Copy the content of an open directory, then what the directory itself has."""
        if not prefix:
            self._root = target
        with os.scandir(source) as listed:
            entries = list(listed)
        for entry in entries:
            self._entry(source, target, entry, prefix + entry.name)
        found = os.fstat(source)
        os.fchown(target, found.st_uid, found.st_gid)
        os.fchmod(target, stat.S_IMODE(found.st_mode))
        _copy_attributes(source, target)
        os.utime(target, ns=(found.st_atime_ns, found.st_mtime_ns))

    def _entry(self, source: int, target: int, entry: os.DirEntry[str], path: str) -> None:
        name = entry.name
        if entry.is_file(follow_symlinks=False):
            self._file(source, target, name, path)
        elif entry.is_dir(follow_symlinks=False):
            os.mkdir(name, 0o700, dir_fd=target)
            below_source = os.open(name, _DIRECTORY, dir_fd=source)
            try:
                below_target = os.open(name, _DIRECTORY, dir_fd=target)
                try:
                    self.directory(below_source, below_target, path + "/")
                finally:
                    os.close(below_target)
            finally:
                os.close(below_source)
        else:
            found = os.lstat(name, dir_fd=source)
            if not self._link(found, target, name, path):
                _copy_special(source, target, name, found)

    def _link(self, found: os.stat_result, target: int, name: str, path: str) -> bool:
        """Make a further name of what was copied already; otherwise remember it."""
        if found.st_nlink == 1:
            return False
        first = self._links.setdefault((found.st_dev, found.st_ino), path)
        if first == path:
            return False
        os.link(first, name, src_dir_fd=self._root, dst_dir_fd=target)
        return True

    def _file(self, source: int, target: int, name: str, path: str) -> None:
        """Copy a file with what it has; by descriptors, as paths are looked up each time."""
        input_file = os.open(name, _READ, dir_fd=source)
        try:
            found = os.fstat(input_file)
            if self._link(found, target, name, path):
                return
            output_file = os.open(name, _WRITE, 0o600, dir_fd=target)
            try:
                self._data(input_file, output_file, found)
                os.fchown(output_file, found.st_uid, found.st_gid)
                os.fchmod(output_file, stat.S_IMODE(found.st_mode))
                _copy_attributes(input_file, output_file)
                os.utime(output_file, ns=(found.st_atime_ns, found.st_mtime_ns))
            finally:
                os.close(output_file)
        finally:
            os.close(input_file)

    def _data(self, source: int, target: int, found: os.stat_result) -> None:
        """Copy what is not a hole."""
        size = found.st_size
        if found.st_blocks * 512 >= size:
            self._piece(source, target, 0, size)
            return
        os.truncate(target, size)
        position = 0
        while position < size:
            try:
                start = os.lseek(source, position, os.SEEK_DATA)
                end = os.lseek(source, start, os.SEEK_HOLE)
            except OSError as error:
                if error.errno == errno.ENXIO:
                    return
                start, end = position, size
            self._piece(source, target, start, end)
            position = end

    def _piece(self, source: int, target: int, start: int, end: int) -> None:
        while start < end:
            count = self._some(source, target, end - start, start)
            if not count:
                return
            start += count

    def _some(self, source: int, target: int, count: int, position: int) -> int:
        if self._by_kernel:
            try:
                count = min(count, 1 << 30)
                return os.copy_file_range(source, target, count, position, position)
            except OSError as error:
                if error.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
                    raise
                self._by_kernel = False
        data = os.pread(source, min(count, _CHUNK), position)
        return os.pwrite(target, data, position)


def _copy_special(source: int, target: int, name: str, entry: os.stat_result) -> None:
    """Copy a link, device, pipe or socket, then what it has."""
    if stat.S_ISLNK(entry.st_mode):
        os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
    else:
        os.mknod(name, entry.st_mode, entry.st_rdev, dir_fd=target)
    # in this order, since each undoes the next
    os.chown(name, entry.st_uid, entry.st_gid, dir_fd=target, follow_symlinks=False)
    if not stat.S_ISLNK(entry.st_mode):
        os.chmod(name, stat.S_IMODE(entry.st_mode), dir_fd=target)
    _copy_attributes(f"/proc/self/fd/{source}/{name}", f"/proc/self/fd/{target}/{name}")
    os.utime(name, ns=(entry.st_atime_ns, entry.st_mtime_ns), dir_fd=target, follow_symlinks=False)


def _copy_attributes(source: str | int, target: str | int) -> None:
    """Copy extended attributes between open files, or paths whose links are not followed."""
    follow = isinstance(source, int)
    try:
        names = os.listxattr(source, follow_symlinks=follow)
    except OSError:  # a file system without them
        return
    for name in names:
        # those of overlayfs describe the layer, not the file
        if name.startswith("trusted.overlay.") or name == _MARK:
            continue
        try:
            value = os.getxattr(source, name, follow_symlinks=follow)
            os.setxattr(target, name, value, follow_symlinks=follow)
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
