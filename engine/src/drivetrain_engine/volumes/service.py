"""The volumes of this host: names, references, mounting, pruning. Drivers provide the trees."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drivetrain.errors import (
    AlreadyExists,
    EngineError,
    Internal,
    InUse,
    InvalidArgument,
    NotFound,
)
from drivetrain_engine.content.filters import (
    Filters,
    boolean_filter,
    check_filters,
    label_filter,
)
from drivetrain_engine.volumes.catalog import LIST_FILTERS, Catalog
from drivetrain_engine.volumes.contents import Contents
from drivetrain_engine.volumes.copies import check_complete
from drivetrain_engine.volumes.copyup import copy_up
from drivetrain_engine.volumes.drivers import Drivers
from drivetrain_engine.volumes.locks import NamedLocks
from drivetrain_engine.volumes.model import (
    ANONYMOUS_LABEL,
    Record,
    difference,
    now,
)
from drivetrain_engine.volumes.quiet import Paused
from drivetrain_engine.volumes.spec import check_name

if TYPE_CHECKING:
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
        self._events = events
        self._catalog = Catalog(state.table("volumes"), Drivers(root, registry))
        # the contract promises drivers one call at a time for each volume
        self._locks = NamedLocks()
        self._filling = NamedLocks()
        #: snapshots, clones, restores and renames
        self.contents = Contents(self._catalog, self._locks, self._emit)

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
        for key, value in [*options.items(), *labels.items()]:
            if not isinstance(key, str) or not isinstance(value, str):
                raise InvalidArgument(f"volume {name}: {key!r} has to be text, not {value!r}")
        with self._locks.holding(name):
            known = self._catalog.known(name) or self._catalog.adopt(name)
            if known is not None and known.ready:
                self._compare(known, driver, options)
                return self._catalog.shown(known)
            driver = driver or DEFAULT_DRIVER
            place = self._catalog.free_place(name, driver)
            record = Record(name, driver, options, labels, now(), place=place)
            implementation, parsed = self._catalog.options(record)
            self._catalog.put(record)
            try:
                implementation.call.volume_create(record.at, parsed)
            except BaseException:
                self._catalog.forget(name)
                raise
            record.ready = True
            self._catalog.save(record)
            self._emit("create", record)
            return self._catalog.shown(record)

    def _compare(self, record: Record, driver: str, options: Mapping[str, str]) -> None:
        if driver and driver != record.driver:
            raise AlreadyExists(
                f'A volume named "{record.name}" already exists with the "{record.driver}" '
                "driver. Choose a different volume name."
            )
        if not options:
            return
        schema = self._catalog.drivers.get(record.driver).call.volume_options()
        if words := difference(schema, record.options, options):
            raise AlreadyExists(
                f"volume {record.name} already exists with other options: {words}. "
                "Remove it first or choose a different volume name."
            )

    def remove(self, name: str, force: bool = False) -> None:
        """Remove a volume with its data.

        Args:
            name: of the volume.
            force: a volume that does not exist is no error.

        Raises:
            NotFound: no such volume.
            InUse: by which containers.
        """
        with self._locks.holding(name):
            try:
                record = self._catalog.get(name)
            except NotFound:
                if force:
                    return
                raise
            if record.users or record.mounted:
                users = ", ".join(dict.fromkeys([*record.users, *record.mounted]))
                raise InUse(f"remove {name}: volume is in use - [{users}]")
            driver, options = self._catalog.options(record)
            driver.call.volume_unmount(record.at, options)
            driver.call.volume_remove(record.at, options)
            self._catalog.forget(name)
            self._emit("destroy", record)

    def is_snapshot(self, name: str) -> bool:
        """Tell whether the volume is a snapshot, which containers cannot change."""
        return self._catalog.get(name).snapshot

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
        for record in self._catalog.all():
            if record.users or not (named_too or record.anonymous) or not has_labels(record.labels):
                continue
            try:
                if self._catalog.drivers.get(record.driver).call.volume_traits().scope != "local":
                    continue
                size = max(self._catalog.size(record), 0)
                self.remove(record.name)
            except (InUse, NotFound):
                continue  # somebody was quicker
            deleted.append(record.name)
            freed += size
        self._events.emit("volume", "prune", "", {"reclaimed": str(freed)})
        return {"VolumesDeleted": deleted, "SpaceReclaimed": freed}

    # what there is

    def inspect(self, name: str) -> Json:
        """Return ``Volume`` of the API.

        Raises:
            NotFound: no such volume.
        """
        return self._catalog.shown(self._catalog.get(name))

    def list(self, filters: Filters | None = None) -> tuple[Documents, Strings]:
        """Return the API's list of volumes by name, and warnings about dead drivers.

        Args:
            filters: dangling, driver, label, name.
        """
        return self._catalog.listed(check_filters(filters or {}, LIST_FILTERS))

    def usage(self) -> Documents:
        """Return all volumes with ``UsageData``, for ``system df``."""
        return self._catalog.usage()

    def is_anonymous(self, name: str) -> bool:
        """Tell whether the volume was made without a name; false for unknown ones."""
        record = self._catalog.known(name)
        return record is not None and record.anonymous

    def in_use(self) -> dict[str, int]:
        """Return the number of volumes per driver."""
        return dict(Counter(record.driver for record in self._catalog.all()))

    def shown_options(self, driver: str, options: Mapping[str, str]) -> dict[str, str]:
        """Return options of a driver as anybody may see them, without secrets."""
        return self._catalog.shown_options(driver, options)

    # references

    def acquire(self, name: str, user: str) -> None:
        """Remember that a container refers to the volume, which then cannot be removed.

        Raises:
            NotFound: no such volume.
        """
        with self._locks.holding(name):
            record = self._catalog.get(name)
            if user not in record.users:
                record.users.append(user)
                self._catalog.save(record)

    def release(self, name: str, user: str) -> None:
        """Forget that a container refers to the volume; unmounted first when it still is."""
        with contextlib.suppress(NotFound):
            self.unmount(name, user)
        with self._locks.holding(name):
            record = self._catalog.known(name)
            if record is not None and user in record.users:
                record.users.remove(user)
                self._catalog.save(record)

    def users(self, name: str) -> Strings:
        """Return the ids of the containers that refer to the volume."""
        return [*self._catalog.get(name).users]

    @contextlib.contextmanager
    def mounted_quiet(self, name: str, user: str, paused: Paused) -> Iterator[Path]:
        """Have a volume mounted that no container changes meanwhile.

        Raises:
            InUse: a container that is not paused has it mounted.
        """
        with contextlib.ExitStack() as stack:
            with self._locks.holding(name):
                record = self._catalog.get(name)
                stack.enter_context(self._catalog.quiet.keeping(record, paused))
                stack.callback(self.unmount, name, user)
                path = self._mount(record, user)
            yield path

    def check_going_on(self, user: str) -> None:
        """Refuse to let a paused container go on while files that it may write are copied.

        Raises:
            InUse: they are.
        """
        self._catalog.quiet.check_users(self._catalog.all(), user)

    def mount(self, name: str, user: str) -> Path:
        """Return the directory of the volume, provided for the first user.

        Raises:
            NotFound: no such volume.
            Unavailable: its backend does not answer.
            InUse: it is being exported or imported.
        """
        with self._locks.holding(name):
            self._catalog.quiet.check(name)
            return self._mount(self._catalog.get(name), user)

    def _mount(self, record: Record, user: str) -> Path:
        check_complete(record)
        before = [*record.mounted]
        if user not in record.mounted:
            # the record first: a crash after it costs one unmount too many, which is harmless
            record.mounted.append(user)
            self._catalog.save(record)
        try:
            path = self._catalog.paths.get(record.name) or self._provide(record)
        except BaseException:
            record.mounted = before
            self._catalog.save(record)
            raise
        attributes = {"driver": record.driver, "container": user}
        self._events.emit("volume", "mount", record.name, attributes)
        return path

    def _provide(self, record: Record) -> Path:
        driver, options = self._catalog.options(record)
        path = driver.call.volume_mount(record.at, options)
        if not isinstance(path, Path) or not path.is_absolute():
            raise Internal(
                f"volume driver {record.driver} returned {path!r} for volume {record.name}, "
                "where an absolute path is needed"
            )
        self._catalog.paths[record.name] = path
        return path

    def unmount(self, name: str, user: str) -> None:
        """Take note that a container no longer needs the directory; unmounted after the last.

        An extra call is harmless.

        Raises:
            NotFound: no such volume.
        """
        with self._locks.holding(name):
            record = self._catalog.get(name)
            if user not in record.mounted:
                return
            if len(record.mounted) == 1:
                driver, options = self._catalog.options(record)
                driver.call.volume_unmount(record.at, options)
                self._catalog.paths.pop(name, None)
            record.mounted.remove(user)
            self._catalog.save(record)
            attributes = {"driver": record.driver, "container": user}
            self._events.emit("volume", "unmount", name, attributes)

    def copy_up(self, path: Path, source: Path) -> bool:
        """Copy image content into an empty volume; see :func:`copyup.copy_up`.

        A second container that starts at the same time waits, and finds the volume filled.
        """
        with self._filling.holding(str(path)):
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
        for record in self._catalog.everything():
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
            with self._locks.holding(record.name):
                driver, options = self._catalog.options(record)
                driver.call.volume_remove(record.at, options)
                self._catalog.forget(record.name)
            return
        for user in [*record.mounted]:
            if user not in running:
                self.unmount(record.name, user)
        for user in [*record.users]:
            if user not in users:
                self.release(record.name, user)

    def close(self) -> None:
        """Close the drivers. Mounted volumes stay mounted."""
        self._catalog.drivers.close()

    def _emit(self, action: str, record: Record) -> None:
        self._events.emit("volume", action, record.name, {"driver": record.driver})
