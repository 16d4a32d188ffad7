"""Following a part of etcd: what is there, and every change, over every interruption."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

from drivetrain.errors import EngineError
from drivetrain_network_overlay.etcd import Etcd, Stop
from drivetrain_network_overlay.kv import Batch, Compacted, Item

log = logging.getLogger("engine.network.overlay")

#: Seconds between attempts: the first, and the longest.
_PAUSE, _LONGEST_PAUSE = 0.1, 2.0
Told = Callable[[Sequence[Item], Sequence[Item]], None]


class Follower:
    """Keeps a copy of everything below a prefix, and tells what changes.

    It lists, then watches from the revision of the list. After a break it watches on from the last
    revision that it saw; when etcd has forgotten that, or was restored from a backup (its revision
    went back), it lists anew and tells the difference to what it knew. So whoever is told sees a
    sequence of changes that never lacks one, whatever happened in between.

    Args:
        client: of etcd.
        prefix: what to follow.
        told: called with what is new or changed and what is gone, from the follower's thread;
            ones that are gone have the last value that was known. The first call has the whole
            list, and comes even when that is empty.
        name: of the thread.
    """

    def __init__(self, client: Etcd, prefix: bytes, told: Told, name: str) -> None:
        self._etcd = client
        self._prefix = prefix
        self._told = told
        self._stop = Stop()
        self._listed = threading.Event()
        self._revision = 0
        self.items: dict[bytes, Item] = {}
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> Follower:
        """Begin."""
        self._thread.start()
        return self

    def wait(self, seconds: float) -> bool:
        """Wait until the first list was told; return whether it was."""
        return self._listed.wait(seconds)

    def disturb(self) -> None:
        """Begin a new connection: the present one is thought to be dead."""
        self._stop.disturb()

    def close(self) -> None:
        """End; afterwards nothing is told."""
        self._stop.set()
        if threading.current_thread() is not self._thread and self._thread.is_alive():
            self._thread.join(10)

    def _run(self) -> None:
        pause = _PAUSE
        while not self._stop.is_set():
            try:
                if not self._revision:
                    self._list()
                self._watch()
            except Compacted:
                self._revision = 0
            except EngineError as error:
                if not self._stop.is_set():
                    log.debug("following %s: %s", self._prefix.decode(), error)
                    self._stop.wait(pause)
                    pause = min(2 * pause, _LONGEST_PAUSE)
                continue
            except Exception:
                log.exception("following %s", self._prefix.decode())
                self._revision = 0
                self._stop.wait(_LONGEST_PAUSE)
            pause = _PAUSE

    def _list(self) -> None:
        found, revision = self._etcd.range(self._prefix)
        fresh = {item.key: item for item in found}
        changed = [
            item
            for item in found
            if item.key not in self.items or self.items[item.key].value != item.value
        ]
        gone = [item for key, item in self.items.items() if key not in fresh]
        self.items = fresh
        self._revision = revision
        if changed or gone or not self._listed.is_set():
            self._told(changed, gone)
        self._listed.set()

    def _watch(self) -> None:
        for batch in self._etcd.watch(self._prefix, self._revision + 1, self._stop):
            if batch.begun and batch.revision < self._revision:
                # A store that was restored from a backup: our history is not its history.
                self._revision = 0
                return
            if not batch.begun:
                self._take(batch)

    def _take(self, batch: Batch) -> None:
        changed: dict[bytes, Item] = {}
        gone: dict[bytes, Item] = {}
        for event in batch.events:
            key = event.item.key
            if event.deleted:
                known = self.items.pop(key, None)
                changed.pop(key, None)
                if known is not None:
                    gone[key] = known
            else:
                self.items[key] = changed[key] = event.item
                gone.pop(key, None)
        self._revision = max(self._revision, batch.revision)
        if changed or gone:
            self._told(list(changed.values()), list(gone.values()))
