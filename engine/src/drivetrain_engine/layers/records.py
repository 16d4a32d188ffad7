"""What the engine remembers of layers."""

from __future__ import annotations

from collections.abc import Iterator

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


class LayerRecords:
    """The table of layers."""

    def __init__(self, state: State) -> None:
        self._table = state.table("layers")

    @staticmethod
    def _id(driver: str, key: str) -> str:
        return f"{driver}/{key}"

    def get(self, driver: str, key: str) -> LayerRecord | None:
        """Return a layer, or ``None``."""
        document = self._table.get(self._id(driver, key))
        return None if document is None else msgspec.convert(document, LayerRecord)

    def put(self, record: LayerRecord) -> None:
        """Write a layer."""
        self._table.put(self._id(record.driver, record.key), msgspec.to_builtins(record))

    def delete(self, record: LayerRecord) -> None:
        """Forget a layer."""
        self._table.delete(self._id(record.driver, record.key))

    def __iter__(self) -> Iterator[LayerRecord]:
        for document in self._table.items().values():
            yield msgspec.convert(document, LayerRecord)
