"""The zygote: a small process, forked before the daemon has threads, that forks the shims.

What it has imported, all shims share. A shim's parent is the zygote, and init after the daemon's
end; it ends with the daemon, the shims do not.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
from pathlib import Path

import msgspec

from drivetrain.registry import Registry
from drivetrain_engine.containers.protocol import ShimSpec
from drivetrain_engine.containers.shim import main as shim

LARGEST = 1 << 20


class Zygote:
    """The daemon's side: asks for shims.

    Args:
        preload: log drivers that shims are likely to need.
    """

    def __init__(self, preload: tuple[str, ...] = ("json-file",)) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, LARGEST * 2)
        pid = os.fork()
        if pid == 0:
            try:
                self._socket.close()
                _serve(theirs, preload)
            finally:
                os._exit(1)
        theirs.close()
        self.pid = pid

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
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)


def _serve(requests: socket.socket, preload: tuple[str, ...]) -> None:
    os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    _close_inherited(requests.fileno())
    registry = Registry()
    for name in preload:
        if name in registry.names("log"):
            with contextlib.suppress(Exception):
                registry.log(name).call.log_options()
    gc.collect()
    gc.freeze()
    gc.disable()
    while True:
        data, descriptors, _, _ = socket.recv_fds(requests, LARGEST, 1)
        if not data:
            os._exit(0)
        child = os.fork()
        if child == 0:
            _become_shim(requests, data, descriptors[0])
        os.close(descriptors[0])


def _close_inherited(keep: int) -> None:
    """Close what the daemon had open: locks and sockets must not outlive it in a shim."""
    for name in os.listdir("/proc/self/fd"):
        descriptor = int(name)
        if descriptor > 2 and descriptor != keep:
            with contextlib.suppress(OSError):
                os.close(descriptor)


def _become_shim(requests: socket.socket, data: bytes, descriptor: int) -> None:
    try:
        requests.close()
        os.setsid()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        folder, spec = msgspec.json.decode(data, type=tuple[str, ShimSpec])
        shim.main(spec, Path(folder), socket.socket(fileno=descriptor))
        os._exit(0)
    finally:
        os._exit(1)
