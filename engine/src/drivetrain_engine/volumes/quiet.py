"""Volumes that nobody changes while their files are being copied."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterator

from drivetrain.errors import InUse
from drivetrain_engine.volumes.model import Record

#: Returns the ids of the containers that are paused now.
Paused = Callable[[], Collection[str]]


class Quiet:
    """Keeps volumes as they are: who is paused stays so, and nobody else mounts them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: Counter[str] = Counter()

    @contextlib.contextmanager
    def keeping(self, record: Record, paused: Paused) -> Iterator[None]:
        """Keep a volume as it is for the time of the context. The caller holds it at first.

        Raises:
            InUse: a container has it mounted that is not paused.
        """
        # before the question who is paused: an unpause sees the mark, or its effect is seen here
        self._change(record.name, 1)
        try:
            allowed = paused()
            if busy := [user for user in record.mounted if user not in allowed]:
                raise InUse(
                    f"volume {record.name} is in use - [{', '.join(busy)}], and its driver has no "
                    "snapshots of volumes in use: pause (engine pause) or stop them meanwhile"
                )
            yield
        finally:
            self._change(record.name, -1)

    def _change(self, name: str, by: int) -> None:
        with self._lock:
            self._kept[name] += by
            if not self._kept[name]:
                del self._kept[name]

    def check(self, name: str) -> None:
        """Refuse to have a volume mounted by one more.

        Raises:
            InUse: its files are being copied.
        """
        if name in self._kept:
            raise InUse(f"volume {name} is being copied: start again when that is done")

    def check_users(self, records: Collection[Record], user: str) -> None:
        """Refuse to let a paused container go on.

        Raises:
            InUse: files that it may write are being copied.
        """
        for record in records:
            if record.name in self._kept and user in record.mounted:
                raise InUse(
                    f"volume {record.name} is being copied, and container {user} may write it: "
                    "unpause the container when that is done"
                )
