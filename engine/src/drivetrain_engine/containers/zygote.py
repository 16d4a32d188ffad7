"""The daemon's side of the zygote: asks for shims."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import msgspec

from drivetrain_engine.containers.protocol import ShimSpec
from drivetrain_engine.containers.shim import zygote


class Zygote:
    """A process of its own, with nothing of the daemon in it: shims share what it imports.

    Args:
        exec_root: shown in the command line of zygote and shims.
        preload: log drivers that shims are likely to need.
    """

    def __init__(self, exec_root: Path, preload: tuple[str, ...] = ("json-file",)) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, zygote.LARGEST * 2)
        with theirs:
            self._process = subprocess.Popen(
                [
                    sys.executable, "-m", zygote.__name__,
                    str(exec_root), str(theirs.fileno()), *preload,
                ],
                stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()], start_new_session=True,
            )  # fmt: skip
        self.pid = self._process.pid

    def spawn(self, spec: ShimSpec, folder: Path) -> socket.socket:
        """Fork a shim and return the connection to it."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with theirs:
            request = msgspec.json.encode((str(folder), spec))
            socket.send_fds(self._socket, [request], [theirs.fileno()])
        return ours

    def close(self) -> None:
        """End the zygote; the shims stay."""
        self._socket.close()
        self._process.wait()
