"""The volume drivers in use: each loaded, probed and opened once, when it is first needed."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from pathlib import Path
from typing import TYPE_CHECKING

from drivetrain.errors import DeadlineExceeded, EngineError
from drivetrain.volume import VolumeHooks, VolumeInfo

if TYPE_CHECKING:
    from drivetrain.calling import Driver
    from drivetrain.registry import Registry

#: How long a list waits for one backend, in seconds.
LIST_TIMEOUT = 10.0


class Drivers:
    """Opened volume drivers by name.

    Args:
        root: has a directory per driver.
        registry: where drivers come from.
    """

    def __init__(self, root: Path, registry: Registry) -> None:
        self._root = root
        self._registry = registry
        self._open: dict[str, Driver[VolumeHooks]] = {}
        self._lock = threading.Lock()

    def get(self, name: str) -> Driver[VolumeHooks]:
        """Return a driver, opened.

        Raises:
            NotFound: no such driver is installed.
            NotSupported: this host cannot carry it.
        """
        driver = self._open.get(name)
        if driver is not None:
            return driver
        with self._lock:
            if name not in self._open:
                driver = self._registry.volume(name)
                driver.call.volume_probe()
                root = self._root / name
                root.mkdir(mode=0o711, exist_ok=True)
                root.chmod(0o711)
                driver.call.volume_open(root)
                self._open[name] = driver
            return self._open[name]

    def opened(self) -> list[str]:
        """Return the names of the drivers opened so far."""
        return sorted(self._open)

    def listed(self, names: list[str]) -> tuple[dict[str, list[VolumeInfo]], list[str]]:
        """Ask backends with volumes of their own for them, in bounded time.

        Returns:
            The volumes per driver, and warnings about drivers that do not answer.
        """
        found: dict[str, list[VolumeInfo]] = {}
        warnings: list[str] = []
        asked = {}
        pool = ThreadPoolExecutor(thread_name_prefix="volume-list")
        try:
            for name in names:
                asked[name] = pool.submit(self._list_one, name)
            for name, future in asked.items():
                try:
                    found[name] = future.result(LIST_TIMEOUT)
                except (EngineError, FutureTimeout) as error:
                    if isinstance(error, FutureTimeout):
                        error = DeadlineExceeded(f"no answer within {LIST_TIMEOUT:g} s")
                    warnings.append(f"volume driver {name}: {error}")
        finally:
            pool.shutdown(wait=False)
        return found, warnings

    def _list_one(self, name: str) -> list[VolumeInfo]:
        driver = self.get(name)
        if not driver.call.volume_traits().own_state:
            return []
        return list(driver.call.volume_list())

    def close(self) -> None:
        """Close all drivers; mounted volumes stay mounted."""
        with self._lock:
            for driver in self._open.values():
                driver.call.volume_close()
            self._open.clear()
