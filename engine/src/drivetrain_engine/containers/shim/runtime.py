"""Calling the OCI runtime: runc, crun and what keeps to their command line."""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import re
import signal
import socket
from pathlib import Path

from drivetrain.errors import EngineError, Internal, InvalidArgument, NotFound, PermissionDenied

_CLONE_NEWNS = 0x20000
_MS_PRIVATE = 1 << 18
_MNT_DETACH = 2
_PR_SET_PDEATHSIG = 1
UNIFIED = "/sys/fs/cgroup/unified"

_libc = ctypes.CDLL(None, use_errno=True)


class CommandNotFound(NotFound):
    """The command is not in the container; exit code 127 for the user."""

    http_status = 400
    exit_code = 127


class CommandNotExecutable(PermissionDenied):
    """The command cannot be executed; exit code 126 for the user."""

    http_status = 400
    exit_code = 126


def make_subreaper() -> None:
    """Become the parent of orphaned descendants (PR_SET_CHILD_SUBREAPER)."""
    _libc.prctl(36, 1, 0, 0, 0)


def name_process(name: str) -> None:
    """Set what ps shows as the command's short name (PR_SET_NAME)."""
    _libc.prctl(15, name.encode()[:15], 0, 0, 0)


def _hide_unified() -> None:
    """Give this process a view without the v2 tree of hybrid hosts, which crun refuses."""
    if _libc.unshare(_CLONE_NEWNS) != 0:
        return
    # only what the unmount below would reach: volumes may be shared with the host
    _libc.mount(b"", os.path.dirname(UNIFIED).encode(), None, _MS_PRIVATE, None)
    _libc.umount2(UNIFIED.encode(), _MNT_DETACH)


class Runtime:
    """One runtime for one container.

    Args:
        path: the runtime's executable.
        root: its state directory.
        log: the file for its messages.
        private_cgroups: see :class:`ShimSpec`.
    """

    def __init__(self, path: str, root: str, log: Path, private_cgroups: bool) -> None:
        self._path = path
        self._root = root
        self._log = log
        self._private = private_cgroups

    def run(self, *arguments: str, stdio: tuple[int, int, int] | None = None) -> None:
        """Run a command of the runtime and wait for its end.

        Args:
            arguments: the command and its arguments.
            stdio: descriptors for the three streams; a container inherits them from ``create``.

        Raises:
            EngineError: what the runtime said.
        """
        self._log.unlink(missing_ok=True)
        shim = os.getpid()
        command = [
            self._path, "--root", self._root, "--log", str(self._log), "--log-format", "json",
            *arguments,
        ]  # fmt: skip
        child = os.fork()
        if child == 0:
            self._become(command, stdio, shim)
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        if code != 0:
            raise explain(self._message() or f"{self._path} {arguments[0]} ended with {code}")

    def _become(self, command: list[str], stdio: tuple[int, int, int] | None, shim: int) -> None:
        try:
            # A killed shim takes the call with it: nobody would know what it makes.
            _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != shim:
                os._exit(127)
            if stdio is None:
                null = os.open(os.devnull, os.O_RDWR)
                stdio = (null, null, null)
            # Copies above the three first, so that none is overwritten before it is used.
            copies = [fcntl.fcntl(fd, fcntl.F_DUPFD, 10) for fd in stdio]
            for number, copy in enumerate(copies):
                os.dup2(copy, number)
            os.closerange(3, 1024)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            if self._private:
                _hide_unified()
            os.execve(command[0], command, _ENVIRONMENT)
        finally:
            os._exit(127)

    def _message(self) -> str:
        try:
            lines = self._log.read_text(errors="replace").splitlines()
        except OSError:
            return ""
        for line in reversed(lines):
            try:
                entry = json.loads(line)
            except ValueError:
                return line
            if entry.get("level") in ("error", "fatal"):
                return str(entry.get("msg", ""))
        return ""


_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C",
}


def explain(message: str) -> EngineError:
    """Turn a runtime's message into the error that docker's users know."""
    lowered = message.lower()
    # crun writes the C library's words; clients of docker look for Go's.
    spoken = re.sub("Permission denied|No such file", lambda found: found[0].lower(), message)
    text = f"failed to create task for container: {spoken}"
    missing = re.search(r'(?:exec: "|executable file `)([^"`]*)["`].*not found', message)
    if missing:
        return CommandNotFound(
            "failed to create task for container: unable to start container process: "
            f'exec: "{missing[1]}": executable file not found in $PATH'
        )
    executable = re.search(r"\bexec(utable)?\b", lowered)
    if executable and "permission denied" in lowered:
        return CommandNotExecutable(text)
    if executable and ("operation not permitted" in lowered or "is a directory" in lowered):
        return CommandNotExecutable(f"{text}: permission denied")
    if "exec format error" in lowered:
        return CommandNotExecutable(text)
    if executable and "no such file or directory" in lowered:
        return CommandNotFound(text)
    if "chdir to cwd" in lowered or "unable to find user" in lowered:
        return InvalidArgument(text)
    return Internal(text)


def receive_terminal(listener: socket.socket) -> int:
    """Return the pty master that the runtime sends through a console socket."""
    listener.settimeout(30)
    connection, _ = listener.accept()
    with connection:
        _, descriptors, _, _ = socket.recv_fds(connection, 4096, 1)
    if not descriptors:
        raise Internal("the runtime sent no terminal")
    return descriptors[0]
