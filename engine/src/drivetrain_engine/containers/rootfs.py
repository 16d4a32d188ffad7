"""The mounted roots of containers, counted: by the running container and by those who look in."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from drivetrain_engine.layers import Layers


class _Mounted:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.users = 0
        self.path = Path()


class Rootfs:
    """Mounts a root for its first user and unmounts it after the last."""

    def __init__(self, layers: Layers) -> None:
        self._layers = layers
        self._lock = threading.Lock()
        self._mounted: dict[str, _Mounted] = {}

    def _entry(self, container_id: str) -> _Mounted:
        with self._lock:
            return self._mounted.setdefault(container_id, _Mounted())

    def mount(self, container_id: str) -> Path:
        """Return where the root is mounted."""
        entry = self._entry(container_id)
        with entry.lock:
            if not entry.users:
                entry.path = self._layers.mount(container_id)
            entry.users += 1
            return entry.path

    def unmount(self, container_id: str) -> None:
        """Take note that one user is done; one too many is fine."""
        entry = self._entry(container_id)
        with entry.lock:
            if entry.users > 1:
                entry.users -= 1
                return
            self._layers.unmount(container_id)
            entry.users = 0

    def adopt(self, container_id: str) -> Path:
        """Count a container that ran when the daemon started; its root is mounted already."""
        return self.mount(container_id)

    def forget(self, container_id: str) -> None:
        """Drop the entry of a removed container."""
        with self._lock:
            self._mounted.pop(container_id, None)

    @contextmanager
    def mounted(self, container_id: str) -> Iterator[Path]:
        """Have a root mounted for the length of a ``with``."""
        path = self.mount(container_id)
        try:
            yield path
        finally:
            self.unmount(container_id)
