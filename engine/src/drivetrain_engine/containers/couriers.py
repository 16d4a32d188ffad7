"""Who delivers log records that a container left behind: a courier, forked from the zygote.

A shim ends with its container. What receivers had not taken by then is in spools, and a courier
brings it away, for as long as the container exists and does not run, and the daemon runs; the next
start of either goes on where it stopped. Spools of a removed container are set aside and kept for
a day.
"""

from __future__ import annotations

import logging
import shutil
import socket
import threading
import time
from pathlib import Path

import msgspec

from drivetrain_engine.containers.protocol import LogSetup
from drivetrain_engine.containers.shim.courier import ASIDE
from drivetrain_engine.containers.shim.logset import SPOOL
from drivetrain_engine.containers.shim.spool import waiting
from drivetrain_engine.containers.shims import Shims

logger = logging.getLogger(__name__)

#: Seconds that records of a removed container are kept for.
KEPT = 24 * 3600.0


def undelivered(directory: Path) -> dict[str, int]:
    """Return how many bytes wait for each log driver in a container's directory."""
    folder = directory / SPOOL
    if not folder.is_dir():
        return {}
    return {entry.name: size for entry in folder.iterdir() if (size := waiting(entry))}


class Couriers:
    """The couriers of this daemon.

    Args:
        shims: forks them.
        root: where spools of removed containers are kept.
    """

    def __init__(self, shims: Shims, root: Path) -> None:
        self._shims = shims
        self._root = root
        self._lock = threading.Lock()
        self._controls: dict[str, socket.socket] = {}

    def start(self, container_id: str, directory: Path, setups: list[LogSetup]) -> None:
        """Bring away what a container that does not run has left, if there is anything."""
        if undelivered(directory):
            control = self._shims.deliver(container_id, directory, setups)
            self._replace(container_id, control)

    def stop(self, container_id: str) -> None:
        """End a container's courier after what it has in its hands; its shim goes on then."""
        self._replace(container_id, None)

    def _replace(self, container_id: str, control: socket.socket | None) -> None:
        with self._lock:
            former = self._controls.pop(container_id, None)
            if control is not None:
                self._controls[container_id] = control
        if former is not None:
            former.close()

    def set_aside(self, container_id: str, directory: Path, setups: list[LogSetup]) -> None:
        """A container is removed: keep its undelivered records, and go on delivering them."""
        self.stop(container_id)
        found = undelivered(directory)
        if not found:
            return
        place = self._root / container_id
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        (place / ASIDE).write_bytes(msgspec.json.encode(setups))
        shutil.rmtree(place / SPOOL, ignore_errors=True)
        (directory / SPOOL).rename(place / SPOOL)
        for driver, size in found.items():
            logger.info("%s: %d bytes wait for log driver %s", container_id[:12], size, driver)
        self.start(container_id, place, setups)

    def resume(self) -> None:
        """After a start of the daemon: go on with the records of removed containers."""
        for place in self._root.iterdir() if self._root.is_dir() else ():
            try:
                setups = msgspec.json.decode((place / ASIDE).read_bytes(), type=list[LogSetup])
                age = time.time() - (place / ASIDE).stat().st_mtime
            except (OSError, msgspec.MsgspecError):
                setups, age = [], KEPT
            if age >= KEPT or not undelivered(place):
                shutil.rmtree(place, ignore_errors=True)
            else:
                self.start(place.name, place, setups)

    def close(self) -> None:
        """The daemon ends; what is not delivered waits for the next one."""
        with self._lock:
            controls = list(self._controls.values())
            self._controls.clear()
        for control in controls:
            control.close()
