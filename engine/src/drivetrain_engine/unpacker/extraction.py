"""Making the entries of an archive in the tree that is the root."""

from __future__ import annotations

import contextlib
import os
import stat
import sys

from drivetrain_engine.unpacker.archive import (
    CHARACTER,
    FIFO,
    FILE,
    FOLDER,
    HARD,
    SYMBOLIC,
    Archive,
    Content,
    Entry,
    Extents,
)

WHITEOUT = b".wh."
OPAQUE = b".wh..wh..opq"
DEFAULT_ACL = b"system.posix_acl_default"
#: Exit codes: the archive is damaged; the system refused something.
DAMAGED, REFUSED = 2, 3


class Extraction:
    """One archive onto the tree that is the root now."""

    def __init__(self) -> None:
        self._folders: dict[bytes, Entry] = {}
        self._made: set[bytes] = set()
        self._there: set[bytes] = {b""}

    def run(self, archive: Archive) -> None:
        """Extract everything, then set what directories have for, or from, what is made in them."""
        for entry, content in archive.entries():
            name = os.path.normpath(b"/" + entry.name)
            if name.startswith(b"//"):
                name = name[1:]
            folder, _, base = name.rpartition(b"/")
            if not base.startswith(WHITEOUT):
                self._extract(entry, name, folder, content)
            elif base == OPAQUE:
                self._clear(folder)
            else:
                self._remove(folder + b"/" + base[len(WHITEOUT) :])
        for name, entry in reversed(self._folders.items()):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):  # gone meanwhile
                if DEFAULT_ACL in entry.attributes:
                    os.setxattr(name, DEFAULT_ACL, entry.attributes[DEFAULT_ACL])
                set_time(name, entry)

    def _clear(self, folder: bytes) -> None:
        """Remove what parents have in a directory; what this archive made stays."""
        if os.path.isdir(folder or b"/") and not os.path.islink(folder):
            for entry in os.listdir(folder or b"/"):
                path = folder + b"/" + entry
                if path not in self._made:
                    self._remove(path)

    def _extract(self, entry: Entry, name: bytes, folder: bytes, content: Content) -> None:
        if folder not in self._there:
            os.makedirs(folder, mode=0o755, exist_ok=True)
            self._there.add(folder)
        self._made.add(name)
        if entry.kind == FOLDER:
            if not os.path.isdir(name) or os.path.islink(name):
                self._remove(name)
                os.mkdir(name)
            own(name, entry)
            self._folders[name] = entry
        elif name == b"/":
            raise ValueError("the root of a layer must be a directory")
        elif entry.kind == FILE:
            try:
                descriptor = open_new(name, entry)
            except FileExistsError:
                self._remove(name)
                descriptor = open_new(name, entry)
            try:
                write(descriptor, content, entry.extents, entry.size)
                finish(descriptor, name, entry)
            finally:
                os.close(descriptor)
        else:
            self._remove(name)
            create(name, entry)

    def _remove(self, name: bytes) -> None:
        """Remove whatever is there."""
        try:
            if stat.S_ISDIR(os.lstat(name).st_mode):
                remove_folder(name)
                self._folders.pop(name, None)
            else:
                os.unlink(name)
            self._there = {b""}
        except (FileNotFoundError, NotADirectoryError):
            return


def remove_folder(name: bytes) -> None:
    """Remove a directory with everything that is in it."""
    with os.scandir(name) as entries:
        found = [(entry.path, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for path, is_folder in found:
        if is_folder:
            remove_folder(path)
        else:
            os.unlink(path)
    os.rmdir(name)


def open_new(name: bytes, entry: Entry) -> int:
    """Make a file, and return it open for writing."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    return os.open(name, flags, entry.mode & 0o777)


def write(descriptor: int, content: Content, extents: Extents | None, size: int) -> None:
    """Write what an archive has of a file."""
    if extents is None:
        for piece in content:
            write_all(descriptor, piece)
        return
    left = iter(extents)
    length = 0
    for piece in content:
        while piece:
            while not length:
                begin, length = next(left, (0, -1))
                if length < 0:
                    raise ValueError("the map of a file with holes is damaged")
                os.lseek(descriptor, begin, os.SEEK_SET)
            write_all(descriptor, piece[:length])
            part = min(length, len(piece))
            piece, length = piece[part:], length - part
    os.ftruncate(descriptor, size)


def write_all(descriptor: int, piece: memoryview) -> None:
    """Write everything: a write that is large, or meets a signal, may write less."""
    while (written := os.write(descriptor, piece)) < len(piece):
        piece = piece[written:]


def finish(descriptor: int, name: bytes, entry: Entry) -> None:
    """Give a new file its owner, attributes, mode and time, where it has not got them already."""
    found = os.fstat(descriptor)  # the directory may have given its group, or its access list
    mode = stat.S_IMODE(found.st_mode)
    if entry.owner != (found.st_uid, found.st_gid):
        os.chown(descriptor, *entry.owner)
    if entry.attributes:
        set_attributes(descriptor, name, entry)
        mode = -1
    if mode != entry.mode:
        os.chmod(descriptor, entry.mode)
    os.utime(descriptor, ns=(entry.modified, entry.modified))


def create(name: bytes, entry: Entry) -> None:
    """Make what is neither a file nor a directory."""
    if entry.kind == HARD:
        os.link(os.path.normpath(b"/" + entry.link), name, follow_symlinks=False)
        return
    if entry.kind == SYMBOLIC:
        os.symlink(entry.link, name)
    elif entry.kind == FIFO:
        os.mkfifo(name, 0o600)
    else:
        kind = stat.S_IFCHR if entry.kind == CHARACTER else stat.S_IFBLK
        os.mknod(name, kind | 0o600, os.makedev(*entry.device))
    own(name, entry)
    set_time(name, entry)


def own(name: bytes, entry: Entry) -> None:
    """Set owner, extended attributes and mode; a change of owner clears the set-id bits."""
    os.lchown(name, *entry.owner)
    set_attributes(name, name, entry)
    if entry.kind != SYMBOLIC:
        os.chmod(name, entry.mode)


def set_time(name: bytes, entry: Entry) -> None:
    """Set the time of modification."""
    os.utime(name, ns=(entry.modified, entry.modified), follow_symlinks=False)


def set_attributes(place: bytes | int, name: bytes, entry: Entry) -> None:
    """Set extended attributes; those of security modules that are absent here are left out."""
    for key, value in entry.attributes.items():
        if key.startswith(b"trusted.overlay."):
            continue  # it would change what overlayfs shows, and no layer has a reason to
        if key == DEFAULT_ACL:
            continue  # set in the end, or what is made in the directory would have it too
        try:
            if isinstance(place, int):
                os.setxattr(place, key, value)
            else:
                os.setxattr(place, key, value, follow_symlinks=False)
        except OSError as error:
            if key.startswith((b"security.capability", b"user.", b"system.posix_acl")):
                said = f"{error.strerror}: {os.fsdecode(key)}"
                raise OSError(error.errno, said, name) from error


def main() -> int:
    """Extract standard input into the directory named; say on standard error why not."""
    os.umask(0)
    os.chroot(sys.argv[1])
    os.chdir("/")
    # A module that is imported from now on would be one of the layer's.
    sys.path.clear()
    sys.meta_path.clear()
    try:
        archive = Archive(sys.stdin.fileno())
        Extraction().run(archive)
        archive.drain()
    except (ValueError, OverflowError) as error:
        print(error, file=sys.stderr)
        return DAMAGED
    except OSError as error:
        place = f": {os.fsdecode(error.filename)}" if error.filename is not None else ""
        print(f"{error.strerror}{place}", file=sys.stderr)
        return REFUSED
    return 0
