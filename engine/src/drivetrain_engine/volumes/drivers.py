"""The volume drivers in use: each loaded, probed and opened once, when it is first needed."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection
from pathlib import Path
from queue import Empty, Queue
from typing import TYPE_CHECKING

from drivetrain.errors import EngineError, NotFound, NotSupported, Unavailable
from drivetrain.volume import VolumeHooks, VolumeInfo
from drivetrain_engine.volumes.locks import NamedLocks

if TYPE_CHECKING:
    from drivetrain.calling import Driver
    from drivetrain.registry import Registry

#: How long a list waits for one backend, in seconds.
LIST_TIMEOUT = 10.0
#: For how long one that did not answer is not asked for a name, in seconds.
SILENCE = 30.0


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
        #: drivers that have no volumes but ours
        self._listless: set[str] = set()
        #: drivers that did not answer, and when
        self._silent: dict[str, float] = {}

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

    def installed(self) -> list[str]:
        """Return the names of all drivers there are, those of plugins that run now too."""
        try:
            found = self._registry.describe("volume", load=False)
        except NotSupported:  # a finder of drivers that is broken
            return sorted(self._open)
        return sorted({*self._open, *(info.name for info in found if info.state == "ok")})

    def answering(self) -> list[str]:
        """Return the installed drivers, without those that just did not answer."""
        since = time.monotonic() - SILENCE
        return [name for name in self.installed() if self._silent.get(name, since) <= since]

    def listed(
        self, names: Collection[str], needed: Collection[str] = ()
    ) -> tuple[dict[str, list[VolumeInfo]], list[str]]:
        """Ask backends with volumes of their own for them, in bounded time.

        Args:
            names: of drivers.
            needed: those of them that have volumes we know; of others, one that was taken away or
                does not work here is no fault.

        Returns:
            The volumes per driver, and warnings about drivers that do not answer.
        """
        answers: Queue[tuple[str, list[VolumeInfo] | EngineError]] = Queue()
        waiting = {name for name in names if name in needed or name not in self._listless}
        for name in waiting:
            # a daemon thread, since one that hangs must not keep the process from ending
            threading.Thread(
                target=self._list_one, args=(name, name in needed, answers), daemon=True
            ).start()
        found: dict[str, list[VolumeInfo]] = {}
        warnings: list[str] = []
        deadline = time.monotonic() + LIST_TIMEOUT
        while waiting:
            try:
                name, answer = answers.get(timeout=max(deadline - time.monotonic(), 0.001))
            except Empty:
                for name in sorted(waiting):
                    self._silent[name] = time.monotonic()
                    warnings.append(f"volume driver {name}: no answer within {LIST_TIMEOUT:g} s")
                break
            waiting.discard(name)
            if isinstance(answer, NotFound | NotSupported) and name not in needed:
                self._open.pop(name, None)
            elif isinstance(answer, EngineError):
                warnings.append(f"volume driver {name}: {answer}")
            else:
                found[name] = answer
        return found, warnings

    def _list_one(
        self, name: str, needed: bool, answers: Queue[tuple[str, list[VolumeInfo] | EngineError]]
    ) -> None:
        try:
            # one that nobody uses is not opened for an answer that it cannot give
            driver = self._open.get(name) or (
                self.get(name) if needed else self._registry.volume(name)
            )
            if not driver.call.volume_traits().own_state:
                self._listless.add(name)
                answers.put((name, []))
                return
            answers.put((name, list(self.get(name).call.volume_list())))
            self._silent.pop(name, None)
        except EngineError as error:
            if isinstance(error, Unavailable):
                self._silent[name] = time.monotonic()
            answers.put((name, error))

    def close(self) -> None:
        """Close all drivers; mounted volumes stay mounted."""
        for name in sorted(self._open):
            self._open.pop(name).call.volume_close()
