"""What the engine remembers of layers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec

from drivetrain_engine.state import State


class LayerRecord(msgspec.Struct):
    """One layer of one driver.

    Attributes:
        driver: its name.
        key: the driver's key for it.
        parents: keys, nearest first.
        committed: it never changes any more.
        container: whose writable layer it is; empty for layers of images.
        options: as given (``--storage-opt``).
    """

    driver: str
    key: str
    parents: tuple[str, ...]
    committed: bool = False
    container: str = ""
    options: dict[str, str] = {}


class Migration(msgspec.Struct):
    """A container's layer on its way from one driver to another.

    Attributes:
        container: whose.
        source, target: names of the drivers.
        phase: ``creating``: the target's layer exists in part, or not; ``copying``: it exists, and
            has some of what it should; ``removing``: it is the container's layer now, and the
            source's is to go; ``done``: only the start is left.
        restart: the container ran, and is to be started when this ends.
    """

    container: str
    source: str
    target: str
    phase: Literal["creating", "copying", "removing", "done"] = "creating"
    restart: bool = False


class MigrationRecords:
    """The table of migrations under way, or interrupted."""

    def __init__(self, state: State) -> None:
        self._table = state.table("migrations")

    def get(self, container_id: str) -> Migration | None:
        """Return a container's migration, or ``None``."""
        document = self._table.get(container_id)
        return None if document is None else msgspec.convert(document, Migration)

    def put(self, migration: Migration) -> None:
        """Write a migration."""
        self._table.put(migration.container, msgspec.to_builtins(migration))

    def delete(self, container_id: str) -> None:
        """Forget a migration."""
        self._table.delete(container_id)

    def __iter__(self) -> Iterator[Migration]:
        for document in self._table.items().values():
            yield msgspec.convert(document, Migration)


class LayerRecords:
    """The table of layers."""

    def __init__(self, state: State) -> None:
        self._table = state.table("layers")
        self.forget()

    @staticmethod
    def _id(driver: str, key: str) -> str:
        return f"{driver}/{key}"

    def get(self, driver: str, key: str) -> LayerRecord | None:
        """Return a layer, or ``None``."""
        document = self._table.get(self._id(driver, key))
        return None if document is None else msgspec.convert(document, LayerRecord)

    def forget(self) -> None:
        """Read which driver holds which container, after a transaction that came to nothing."""
        self._drivers = {record.container: record.driver for record in self if record.container}

    def of_container(self, container_id: str) -> LayerRecord | None:
        """Return the writable layer of a container, or ``None``."""
        driver = self._drivers.get(container_id)
        record = None if driver is None else self.get(driver, container_id)
        return record if record is not None and record.container else None

    def put(self, record: LayerRecord) -> None:
        """Write a layer."""
        self._table.put(self._id(record.driver, record.key), msgspec.to_builtins(record))
        if record.container:
            self._drivers[record.container] = record.driver

    def delete(self, record: LayerRecord) -> None:
        """Forget a layer."""
        self._table.delete(self._id(record.driver, record.key))
        if record.container and self._drivers.get(record.container) == record.driver:
            del self._drivers[record.container]

    def __iter__(self) -> Iterator[LayerRecord]:
        for document in self._table.items().values():
            yield msgspec.convert(document, LayerRecord)
