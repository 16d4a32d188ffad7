"""What is done with a volume's content as a whole: snapshot, clone, restore, rename."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from drivetrain.errors import AlreadyExists, InUse, InvalidArgument, NotSupported
from drivetrain_engine.volumes.catalog import Catalog
from drivetrain_engine.volumes.copies import Copy, check_complete, replace_content
from drivetrain_engine.volumes.locks import NamedLocks
from drivetrain_engine.volumes.model import Record, now
from drivetrain_engine.volumes.quiet import Paused
from drivetrain_engine.volumes.spec import check_name

Json = dict[str, Any]
Kind = Literal["clone", "snapshot"]
#: Where copies go of volumes that the same options would only show again, such as NFS shares.
PLAIN_DRIVER = "local"


@dataclass(frozen=True, slots=True)
class CopyRequest:
    """What is to become of a copy.

    Attributes:
        labels: of the new volume.
        driver: of the new volume; empty: the source's, or ``local`` where that cannot copy.
        options: of the new volume, when a driver is given.
        paused: returns the containers that are paused, and stay so while the copy is made.
    """

    labels: Mapping[str, str] = field(default_factory=dict)
    driver: str = ""
    options: Mapping[str, str] = field(default_factory=dict)
    paused: Paused = tuple


_AS_IT_IS = CopyRequest()


class Contents:
    """Operations on whole volumes. The locks of the volumes concerned are held meanwhile.

    Args:
        catalog: the volumes.
        locks: by name of volume.
        emit: told of every change: an action and the volume.
    """

    def __init__(
        self, catalog: Catalog, locks: NamedLocks, emit: Callable[[str, Record], None]
    ) -> None:
        self._catalog = catalog
        self._locks = locks
        self._emit = emit

    @contextlib.contextmanager
    def _holding(self, *names: str) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for name in sorted(set(names)):
                stack.enter_context(self._locks.holding(name))
            yield

    def copy(
        self, kind: Kind, source: str, name: str, request: CopyRequest = _AS_IT_IS
    ) -> Json:
        """Make a snapshot or a clone; the same snapshot again is fine.

        Raises:
            NotFound: there is no such source.
            AlreadyExists: the name is taken by something else.
            InUse: files have to be copied, and a container that is not paused may write them.
        """
        check_name(name)
        if source == name:
            raise InvalidArgument(f"volume {name} cannot be a {kind} of itself")
        origin = f"{kind} of {source}"
        with self._holding(source, name):
            known = self._catalog.known(name) or self._catalog.adopt(name)
            if known is not None and kind == "snapshot" and known.origin == origin:
                return self._catalog.shown(known)
            if known is not None:
                raise AlreadyExists(f"volume {name} already exists; choose a different name")
            before = self._catalog.get(source)
            check_complete(before)
            record = self._copied(kind, before, name, request)
            record.ready = True
            self._catalog.save(record)
            self._emit("create", record)
            return self._catalog.shown(record)

    def _copied(self, kind: Kind, before: Record, name: str, request: CopyRequest) -> Record:
        driver = request.driver or before.driver
        options = dict(request.options if request.driver else before.options)
        try:
            return self._make(kind, before, name, driver, options, request)
        except NotSupported:
            if request.driver:
                raise
        return self._make(kind, before, name, PLAIN_DRIVER, {}, request)

    def _make(
        self, kind: Kind, before: Record, name: str, driver: str, options: dict[str, str],
        request: CopyRequest,
    ) -> Record:  # fmt: skip
        record = Record(
            name, driver, options, dict(request.labels), now(),
            origin=f"{kind} of {before.name}", place=self._catalog.free_place(name, driver),
        )  # fmt: skip
        self._catalog.put(record)
        try:
            Copy(self._catalog, before, record, request.paused).make(kind)
        except BaseException:
            self._catalog.forget(name)
            raise
        return record

    def restore(self, name: str, source: str) -> Json:
        """Give a volume the content of a snapshot, or of any other volume.

        After a crash the volume cannot be mounted until this is done again.

        Raises:
            InUse: a container has one of them mounted.
        """
        if source == name:
            raise InvalidArgument(f"volume {name} cannot be restored from itself")
        with self._holding(source, name):
            record, before = self._catalog.get(name), self._catalog.get(source)
            check_complete(before)
            if record.snapshot:
                raise InvalidArgument(f"volume {name} is a {record.origin} and stays as it is")
            for each in (record, before):
                if each.mounted:
                    users = ", ".join(each.mounted)
                    raise InUse(f"restore {name}: volume {each.name} is mounted by [{users}]")
            record.restoring = source
            self._catalog.save(record)
            driver, options = self._catalog.options(record)
            same = record.driver == before.driver and record.options == before.options
            done = driver.call.volume_restore(record.at, before.at, options) if same else None
            if done is None:
                replace_content(self._catalog, before, record)
            record.restoring = ""
            self._catalog.save(record)
            self._emit("restore", record)
            return self._catalog.shown(record)

    def rename(self, name: str, new_name: str) -> Json:
        """Give a volume another name; the driver goes on knowing it by the one it was made with.

        Raises:
            AlreadyExists: the name is taken.
            InUse: containers refer to the volume, by its name.
        """
        check_name(new_name)
        if name == new_name:
            raise InvalidArgument(f"volume {name} already has that name")
        with self._holding(name, new_name):
            if self._catalog.known(new_name) or self._catalog.adopt(new_name):
                raise AlreadyExists(f"volume {new_name} already exists; choose a different name")
            record = self._catalog.get(name)
            if users := [*dict.fromkeys([*record.users, *record.mounted])]:
                raise InUse(f"rename {name}: volume is in use - [{', '.join(users)}]")
            self._catalog.rename(record, new_name)
            self._emit("rename", record)
            return self._catalog.shown(record)
