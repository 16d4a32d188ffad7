"""Where layers are mounted; a driver is told when a layer's last place is gone."""

from __future__ import annotations

import contextlib
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

from drivetrain.calling import Driver
from drivetrain.errors import EngineError
from drivetrain.host import mounts
from drivetrain.storage import StorageHooks
from drivetrain_engine.layers.records import LayerRecord


class Places:
    """The mounts of all layers.

    Args:
        driver: returns an opened driver by its name.
    """

    def __init__(self, driver: Callable[[str], Driver[StorageHooks]]) -> None:
        self._driver = driver
        self._places: defaultdict[tuple[str, str], set[Path]] = defaultdict(set)
        self._locks: defaultdict[tuple[str, str], threading.Lock] = defaultdict(threading.Lock)

    def mount(self, record: LayerRecord, target: Path, *, read_only: bool) -> None:
        """Mount a layer at a place, unless something is mounted there."""
        layer = (record.driver, record.key)
        call = self._driver(record.driver).call
        with self._locks[layer]:
            self._places[layer].add(target)
            if _mounted(target):
                return
            target.mkdir(exist_ok=True)
            try:
                entries = call.layer_mounts(record.key, record.parents, read_only)
                mounts.mount(entries, target)
            except BaseException:
                target.rmdir()
                self._leave(record, target)
                raise

    def adopt(self, record: LayerRecord, target: Path) -> None:
        """Take note of a mount that an earlier process made."""
        self._places[record.driver, record.key].add(target)

    def unmount(self, target: Path, record: LayerRecord | None) -> None:
        """Unmount whatever is at a place, of a layer when it is known; nothing there is fine."""
        if record is None:
            _unmount(target)
            return
        with self._locks[record.driver, record.key]:
            _unmount(target)
            self._leave(record, target)

    def release(self, records: Iterable[LayerRecord]) -> None:
        """Tell the drivers which layers are mounted nowhere, after unmounting unknown ones."""
        for record in records:
            if (record.driver, record.key) not in self._places:
                with contextlib.suppress(EngineError):
                    self._driver(record.driver).call.layer_unmounted(record.key)

    def _leave(self, record: LayerRecord, target: Path) -> None:
        layer = (record.driver, record.key)
        self._places[layer].discard(target)
        if not self._places[layer]:
            del self._places[layer]
            with contextlib.suppress(EngineError):
                self._driver(record.driver).call.layer_unmounted(record.key)


def free(root: Path) -> None:
    """Unmount what a process that was killed while it probed has left below a driver's root.

    Layers are mounted elsewhere, and drivers mount only to try things out.
    """
    for entry in reversed(mounts.mount_table()):
        if entry.target.startswith(f"{root}/"):
            mounts.unmount(Path(entry.target))


def _unmount(target: Path) -> None:
    if target.exists():
        mounts.unmount(target)
        target.rmdir()


def _mounted(target: Path) -> bool:
    """Whether something is mounted at a directory; quicker than reading the whole table."""
    try:
        here, above = target.lstat(), target.parent.lstat()
    except FileNotFoundError:
        return False
    return here.st_dev != above.st_dev or mounts.is_mounted(target)
