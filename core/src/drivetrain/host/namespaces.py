"""Network namespaces that are kept by a file, without a process in them and without a fork."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from drivetrain.host import libc
from drivetrain.host.mounts import MS_BIND, unmount

T = TypeVar("T")

_SELF = "/proc/thread-self/ns/net"


def _in_thread(func: Callable[[], T]) -> T:
    """Call ``func`` in a thread that ends with it, and return or raise what it does."""
    outcome: list[T] = []
    failure: list[BaseException] = []

    def work() -> None:
        try:
            outcome.append(func())
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=work, name="namespace", daemon=True)
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return outcome[0]


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

    def make() -> None:
        libc.unshare(libc.CLONE_NEWNET)
        libc.mount(os.fsencode(_SELF), os.fsencode(path), b"", MS_BIND, b"")

    try:
        _in_thread(make)
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
    """Call ``func`` in a thread inside the network namespace and return what it returns.

    Sockets that it opens stay in that namespace and may be used by any thread.
    """

    def work() -> T:
        _enter(path)
        return func()

    return _in_thread(work)


def run_in_new(func: Callable[[], T]) -> T:
    """Call ``func`` in a thread inside a new network namespace, which ends with it.

    What a probe makes there touches nothing of the host.
    """

    def work() -> T:
        libc.unshare(libc.CLONE_NEWNET)
        return func()

    return _in_thread(work)


@contextmanager
def inside(path: Path) -> Iterator[None]:
    """Have the calling thread inside the network namespace for the length of a ``with``."""
    own = os.open(_SELF, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _enter(path)
        try:
            yield
        finally:
            libc.setns(own, libc.CLONE_NEWNET)
    finally:
        os.close(own)


def _enter(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        libc.setns(descriptor, libc.CLONE_NEWNET)
    except OSError as error:
        raise OSError(error.errno, f"enter network namespace {path}: {error.strerror}") from None
    finally:
        os.close(descriptor)
