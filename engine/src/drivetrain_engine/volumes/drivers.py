"""The volume drivers in use: each loaded, probed and opened once, when it is first needed."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection
from pathlib import Path
from queue import Empty, Queue
from typing import TYPE_CHECKING

from drivetrain.errors import EngineError, NotFound
from drivetrain.volume import VolumeHooks, VolumeInfo
from drivetrain_engine.volumes.locks import NamedLocks

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
        self._opening = NamedLocks()

    def get(self, name: str) -> Driver[VolumeHooks]:
        """Return a driver, opened.

        Raises:
            NotFound: no such driver is installed.
            NotSupported: this host cannot carry it.
        """
        driver = self._open.get(name)
        if driver is not None:
            return driver
        # one that is slow to open must not keep others waiting
        with self._opening.holding(name):
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

    def listed(
        self, names: Collection[str], needed: Collection[str] = ()
    ) -> tuple[dict[str, list[VolumeInfo]], list[str]]:
        """Ask backends with volumes of their own for them, in bounded time.

        Args:
            names: of drivers.
            needed: those of them that have volumes we know; of others, one that was taken away is
                no fault.

        Returns:
            The volumes per driver, and warnings about drivers that do not answer.
        """
        answers: Queue[tuple[str, list[VolumeInfo] | EngineError]] = Queue()
        waiting = {name for name in names if self._may_list(name)}
        for name in waiting:
            # a daemon thread, since one that hangs must not keep the process from ending
            threading.Thread(target=self._list_one, args=(name, answers), daemon=True).start()
        found: dict[str, list[VolumeInfo]] = {}
        warnings: list[str] = []
        deadline = time.monotonic() + LIST_TIMEOUT
        while waiting:
            try:
                name, answer = answers.get(timeout=max(deadline - time.monotonic(), 0.001))
            except Empty:
                warnings += [
                    f"volume driver {name}: no answer within {LIST_TIMEOUT:g} s"
                    for name in sorted(waiting)
                ]
                break
            waiting.discard(name)
            if isinstance(answer, NotFound) and name not in needed:
                self._open.pop(name, None)
            elif isinstance(answer, EngineError):
                warnings.append(f"volume driver {name}: {answer}")
            else:
                found[name] = answer
        return found, warnings

    def _may_list(self, name: str) -> bool:
        driver = self._open.get(name)
        return driver is None or driver.call.volume_traits().own_state

    def _list_one(
        self, name: str, answers: Queue[tuple[str, list[VolumeInfo] | EngineError]]
    ) -> None:
        try:
            driver = self.get(name)
            own_state = driver.call.volume_traits().own_state
            answers.put((name, list(driver.call.volume_list()) if own_state else []))
        except EngineError as error:
            answers.put((name, error))

    def close(self) -> None:
        """Close all drivers; mounted volumes stay mounted."""
        for name in self.opened():
            self._open.pop(name).call.volume_close()
