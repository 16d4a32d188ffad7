"""Putting changes of one tree onto another, with every attribute that an entry can have.

Every access goes through a descriptor of the directory and follows no link, so that a tree that
somebody hostile filled cannot lead it elsewhere, and so that no path is too long.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from drivetrain.host.flags import set_flags
from drivetrain.host.trees import extended_attributes, next_data
from drivetrain.storage import Change
from drivetrain_engine.layers.surveying import DIRECTORY, Survey

_SOURCE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_TARGET = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
#: Bytes that are looked at together for a hole.
_BLOCK = 1 << 16
_PIECE = 16 << 20
#: Attributes that belong to a file system, not to a file.
OWN = ("btrfs.",)
#: What a kernel that cannot share or copy between two file systems says.
_NO_COPY = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF, errno.ETXTBSY)


class CannotKeep(Exception):
    """The target cannot hold an entry as it is.

    Args:
        path: inside the tree.
        what: of it.
        error: what the kernel said.
    """

    def __init__(self, path: bytes, what: str, error: OSError) -> None:
        super().__init__(f"{os.fsdecode(path)}: {what}: {error.strerror}")
        self.errno = error.errno


class Folders:
    """Open directories of one tree, by path; only those of the last path stay open."""

    def __init__(self, root: Path) -> None:
        self._chain: list[tuple[bytes, int]] = [(b"", os.open(root, DIRECTORY))]

    @property
    def root(self) -> int:
        """The root of the tree."""
        return self._chain[0][1]

    def parent(self, path: bytes) -> tuple[int, bytes]:
        """Return the directory that holds an entry, and the entry's name in it."""
        folder, _, name = path.rpartition(b"/")
        return self.open(folder), name

    def open(self, path: bytes) -> int:
        """Return a directory; ``b""`` is the root."""
        while not (path + b"/").startswith(self._chain[-1][0] + b"/"):
            os.close(self._chain.pop()[1])
        here, descriptor = self._chain[-1]
        for name in filter(None, path[len(here) :].split(b"/")):
            here += b"/" + name
            descriptor = os.open(name, DIRECTORY, dir_fd=descriptor)
            self._chain.append((here, descriptor))
        return descriptor

    def forget(self, path: bytes) -> None:
        """Close a directory that is about to be replaced, and what is below it."""
        while len(self._chain) > 1 and (self._chain[-1][0] + b"/").startswith(path + b"/"):
            os.close(self._chain.pop()[1])

    def close(self) -> None:
        """Close all."""
        for _, descriptor in self._chain:
            os.close(descriptor)
        self._chain = []


class Copy:
    """Brings changes from a source tree, which nobody writes meanwhile, to a target tree.

    Args:
        source: mounted; never written.
        target: mounted; equal to the source but for the changes.
        seen: of the source: its files of several names, and its flags.
    """

    def __init__(self, source: Path, target: Path, seen: Survey) -> None:
        self._seen = seen
        self._source = Folders(source)
        self._target = Folders(target)
        self._made: dict[tuple[int, int], bytes] = {}
        self._directories: list[bytes] = []
        self.bytes = 0

    def close(self) -> None:
        """Close what is open."""
        self._source.close()
        self._target.close()

    def apply(self, changes: Iterable[Change]) -> Iterator[Change]:
        """Make the target as the source is, for each change, and yield it when it is done.

        Args:
            changes: parents before children.

        Raises:
            CannotKeep: an entry that the target cannot hold.
        """
        wanted = list(changes)
        paths = {change.path for change in wanted}
        for change in wanted:
            if change.kind == "deleted":
                self._target.forget(change.path)
                _remove(*self._target.parent(change.path))
            else:
                self._copy(change.path, paths)
            yield change
        # A directory's time changes with what is made in it, and its default list with what it
        # gives to them: last, and the deepest first.
        for path in reversed(self._directories):
            self._finish(path)
        self._directories.clear()

    def root(self) -> None:
        """Give the root the attributes of the source's."""
        self._finish(b"/.")

    def _copy(self, path: bytes, changed: set[bytes]) -> None:
        source, name = self._source.parent(path)
        target, _ = self._target.parent(path)
        entry = os.lstat(name, dir_fd=source)
        try:
            found: os.stat_result | None = os.lstat(name, dir_fd=target)
        except FileNotFoundError:
            found = None
        if stat.S_ISDIR(entry.st_mode):
            if found is None or not stat.S_ISDIR(found.st_mode):
                _remove(target, name)
                os.mkdir(name, 0o700, dir_fd=target)
            self._directories.append(path)
            return
        if found is not None:
            self._target.forget(path)
            _remove(target, name)
        if entry.st_nlink > 1 and self._link(path, entry, target, name, changed):
            return
        self._create(path, entry, source, target, name)
        self._attributes(path, entry, source, target, name)

    def _link(
        self, path: bytes, entry: os.stat_result, target: int, name: bytes, changed: set[bytes]
    ) -> bool:
        """Give a file that is there already one more name; tell whether there was one."""
        identity = (entry.st_dev, entry.st_ino)
        first = self._made.get(identity)
        if first is None:
            others = self._seen.names.get(identity, ())
            first = next((other for other in others if other not in changed), None)
        if first is None:
            self._made[identity] = path
            return False
        # Opened anew: the target's open directories are those of the new name.
        descriptor = _open_from(self._target.root, first.rpartition(b"/")[0])
        try:
            os.link(
                first.rpartition(b"/")[2],
                name,
                src_dir_fd=descriptor,
                dst_dir_fd=target,
                follow_symlinks=False,
            )
        finally:
            os.close(descriptor)
        return True

    def _create(
        self, path: bytes, entry: os.stat_result, source: int, target: int, name: bytes
    ) -> None:
        mode = entry.st_mode
        try:
            if stat.S_ISREG(mode):
                self._file(source, target, name, entry.st_size)
            elif stat.S_ISLNK(mode):
                os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
            else:
                os.mknod(name, stat.S_IFMT(mode) | 0o600, entry.st_rdev, dir_fd=target)
        except OSError as error:
            raise CannotKeep(path, describe(entry), error) from error

    def _file(self, source: int, target: int, name: bytes, size: int) -> None:
        before = os.open(name, _SOURCE, dir_fd=source)
        try:
            after = os.open(name, _TARGET, 0o600, dir_fd=target)
            try:
                self.bytes += _copy_data(before, after, size)
            finally:
                os.close(after)
        finally:
            os.close(before)

    def _finish(self, path: bytes) -> None:
        """Set what is left to set of a directory."""
        source, name = self._source.parent(path)
        target, _ = self._target.parent(path)
        self._attributes(path, os.lstat(name, dir_fd=source), source, target, name)

    def _attributes(
        self, path: bytes, entry: os.stat_result, source: int, target: int, name: bytes
    ) -> None:
        try:
            os.chown(name, entry.st_uid, entry.st_gid, dir_fd=target, follow_symlinks=False)
            if not stat.S_ISLNK(entry.st_mode):
                os.chmod(name, stat.S_IMODE(entry.st_mode), dir_fd=target)
        except OSError as error:
            raise CannotKeep(path, "owner and mode", error) from error
        self._extended(path, source, target, name)
        moments = (entry.st_atime_ns, entry.st_mtime_ns)
        os.utime(name, ns=moments, dir_fd=target, follow_symlinks=False)
        plain = b"/" if path == b"/." else path
        if flags := self._seen.flags.get(plain, 0):
            descriptor = os.open(name, _SOURCE, dir_fd=target)
            try:
                set_flags(descriptor, flags)
            except OSError as error:
                raise CannotKeep(path, "immutable or append-only", error) from error
            finally:
                os.close(descriptor)

    @staticmethod
    def _extended(path: bytes, source: int, target: int, name: bytes) -> None:
        """Give an entry exactly the attributes it has in the source."""
        text = os.fsdecode(name)
        wanted, present = extended_attributes(source, text), extended_attributes(target, text)
        place = f"/proc/self/fd/{target}/{text}"
        for attribute in sorted(present.keys() | wanted.keys()):
            if attribute.startswith(OWN) or present.get(attribute) == wanted.get(attribute):
                continue
            try:
                if attribute in wanted:
                    os.setxattr(place, attribute, wanted[attribute], follow_symlinks=False)
                else:
                    os.removexattr(place, attribute, follow_symlinks=False)
            except OSError as error:
                raise CannotKeep(path, f"extended attribute {attribute}", error) from error


def describe(entry: os.stat_result) -> str:
    """Return what an entry is, for messages."""
    mode = entry.st_mode
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        kind = "character" if stat.S_ISCHR(mode) else "block"
        return f"{kind} device {os.major(entry.st_rdev)}:{os.minor(entry.st_rdev)}"
    kinds = {stat.S_IFREG: "file", stat.S_IFLNK: "symbolic link", stat.S_IFIFO: "FIFO",
             stat.S_IFSOCK: "socket", stat.S_IFDIR: "directory"}  # fmt: skip
    return kinds.get(stat.S_IFMT(mode), "entry")


def _open_from(root: int, path: bytes) -> int:
    """Return a new descriptor of a directory below an open one."""
    descriptor = os.dup(root)
    for name in filter(None, path.split(b"/")):
        below = os.open(name, DIRECTORY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    return descriptor


def _remove(folder: int, name: bytes) -> None:
    """Remove whatever is there."""
    try:
        entry = os.lstat(name, dir_fd=folder)
    except FileNotFoundError:
        return
    if stat.S_ISDIR(entry.st_mode):
        shutil.rmtree(os.fsdecode(name), dir_fd=folder)
    else:
        os.unlink(name, dir_fd=folder)


def _copy_data(source: int, target: int, size: int) -> int:
    """Copy a file's data and leave its holes; returns how many bytes were copied."""
    copied = here = 0
    if _hides_holes(source, size):
        return _copy_what_is_not_zero(source, target, size)
    while (here := next_data(source, here, size)) < size:
        try:
            end = os.lseek(source, here, os.SEEK_HOLE)
        except OSError:
            end = size
        copied += end - here
        while here < end:
            here += _piece(source, target, here, end - here)
    os.ftruncate(target, size)
    return copied


def _hides_holes(source: int, size: int) -> bool:
    """Whether a file has holes that its file system does not tell, as those in user space."""
    if os.fstat(source).st_blocks * 512 >= size:
        return False
    try:
        return os.lseek(source, 0, os.SEEK_HOLE) >= size
    except OSError:
        return True


def _copy_what_is_not_zero(source: int, target: int, size: int) -> int:
    """Copy the blocks that are not all zeros; returns how many bytes were copied."""
    copied = 0
    for here in range(0, size, _BLOCK):
        block = os.pread(source, _BLOCK, here)
        if block.strip(b"\0"):
            copied += os.pwrite(target, block, here)
    os.ftruncate(target, size)
    return copied


def _piece(source: int, target: int, here: int, count: int) -> int:
    """Copy some bytes at one place, shared where the file system can."""
    try:
        done = os.copy_file_range(source, target, min(count, _PIECE), here, here)
    except OSError as error:
        if error.errno not in _NO_COPY:
            raise
        os.lseek(target, here, os.SEEK_SET)
        done = os.sendfile(target, source, here, min(count, _PIECE))
    if not done:
        raise OSError(errno.EIO, "a file ended early")
    return done
