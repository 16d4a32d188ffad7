"""One daemon per data root, exec root and pidfile.

These are POSIX locks and not flock(2): a flock would pass to the shims, which are forked from this
process and outlive it.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from drivetrain.errors import AlreadyExists, Unavailable


class Lock:
    """A file that is locked as long as this process lives.

    Args:
        path: made if missing; holds the process id.
        what: for the message: ``the data root /var/lib/engine``.
        remove: remove the file at the end.

    Raises:
        AlreadyExists: another process has it.
    """

    def __init__(self, path: Path, what: str, *, remove: bool = False) -> None:
        self._path = path
        self._remove = remove
        try:
            path.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise Unavailable(f"cannot open {path}: {error.strerror}") from None
        try:
            fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            owner = os.pread(self._fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(self._fd)
            raise AlreadyExists(
                f"{what} is used by another daemon (process {owner}): stop it, or choose "
                f"another --data-root, --exec-root and --pidfile"
            ) from None
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Let go; harmless when repeated."""
        if self._fd < 0:
            return
        if self._remove:
            self._path.unlink(missing_ok=True)
        os.close(self._fd)
        self._fd = -1
