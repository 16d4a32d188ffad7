"""The volumes of this host: names, references, mounting, pruning. Drivers provide the trees."""

from __future__ import annotations

import contextlib
import datetime
import os
import threading
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drivetrain.errors import (
    AlreadyExists,
    EngineError,
    Internal,
    InUse,
    NotFound,
)
from drivetrain.options import Options, parse_options
from drivetrain.volume import VolumeHooks, VolumeInfo

from drivetrain_engine.content.filters import (
    Filters,
    boolean_filter,
    check_filters,
    label_filter,
)
from drivetrain_engine.volumes.copyup import copy_up
from drivetrain_engine.volumes.drivers import Drivers
from drivetrain_engine.volumes.model import (
    ANONYMOUS_LABEL,
    Record,
    difference,
    from_document,
    shown_options,
    to_document,
)
from drivetrain_engine.volumes.spec import check_name
from drivetrain_engine.volumes.usage import directory_size

if TYPE_CHECKING:
    from drivetrain.calling import Driver
    from drivetrain.registry import Registry

    from drivetrain_engine.state import Events, State

Json = dict[str, Any]
# inside the class, ``list`` is a method
Strings = list[str]
Documents = list[Json]

DEFAULT_DRIVER = "local"


class Volumes:
    """The volume service. Thread-safe; drivers are called outside its lock, one volume at a time.

    Args:
        root: has a directory per driver.
        state: keeps the records.
        registry: where drivers come from.
        events: told about every change.
    """

    def __init__(self, *, root: Path, state: State, registry: Registry, events: Events) -> None:
        root.mkdir(mode=0o711, parents=True, exist_ok=True)
        self._table = state.table("volumes")
        self._events = events
        self._drivers = Drivers(root, registry)
        self._lock = threading.RLock()
        self._busy: dict[str, tuple[threading.Lock, Counter[str]]] = {}
        self._paths: dict[str, Path] = {}
        self._records = {
            name: from_document(document) for name, document in self._table.items().items()
        }

    @contextlib.contextmanager
    def _alone(self, name: str) -> Iterator[None]:
        """Hold the volume: the contract promises drivers one call at a time for each."""
        with self._lock:
            lock, waiting = self._busy.setdefault(name, (threading.Lock(), Counter()))
            waiting[name] += 1
        try:
            with lock:
                yield
        finally:
            with self._lock:
                waiting[name] -= 1
                if not waiting[name]:
                    del self._busy[name]

    def _save(self, record: Record) -> None:
        self._table.put(record.name, to_document(record))

    def _record(self, name: str) -> Record:
        record = self._records.get(name)
        if record is None:
            record = self._adopt(name)
        if record is None:
            raise NotFound(f"get {name}: no such volume")
        return record

    def _adopt(self, name: str) -> Record | None:
        """Return a record for a volume that only its backend knows."""
        backends, _ = self._drivers.listed(self._drivers.opened())
        for driver, volumes in backends.items():
            for info in volumes:
                if info.name == name:
                    with self._lock:
                        return self._records.setdefault(name, _record_of(driver, info))
        return None

    def _options(self, record: Record) -> tuple[Driver[VolumeHooks], Options]:
        driver = self._drivers.get(record.driver)
        schema = driver.call.volume_options()
        return driver, parse_options(f"volume driver {record.driver}", schema, record.options)

    # making and removing

    def create(
        self,
        name: str = "",
        driver: str = "",
        options: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> Json:
        """Make a volume; the one there is, when it is what was asked for.

        Args:
            name: empty: a new name is chosen and the volume is anonymous.
            driver: empty: ``local``, or whichever an existing volume has.
            options: of the driver; none given for an existing volume means: as it is.
            labels: for a new volume.

        Returns:
            ``Volume`` of the API.

        Raises:
            AlreadyExists: the volume has another driver or other options; the difference is named.
            InvalidArgument: name or options are not accepted.
        """
        labels = dict(labels or {})
        if name:
            check_name(name)
        else:
            name = os.urandom(32).hex()
            labels[ANONYMOUS_LABEL] = ""
        options = dict(options or {})
        with self._alone(name):
            known = self._records.get(name) or self._adopt(name)
            if known is not None and known.ready:
                self._compare(known, driver, options)
                return self._shown(known)
            record = Record(name, driver or DEFAULT_DRIVER, options, labels, _now())
            implementation, parsed = self._options(record)
            with self._lock:
                self._records[name] = record
                self._save(record)
            try:
                implementation.call.volume_create(name, parsed)
            except BaseException:
                self._forget(name)
                raise
            record.ready = True
            self._save(record)
            self._emit("create", record)
            return self._shown(record)

    def _compare(self, record: Record, driver: str, options: Mapping[str, str]) -> None:
        if driver and driver != record.driver:
            raise AlreadyExists(
                f"A volume named {record.name!r} already exists with the {record.driver!r} "
                "driver. Choose a different volume name."
            )
        if not options:
            return
        schema = self._drivers.get(record.driver).call.volume_options()
        if words := difference(schema, record.options, options):
            raise AlreadyExists(
                f"volume {record.name!r} already exists with other options: {words}. "
                "Remove it first or choose a different volume name."
            )

    def _forget(self, name: str) -> None:
        with self._lock:
            self._records.pop(name, None)
            self._paths.pop(name, None)
            self._table.delete(name)

    def remove(self, name: str, force: bool = False) -> None:
        """Remove a volume with its data.

        Args:
            name: of the volume.
            force: a volume that does not exist is no error.

        Raises:
            NotFound: no such volume.
            InUse: by which containers.
        """
        with self._alone(name):
            try:
                record = self._record(name)
            except NotFound:
                if force:
                    return
                raise
            if record.users or record.mounted:
                users = ", ".join(dict.fromkeys([*record.users, *record.mounted]))
                raise InUse(f"remove {name}: volume is in use - [{users}]")
            driver, options = self._options(record)
            driver.call.volume_unmount(name, options)
            driver.call.volume_remove(name, options)
            self._forget(name)
            self._emit("destroy", record)

    def prune(self, filters: Filters | None = None) -> Json:
        """Remove local volumes that no container refers to.

        Args:
            filters: label, label!, and all: those with a name too, not only anonymous ones.

        Returns:
            ``VolumesDeleted`` and ``SpaceReclaimed`` (bytes).
        """
        checked = check_filters(filters or {}, ("all", "label", "label!"))
        named_too = boolean_filter(checked, "all") is True
        has_labels = label_filter(checked)
        deleted, freed = [], 0
        for record in self._all():
            if record.users or not (named_too or record.anonymous) or not has_labels(record.labels):
                continue
            try:
                if self._drivers.get(record.driver).call.volume_traits().scope != "local":
                    continue
                size = max(self._size(record), 0)
                self.remove(record.name)
            except (InUse, NotFound):
                continue  # somebody was quicker
            deleted.append(record.name)
            freed += size
        self._events.emit("volume", "prune", "", {"reclaimed": str(freed)})
        return {"VolumesDeleted": deleted, "SpaceReclaimed": freed}

    # what there is

    def _all(self) -> list[Record]:
        with self._lock:
            return [record for record in self._records.values() if record.ready]

    def inspect(self, name: str) -> Json:
        """Return ``Volume`` of the API.

        Raises:
            NotFound: no such volume.
        """
        return self._shown(self._record(name))

    def _shown(self, record: Record) -> Json:
        driver, options = self._options(record)
        path = self._paths.get(record.name) or driver.call.volume_path(record.name, options)
        shown = shown_options(driver.call.volume_options(), record.options)
        return {
            "Name": record.name,
            "Driver": record.driver,
            "Mountpoint": str(path or ""),
            "CreatedAt": record.created,
            "Labels": dict(record.labels) or None,
            "Scope": driver.call.volume_traits().scope,
            "Options": shown or None,
        }

    def list(self, filters: Filters | None = None) -> tuple[Documents, Strings]:
        """Return the API's list of volumes by name, and warnings about dead drivers.

        Args:
            filters: dangling, driver, label, name.
        """
        checked = check_filters(filters or {}, ("dangling", "driver", "label", "label!", "name"))
        dangling = boolean_filter(checked, "dangling")
        has_labels = label_filter(checked)
        names, drivers = checked.get("name") or [], checked.get("driver") or []
        in_use = {record.driver for record in self._all()}
        backends, warnings = self._drivers.listed(sorted(in_use | {*self._drivers.opened()}))
        known = {record.name: record for record in self._all()}
        for driver, volumes in backends.items():
            for info in volumes:
                known.setdefault(info.name, _record_of(driver, info))
        result = [
            self._shown_anyway(record)
            for _, record in sorted(known.items())
            if (dangling is None or dangling == (not record.users))
            and has_labels(record.labels)
            and (not names or any(part in record.name for part in names))
            and (not drivers or record.driver in drivers)
        ]
        return result, warnings

    def _shown_anyway(self, record: Record) -> Json:
        """Show what is known even when the driver does not load or answer."""
        try:
            return self._shown(record)
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

    def is_anonymous(self, name: str) -> bool:
        """Tell whether the volume was made without a name; false for unknown ones."""
        record = self._records.get(name)
        return record is not None and record.anonymous

    def _size(self, record: Record) -> int:
        """Return the bytes that a volume takes up, -1 when that is not known."""
        driver, options = self._options(record)
        usage = driver.call.volume_usage(record.name, options)
        if usage is not None:
            return usage.size
        path = driver.call.volume_path(record.name, options)
        if driver.call.volume_traits().scope != "local" or path is None or record.options:
            return -1
        return directory_size(path)

    def usage(self) -> Documents:
        """Return all volumes with ``UsageData``, for ``system df``."""
        result = []
        for record in self._all():
            shown = self._shown_anyway(record)
            try:
                size = self._size(record)
            except EngineError:
                size = -1
            shown["UsageData"] = {"Size": size, "RefCount": len(record.users)}
            result.append(shown)
        return result

    def in_use(self) -> dict[str, int]:
        """Return the number of volumes per driver."""
        return dict(Counter(record.driver for record in self._all()))

    # references

    def acquire(self, name: str, user: str) -> None:
        """Remember that a container refers to the volume, which then cannot be removed.

        Raises:
            NotFound: no such volume.
        """
        with self._alone(name):
            record = self._record(name)
            if user not in record.users:
                record.users.append(user)
                self._save(record)

    def release(self, name: str, user: str) -> None:
        """Forget that a container refers to the volume; unmounted first when it still is."""
        with contextlib.suppress(NotFound):
            self.unmount(name, user)
        with self._alone(name):
            record = self._records.get(name)
            if record is not None and user in record.users:
                record.users.remove(user)
                self._save(record)

    def users(self, name: str) -> Strings:
        """Return the ids of the containers that refer to the volume."""
        with self._lock:
            return list_of(self._record(name).users)

    def mount(self, name: str, user: str) -> Path:
        """Return the directory of the volume, provided for the first user.

        Raises:
            NotFound: no such volume.
            Unavailable: its backend does not answer.
        """
        with self._alone(name):
            record = self._record(name)
            before = list_of(record.mounted)
            if user not in record.mounted:
                # the record first: a crash after it costs one unmount too many, which is harmless
                record.mounted.append(user)
                self._save(record)
            try:
                path = self._paths.get(name) or self._provide(record)
            except BaseException:
                record.mounted = before
                self._save(record)
                raise
            self._events.emit("volume", "mount", name, {"driver": record.driver, "container": user})
            return path

    def _provide(self, record: Record) -> Path:
        driver, options = self._options(record)
        path = driver.call.volume_mount(record.name, options)
        if not isinstance(path, Path) or not path.is_absolute():
            raise Internal(
                f"volume driver {record.driver} returned {path!r} for volume {record.name}, "
                "where an absolute path is needed"
            )
        self._paths[record.name] = path
        return path

    def unmount(self, name: str, user: str) -> None:
        """Take note that a container no longer needs the directory; unmounted after the last.

        An extra call is harmless.

        Raises:
            NotFound: no such volume.
        """
        with self._alone(name):
            record = self._record(name)
            if user not in record.mounted:
                return
            if len(record.mounted) == 1:
                driver, options = self._options(record)
                driver.call.volume_unmount(name, options)
                self._paths.pop(name, None)
            record.mounted.remove(user)
            self._save(record)
            attributes = {"driver": record.driver, "container": user}
            self._events.emit("volume", "unmount", name, attributes)

    def copy_up(self, path: Path, source: Path) -> bool:
        """Copy image content into an empty volume; see :func:`copyup.copy_up`."""
        return copy_up(path, source)

    def reconcile(self, users: Collection[str], running: Collection[str]) -> Strings:
        """Bring the records in line with the containers there are, after a start.

        Args:
            users: all containers.
            running: those that run, and so have their volumes mounted.

        Returns:
            What went wrong, in words; the rest was done all the same.
        """
        faults = []
        for record in [*self._records.values()]:
            try:
                self._reconcile_one(record, users, running)
            except EngineError as error:
                faults.append(f"volume {record.name}: {error}")
        return faults

    def _reconcile_one(
        self, record: Record, users: Collection[str], running: Collection[str]
    ) -> None:
        if not record.ready:
            # a crash in the middle of its creation: nobody was told about it
            with self._alone(record.name):
                driver, options = self._options(record)
                driver.call.volume_remove(record.name, options)
                self._forget(record.name)
            return
        for user in [*record.mounted]:
            if user not in running:
                self.unmount(record.name, user)
        for user in [*record.users]:
            if user not in users:
                self.release(record.name, user)

    def close(self) -> None:
        """Close the drivers. Mounted volumes stay mounted."""
        self._drivers.close()

    def _emit(self, action: str, record: Record) -> None:
        self._events.emit("volume", action, record.name, {"driver": record.driver})


def list_of(items: list[str]) -> list[str]:
    """Return a copy."""
    return [*items]


def _record_of(driver: str, info: VolumeInfo) -> Record:
    return Record(info.name, driver, {}, {}, info.created, ready=True)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
