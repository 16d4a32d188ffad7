"""Files of containers: copying in and out, export, changes."""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from drivetrain.errors import FailedPrecondition, InvalidArgument, NotFound
from drivetrain.storage import Change
from drivetrain_engine.containers.container import Container
from drivetrain_engine.containers.record import timestamp
from drivetrain_engine.containers.rooted import Root
from drivetrain_engine.containers.services import Services
from drivetrain_engine.containers.spec.build import INIT_PATH
from drivetrain_engine.containers.spec.users import find_user
from drivetrain_engine.containers.tarring import tar_directory, tar_entry
from drivetrain_engine.containers.untarring import Extraction

Json = dict[str, Any]

_KINDS = {"modified": 0, "added": 1, "deleted": 2}
#: Made by the runtimes as places to mount at; Docker does not tell them either.
_MOUNT_PLACES = frozenset(
    path.encode()
    for path in (
        "/dev", "/dev/console", "/dev/pts", "/dev/shm", "/dev/mqueue", "/proc", "/sys",
        "/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/etc/mtab", "/.dockerenv", INIT_PATH,
    )
)  # fmt: skip
# Go's os.FileMode, which clients expect in the stat of a path.
_GO_BITS = (
    (stat.S_ISDIR, 1 << 31), (stat.S_ISLNK, 1 << 27), (stat.S_ISBLK, 1 << 26),
    (stat.S_ISCHR, 1 << 26 | 1 << 21), (stat.S_ISFIFO, 1 << 25), (stat.S_ISSOCK, 1 << 24),
)  # fmt: skip


def _go_mode(mode: int) -> int:
    found = mode & 0o777
    for test, bits in _GO_BITS:
        if test(mode):
            found |= bits
    found |= (1 << 23) if mode & stat.S_ISUID else 0
    found |= (1 << 22) if mode & stat.S_ISGID else 0
    found |= (1 << 20) if mode & stat.S_ISVTX else 0
    return found


class Files:
    """Looks into containers, running or not."""

    def __init__(self, services: Services) -> None:
        self._services = services

    @contextmanager
    def _root(self, container: Container) -> Iterator[Root]:
        """Open a container's root: as its processes see it, with volumes, while it runs."""
        record = container.record
        if record.phase == "removing" or record.state.dead:
            raise FailedPrecondition(f"container {record.id} is being removed or dead")
        with container.lock:
            root = self._running_root(container)
        if root is not None:
            with root:
                yield root
            return
        with self._services.rootfs.mounted(container.id) as path, Root(path) as opened:
            yield opened

    @staticmethod
    def _running_root(container: Container) -> Root | None:
        pid = container.record.state.pid
        if container.shim is None or not pid:
            return None
        try:
            return Root(f"/proc/{pid}/root")
        except OSError:
            return None  # it has just ended

    # out

    def stat(self, container: Container, path: str) -> Json:
        """Return the stat of a path; a link at its end is not followed.

        Raises:
            NotFound: in Docker's words.
        """
        with self._root(container) as root:
            return self._stat(container, root, path)

    def _missing(self, container: Container, path: str) -> NotFound:
        return NotFound(f"Could not find the file {path} in container {container.record.name}")

    def _stat(self, container: Container, root: Root, path: str) -> Json:
        clean, name = _split(path)
        try:
            if path.endswith(("/", "/.")) or not name:
                place = root.open(posixpath.join(clean, name), os.O_PATH | os.O_DIRECTORY)
            else:
                place = root.open(posixpath.join(clean, name), os.O_PATH | os.O_NOFOLLOW)
        except NotADirectoryError:
            raise InvalidArgument(
                f"extraction point is not a directory: {path} in container {container.record.name}"
            ) from None
        except OSError:
            raise self._missing(container, path) from None
        try:
            found = os.fstat(place)
            target = ""
            if stat.S_ISLNK(found.st_mode):
                link = os.readlink("", dir_fd=place)
                target = posixpath.normpath(posixpath.join(clean, link))
        finally:
            os.close(place)
        return {
            "name": name or "/",
            "size": found.st_size,
            "mode": _go_mode(found.st_mode),
            "mtime": timestamp(found.st_mtime_ns),
            "linkTarget": target,
        }

    def get(self, container: Container, path: str) -> tuple[Json, Iterator[bytes]]:
        """Return the stat of a path and a tar of it; the root stays mounted until its end.

        Raises:
            NotFound: in Docker's words.
        """
        chunks = self._get(container, path)
        first = next(chunks)
        assert isinstance(first, dict)
        return first, chunks  # type: ignore[return-value]  # bytes from here on

    def _get(self, container: Container, path: str) -> Iterator[Json | bytes]:
        with self._root(container) as root:
            found = self._stat(container, root, path)
            clean, name = _split(path)
            yield found
            whole = path.endswith(("/", "/.")) or not name
            if whole:
                # "dir/." means the content, which clients expect below the directory's own name
                place = root.open(posixpath.join(clean, name), os.O_RDONLY | os.O_DIRECTORY)
                try:
                    prefix = "./" if path.endswith("/.") or not name else name + "/"
                    yield from tar_directory(place, prefix, root=True)
                finally:
                    os.close(place)
                return
            parent = root.open(clean, os.O_RDONLY | os.O_DIRECTORY)
            try:
                yield from tar_entry(parent, name, name)
            finally:
                os.close(parent)

    def export(self, container: Container) -> Iterator[bytes]:
        """Return a tar of the whole root, without what is mounted into it."""
        with self._services.rootfs.mounted(container.id) as path, Root(path) as root:
            place = root.open("/", os.O_RDONLY | os.O_DIRECTORY)
            try:
                yield from tar_directory(place)
            finally:
                os.close(place)
        self._services.emit(container, "export")

    # in

    def put(
        self, container: Container, path: str, stream: IO[bytes], *, no_overwrite: bool,
        keep_owner: bool,
    ) -> None:  # fmt: skip
        """Unpack a tar into a directory.

        Args:
            container: running or not.
            path: the directory; links are followed inside the container.
            stream: the tar, plain.
            no_overwrite: do not replace directories by files or the other way round.
            keep_owner: everything becomes the container's user's (``cp -a`` of clients).

        Raises:
            NotFound: no such directory.
            InvalidArgument: it is none, or the tar is none.
            PermissionDenied: it is read-only.
        """
        record = container.record
        with self._root(container) as root:
            try:
                place = root.open(path, os.O_PATH)
            except OSError:
                raise self._missing(container, path) from None
            try:
                if not stat.S_ISDIR(os.fstat(place).st_mode):
                    raise InvalidArgument(
                        f"extraction point is not a directory: {path} in container {record.name}"
                    )
            finally:
                os.close(place)
            if record.host.readonly_rootfs and container.shim is None:
                raise InvalidArgument("container rootfs is marked read-only")
            owner = None
            if keep_owner and record.config.user:
                user = find_user(root, record.config.user)
                owner = (user.uid, user.gid)
            directory = posixpath.normpath("/" + path)
            Extraction(root, directory, no_overwrite=no_overwrite, owner=owner).run(stream)

    # changes

    def changes(self, container: Container) -> list[Json]:
        """Return what differs from the image, as ``docker diff`` tells it."""
        return [
            {"Path": os.fsdecode(change.path), "Kind": _KINDS[change.kind]}
            for change in visible(self._services.layers.changes(container.id), container)
        ]


def visible(changes: list[Change], container: Container) -> list[Change]:
    """Leave out the places that runtimes made to mount at, and directories changed by that only."""
    places = set(_MOUNT_PLACES)
    kept: list[Change] = []
    hidden: set[bytes] = set()
    for change in changes:
        if change.path in places and change.kind in ("added", "modified"):
            hidden.add(change.path)
        else:
            kept.append(change)
    parents_hidden = {posixpath.dirname(path) for path in hidden}
    parents_kept = {posixpath.dirname(change.path) for change in kept}
    return [
        change
        for change in kept
        if not (
            change.kind == "modified"
            and change.path in parents_hidden
            and change.path not in parents_kept
        )
    ]


def _split(path: str) -> tuple[str, str]:
    """Return the directory and the last name of a path, which may end in ``/`` or ``/.``."""
    clean = posixpath.normpath("/" + path)
    clean = "/" + clean.lstrip("/")
    directory, name = posixpath.split(clean)
    return directory, name
