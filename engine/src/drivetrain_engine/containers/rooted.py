"""Paths inside a container's root: links are followed, but never out of it (openat2(2))."""

from __future__ import annotations

import ctypes
import errno
import os
import posixpath
import stat
from pathlib import Path

from drivetrain.host import libc

_OPENAT2 = 437
_RESOLVE_NO_MAGICLINKS, _RESOLVE_IN_ROOT = 0x02, 0x10


class _How(ctypes.Structure):
    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    )


class Root:
    """An open directory as whose content all paths are resolved; a context manager.

    Args:
        path: of the directory; its own links are followed.
    """

    def __init__(self, path: Path | str) -> None:
        self.fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def __enter__(self) -> Root:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the directory."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def open(self, path: str, flags: int, mode: int = 0) -> int:
        """Open a path inside; ``..`` and links end at the root.

        Raises:
            OSError: as open(2), with ``path`` as the file's name.
        """
        how = _How(
            flags | os.O_CLOEXEC, mode if flags & os.O_CREAT else 0,
            _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS,
        )  # fmt: skip
        name = os.fsencode(path) or b"."
        while True:
            try:
                return libc.syscall(
                    "open", _OPENAT2, ctypes.c_int(self.fd), ctypes.c_char_p(name),
                    ctypes.byref(how), ctypes.c_size_t(ctypes.sizeof(how)),
                )  # fmt: skip
            except OSError as error:
                # A rename or mount elsewhere raced with "..": the kernel asks for another try.
                if error.errno != errno.EAGAIN:
                    raise OSError(error.errno, os.strerror(error.errno or 0), path) from None

    def read(self, path: str, limit: int = 1 << 20) -> bytes:
        """Return the content of a regular file, at most ``limit`` bytes; empty when there is none.

        Fifos and devices count as none: opening them may block or do something.
        """
        try:
            place = self.open(path, os.O_PATH)
        except OSError:
            return b""
        try:
            if not stat.S_ISREG(os.fstat(place).st_mode):
                return b""
            with open(f"/proc/self/fd/{place}", "rb") as file:
                return file.read(limit)
        except OSError:
            return b""
        finally:
            os.close(place)

    def resolve(self, path: str) -> str:
        """Return where a path leads, as a path of the host.

        Raises:
            OSError: it does not exist.
        """
        place = self.open(path, os.O_PATH)
        try:
            return os.readlink(f"/proc/self/fd/{place}")
        finally:
            os.close(place)

    def make_directories(self, path: str, mode: int = 0o755) -> None:
        """Make a directory and those above it, where missing; links are followed inside.

        Raises:
            OSError: such as ENOTDIR, when a file is in the way.
        """
        done = "/"
        for part in [part for part in posixpath.normpath("/" + path).split("/") if part]:
            parent = self.open(done, os.O_PATH | os.O_DIRECTORY)
            done = posixpath.join(done, part)
            try:
                os.mkdir(part, mode, dir_fd=parent)
            except FileExistsError:
                os.close(self.open(done, os.O_PATH | os.O_DIRECTORY))
            finally:
                os.close(parent)
