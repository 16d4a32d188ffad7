"""Network namespaces that are kept by a file, without a process in them and without a fork."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from drivetrain.host import libc
from drivetrain.host.mounts import MS_BIND, unmount

T = TypeVar("T")

_SELF = "/proc/thread-self/ns/net"


@contextmanager
def _coming_back() -> Iterator[None]:
    """Have the calling thread in the namespace where it is now at the end of a ``with``.

    In the thread itself: one of its own for each visit has to be scheduled, twice, and on a busy
    machine that takes longer than everything that is done there.
    """
    own = os.open(_SELF, os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            yield
        finally:
            libc.setns(own, libc.CLONE_NEWNET)
    finally:
        os.close(own)


def new_network_namespace(path: Path) -> None:
    """Make a network namespace and keep it by ``path``, to be opened for setns(2).

    Args:
        path: a file that does not exist, or an empty one; its directory exists.

    Raises:
        OSError: EEXIST when something else is mounted at ``path``.
    """
    path.touch(mode=0o444)
    if is_namespace(path):
        raise OSError(errno.EEXIST, f"a network namespace exists already: {path}")

    try:
        with _coming_back():
            libc.unshare(libc.CLONE_NEWNET)
            libc.mount(os.fsencode(_SELF), os.fsencode(path), b"", MS_BIND, b"")
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def remove_network_namespace(path: Path) -> None:
    """Let go of a namespace: the kernel takes it down with its links when no process is in it.

    Nothing there is fine.
    """
    unmount(path)
    path.unlink(missing_ok=True)


def is_namespace(path: Path) -> bool:
    """Tell whether ``path`` is a namespace and not the empty file that is left after a reboot."""
    try:
        return os.stat(path).st_dev == os.stat(_SELF).st_dev
    except OSError:
        return False


def run_in(path: Path, func: Callable[[], T]) -> T:
    """Call ``func`` with the calling thread inside the network namespace; return what it returns.

    Sockets that it opens stay in that namespace and may be used by any thread; threads and
    processes that it starts stay there.
    """
    with inside(path):
        return func()


def run_in_new(func: Callable[[], T]) -> T:
    """Call ``func`` with the calling thread inside a new network namespace, which ends with it.

    What a probe makes there touches nothing of the host.
    """
    with _coming_back():
        libc.unshare(libc.CLONE_NEWNET)
        return func()


@contextmanager
def inside(path: Path) -> Iterator[None]:
    """Have the calling thread inside the network namespace for the length of a ``with``."""
    with _coming_back():
        _enter(path)
        yield


def _enter(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        libc.setns(descriptor, libc.CLONE_NEWNET)
    except OSError as error:
        raise OSError(error.errno, f"enter network namespace {path}: {error.strerror}") from None
    finally:
        os.close(descriptor)
