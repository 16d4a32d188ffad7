"""The zygote: a small process that forks the shims.

What it has imported and warmed, all shims share. A shim's parent is the zygote, and init after the
daemon's end; it ends with the daemon, the shims do not.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import sys
from pathlib import Path

import msgspec

from drivetrain.errors import EngineError
from drivetrain.registry import Registry
from drivetrain_engine.containers.protocol import ShimSpec
from drivetrain_engine.containers.shim import main as shim

#: Bytes of a request.
LARGEST = 1 << 20
_REQUEST = msgspec.json.Decoder(tuple[str, ShimSpec])


def serve(requests: socket.socket, preload: list[str]) -> None:
    """Fork a shim for every request until the daemon hangs up.

    Args:
        requests: a folder and a spec each, with the connection to the daemon.
        preload: log drivers to have ready.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    registry = Registry()
    ready: set[str] = set()
    gc.disable()
    _prepare(registry, preload, ready)
    while True:
        data, descriptors, _, _ = socket.recv_fds(requests, LARGEST, 1)
        if not data:
            os._exit(0)
        folder, spec = _REQUEST.decode(data)
        _prepare(registry, [setup.driver for setup in spec.logs], ready)
        child = os.fork()
        if child == 0:
            _become_shim(requests, folder, spec, descriptors[0], registry)
        os.close(descriptors[0])


def _prepare(registry: Registry, names: list[str], ready: set[str]) -> None:
    """Import log drivers that are not ready: a shim that does so has megabytes of its own."""
    fresh = [name for name in names if name not in ready]
    for name in fresh:
        # Who asks for one that is missing or broken is told why then.
        with contextlib.suppress(EngineError):
            registry.prepare("log", name)
        ready.add(name)
    if fresh:
        gc.collect()
        gc.freeze()


def _become_shim(
    requests: socket.socket, folder: str, spec: ShimSpec, descriptor: int, registry: Registry
) -> None:
    try:
        requests.close()
        os.setsid()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        shim.main(spec, Path(folder), socket.socket(fileno=descriptor), registry)
        os._exit(0)
    finally:
        os._exit(1)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[2])), sys.argv[3:])
