"""The records of all volumes, and how they are shown."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drivetrain.errors import EngineError, NotFound
from drivetrain.options import Options, parse_options
from drivetrain.volume import VolumeHooks, VolumeInfo
from drivetrain_engine.content.filters import boolean_filter, label_filter
from drivetrain_engine.volumes.drivers import Drivers
from drivetrain_engine.volumes.model import Record, from_document, shown_options, to_document
from drivetrain_engine.volumes.quiet import Quiet
from drivetrain_engine.volumes.usage import directory_size

if TYPE_CHECKING:
    from drivetrain.calling import Driver
    from drivetrain_engine.state import Table

Json = dict[str, Any]
LIST_FILTERS = ("dangling", "driver", "label", "label!", "name")


class Catalog:
    """What volumes there are: those of the records, and those only a backend knows.

    Args:
        table: keeps the records.
        drivers: the drivers in use.
    """

    def __init__(self, table: Table, drivers: Drivers) -> None:
        self._table = table
        self._lock = threading.RLock()
        self.drivers = drivers
        #: which volumes are being copied
        self.quiet = Quiet()
        #: where mounted volumes are
        self.paths: dict[str, Path] = {}
        self._records = _records_of(table)

    def known(self, name: str) -> Record | None:
        """Return the record of a volume, if there is one."""
        return self._records.get(name)

    def put(self, record: Record) -> None:
        """Add a record."""
        with self._lock:
            self._records[record.name] = record
            self.save(record)

    def save(self, record: Record) -> None:
        """Keep what changed of a record."""
        self._table.put(record.name, to_document(record))

    def get(self, name: str) -> Record:
        """Return the record of a volume.

        Raises:
            NotFound: no such volume.
        """
        record = self._records.get(name)
        if record is None:
            record = self.adopt(name)
        if record is None:
            raise NotFound(f"get {name}: no such volume")
        return record

    def adopt(self, name: str) -> Record | None:
        """Return a record for a volume that only its backend knows."""
        backends, _ = self.drivers.listed(self.drivers.answering())
        for driver, volumes in backends.items():
            for info in volumes:
                if info.name == name and not self._renamed(name, driver):
                    with self._lock:
                        return self._records.setdefault(name, _record_of(driver, info))
        return None

    def options(self, record: Record) -> tuple[Driver[VolumeHooks], Options]:
        """Return the driver of a volume and its options, parsed."""
        driver = self.drivers.get(record.driver)
        schema = driver.call.volume_options()
        return driver, parse_options(f"volume driver {record.driver}", schema, record.options)

    def forget(self, name: str) -> None:
        """Drop a record."""
        with self._lock:
            self._records.pop(name, None)
            self.paths.pop(name, None)
            self._table.delete(name)

    def rename(self, record: Record, name: str) -> None:
        """Give a record another name; the driver keeps the one it knows."""
        with self._lock:
            before, place = record.name, record.at
            record.name, record.place = name, "" if place == name else place
            self._records[name] = record
            # with both of them for a moment, since a crash must not lose the volume
            self.save(record)
            self.forget(before)

    def _renamed(self, place: str, driver: str) -> bool:
        """Tell whether a driver knows a volume of ours by a name that is not ours."""
        return any(
            record.at == place and record.name != place and record.driver == driver
            for record in self.everything()
        )

    def free_place(self, name: str, driver: str) -> str:
        """Return by which name a driver is to know a new volume; empty: by its own."""
        return f"{name}-{os.urandom(4).hex()}" if self._renamed(name, driver) else ""

    def everything(self) -> list[Record]:
        """Return all records, those of volumes half made too."""
        return [*self._records.values()]

    def all(self) -> list[Record]:
        """Return the records of all volumes that are made."""
        return [record for record in self.everything() if record.ready]

    def shown_options(self, driver: str, options: Mapping[str, str]) -> dict[str, str]:
        """Return options as anybody may see them; all masked when their driver is not there."""
        try:
            return shown_options(self.drivers.get(driver).call.volume_options(), options)
        except EngineError:
            return dict.fromkeys(options, "***")

    def shown(self, record: Record) -> Json:
        """Return ``Volume`` of the API."""
        driver, options = self.options(record)
        path = self.paths.get(record.name) or driver.call.volume_path(record.at, options)
        shown = shown_options(driver.call.volume_options(), record.options)
        result: Json = {
            "Name": record.name,
            "Driver": record.driver,
            "Mountpoint": str(path or ""),
            "CreatedAt": record.created,
            "Labels": dict(record.labels) or None,
            "Scope": driver.call.volume_traits().scope,
            "Options": shown or None,
        }
        if record.origin:
            result["Status"] = {"origin": record.origin}
        return result

    def listed(self, checked: Mapping[str, list[str]]) -> tuple[list[Json], list[str]]:
        """Return the API's list by name, and warnings; see ``Volumes.list``."""
        dangling = boolean_filter(checked, "dangling")
        has_labels = label_filter(checked)
        names, drivers = checked.get("name") or [], checked.get("driver") or []
        in_use = {record.driver for record in self.all()}
        backends, warnings = self.drivers.listed(in_use | {*self.drivers.installed()}, in_use)
        known = {record.name: record for record in self.all()}
        for driver, volumes in backends.items():
            for info in volumes:
                if self._renamed(info.name, driver):
                    continue
                known.setdefault(info.name, _record_of(driver, info))
        result = [
            self.shown_anyway(record)
            for _, record in sorted(known.items())
            if (dangling is None or dangling == (not record.users))
            and has_labels(record.labels)
            and (not names or any(part in record.name for part in names))
            and (not drivers or record.driver in drivers)
        ]
        return result, warnings

    def shown_anyway(self, record: Record) -> Json:
        """Show what is known even when the driver does not load or answer."""
        try:
            return self.shown(record)
        except EngineError:
            return {
                "Name": record.name,
                "Driver": record.driver,
                "Mountpoint": "",
                "CreatedAt": record.created,
                "Labels": dict(record.labels) or None,
                "Scope": "local",
                "Options": None,
            }

    def size(self, record: Record) -> int:
        """Return the bytes that a volume takes up, -1 when that is not known."""
        driver, options = self.options(record)
        usage = driver.call.volume_usage(record.at, options)
        if usage is not None:
            return usage.size
        path = driver.call.volume_path(record.at, options)
        traits = driver.call.volume_traits()
        if traits.scope != "local" or traits.own_state or path is None or record.options:
            return -1
        return directory_size(path)

    def usage(self) -> list[Json]:
        """Return all volumes with ``UsageData``, for ``system df``."""
        result = []
        for record in self.all():
            shown = self.shown_anyway(record)
            try:
                size = self.size(record)
            except EngineError:
                size = -1
            shown["UsageData"] = {"Size": size, "RefCount": len(record.users)}
            result.append(shown)
        return result


def _record_of(driver: str, info: VolumeInfo) -> Record:
    return Record(info.name, driver, {}, {}, info.created, ready=True)


def _records_of(table: Table) -> dict[str, Record]:
    """Read the records, and end renames that a crash broke off."""
    records = {name: from_document(document) for name, document in table.items().items()}
    places = {(record.driver, record.place) for record in records.values() if record.place}
    for name, record in [*records.items()]:
        if not record.place and (record.driver, name) in places:
            del records[name]
            table.delete(name)
    return records
