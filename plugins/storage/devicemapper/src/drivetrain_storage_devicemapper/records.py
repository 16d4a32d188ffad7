"""What is remembered of thin devices, and transactions that keep it and the pool in agreement.

The pool keeps one number for its user. A change of the pool is announced in a file with the
pool's next number, then made, then recorded; when the pool is given that number, it is done. If a
file announces the next number, a crash came between: the device it names is deleted.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from drivetrain.errors import FailedPrecondition, InUse
from drivetrain_storage_devicemapper.thinpool import ThinPool

log = logging.getLogger(__name__)
_ANNOUNCED = "transaction.json"


@dataclass(frozen=True, slots=True)
class Record:
    """One thin device.

    Attributes:
        number: in the pool.
        size: in bytes.
        file_system: ``xfs`` or ``ext4``.
        committed: its layer never changes any more.
        made: when, as nanoseconds since the epoch; 0: before this was remembered.
    """

    number: int
    size: int
    file_system: str
    committed: bool = False
    made: int = 0


class Records:
    """The devices of a pool by their layers' keys.

    Args:
        folder: where they are kept.
        pool: the pool, at work.

    Raises:
        FailedPrecondition: folder and pool do not belong together.
        InUse: what a crash left half done is in use.
    """

    def __init__(self, folder: Path, pool: ThinPool) -> None:
        self._folder = folder
        self._pool = pool
        self._lock = threading.RLock()
        folder.mkdir(mode=0o700, exist_ok=True)
        for path in folder.glob("*.tmp"):
            path.unlink()
        self._repair()
        self._next = max((record.number for _, record in self), default=0) + 1

    def get(self, key: str) -> Record | None:
        """Return a device, or ``None``."""
        try:
            return Record(**json.loads((self._folder / f"{key}.json").read_text()))
        except FileNotFoundError:
            return None

    def put(self, key: str, record: Record) -> None:
        """Remember a device."""
        self._write(f"{key}.json", asdict(record))

    def rename(self, key: str, new: str) -> None:
        """Keep a device under another key."""
        (self._folder / f"{key}.json").rename(self._folder / f"{new}.json")

    def __iter__(self) -> Iterator[tuple[str, Record]]:
        for path in self._folder.glob("*.json"):
            if path.name != _ANNOUNCED:
                yield path.stem, Record(**json.loads(path.read_text()))

    @contextmanager
    def creating(self) -> Iterator[int]:
        """Make a device in one transaction: the caller makes it, and remembers it.

        Yields:
            A number that no device has. After an error it is deleted.
        """
        with self._lock:
            number = self._next
            self._next += 1
            with self._transaction(number):
                try:
                    yield number
                except BaseException:
                    self._pool.delete(number)
                    raise

    @contextmanager
    def deleting(self, key: str) -> Iterator[None]:
        """Forget a device in one transaction: the caller deletes it from the pool."""
        with self._lock:
            record = self.get(key)
            assert record is not None
            with self._transaction(record.number):
                yield
                (self._folder / f"{key}.json").unlink()

    @contextmanager
    def _transaction(self, number: int) -> Iterator[None]:
        current = self._pool.status().transaction
        self._write(_ANNOUNCED, {"transaction": current + 1, "device": number})
        try:
            yield
        except BaseException:
            # Withdrawn: what was not done must not be finished at the next start.
            self._write(_ANNOUNCED, {"transaction": current, "device": number})
            raise
        self._pool.set_transaction(current, current + 1)

    def _repair(self) -> None:
        """Undo, or finish, what a crash interrupted."""
        current = self._pool.status().transaction
        try:
            announced = json.loads((self._folder / _ANNOUNCED).read_text())
        except FileNotFoundError:
            if current != 0:
                raise FailedPrecondition(
                    f"thin pool {self._pool.name} belongs to somebody else: it has had {current}"
                    f" transactions, and {self._folder} knows of none"
                ) from None
            return
        transaction, number = announced["transaction"], announced["device"]
        if transaction == current:
            return
        if transaction != current + 1:
            raise FailedPrecondition(
                f"thin pool {self._pool.name} is at transaction {current}, {self._folder} at"
                f" {transaction}: one of the two was replaced"
            )
        log.warning("a change of thin device %d was interrupted; it is deleted", number)
        for key, record in self:
            if record.number == number:
                self._pool.deactivate(key)
                (self._folder / f"{key}.json").unlink()
        if not self._pool.delete(number):
            raise InUse(
                f"thin device {number}, whose making or removal was interrupted, is in use still:"
                " dmsetup ls --tree shows by what; try again when that has ended"
            )
        self._pool.set_transaction(current, transaction)

    def _write(self, name: str, value: dict[str, object]) -> None:
        temporary = self._folder / f"{name}.tmp"
        with temporary.open("w") as file:
            json.dump(value, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(self._folder / name)
        descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
