"""A courier: brings what waits in the log spools of a container that has ended to the receivers."""

from __future__ import annotations

import select
import shutil
import socket
from contextlib import suppress
from pathlib import Path

from drivetrain.errors import EngineError
from drivetrain.registry import Registry
from drivetrain_engine.containers.protocol import ShimSpec
from drivetrain_engine.containers.shim.logset import Logs
from drivetrain_engine.containers.shim.streams import Loop

#: Seconds between looks whether everything is delivered.
LOOK = 0.5
#: In the directory that has what a removed container left: its drivers.
ASIDE = "logs.json"


def deliver(spec: ShimSpec, control: socket.socket, registry: Registry) -> None:
    """Deliver until nothing waits, the directory is gone, or the daemon ends the connection."""
    directory = Path(spec.directory)
    logs = Logs(spec.logs, directory, registry, delivering=True)
    left: list[int] = []
    loop = Loop()
    loop.watch(control.fileno(), select.POLLIN, left.append)
    # A driver that refuses to open now may do so at the next start of the daemon.
    with suppress(EngineError):
        logs.open()
        while not left and directory.is_dir() and logs.waiting:
            loop.once(LOOK)
    done = not logs.waiting
    logs.linger(0)
    if done and (directory / ASIDE).exists():
        shutil.rmtree(directory, ignore_errors=True)
