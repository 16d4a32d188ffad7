"""Moving a container's writable layer from one driver to another.

Records first, then effects, so that every crash has one repair (see ``Migration.phase``):

1. ``creating``: the image is unpacked for the target, and a layer made on it. After a crash that
   layer is removed.
2. ``copying``: what the container changed is put there, then the two trees are compared. After a
   crash the layer waits: a second try copies only what is missing.
3. In one transaction the target's layer becomes the container's, and ``removing`` begins: the
   source's layer goes. After a crash that is finished.

Until 3 the source is only read.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from drivetrain.calling import Driver
from drivetrain.errors import EngineError, Exhausted, Internal, InvalidArgument, NotSupported
from drivetrain.host import mounts, trees
from drivetrain.options import parse_options
from drivetrain.storage import Change, Mount, StorageHooks, Use
from drivetrain_engine.content import Image
from drivetrain_engine.layers.comparing import THROWN_AWAY, completed, differences, verify
from drivetrain_engine.layers.copying import CannotKeep, Copy
from drivetrain_engine.layers.places import Places
from drivetrain_engine.layers.records import (
    LayerRecord,
    LayerRecords,
    Migration,
    MigrationRecords,
)
from drivetrain_engine.layers.surveying import survey
from drivetrain_engine.state import State

#: After how many entries progress is told.
STEP = 200
ParentView = Callable[[LayerRecord], contextlib.AbstractContextManager[Path | None]]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a migration is.

    Attributes:
        step: ``unpacking``, ``copying``, ``verifying`` or ``migrated``.
        done, total: entries of the writable layer.
        bytes: of files that were copied.
    """

    step: str
    done: int = 0
    total: int = 0
    bytes: int = 0


class Migrations:
    """Moves layers, and mends what a crash left of moving them.

    Args:
        state: for transactions.
        records: of layers.
        places: mounts.
        mounts_root: where they are.
        driver: returns an opened driver by its name.
        image_layers: unpacks an image for a driver and returns the keys, nearest first.
        parent_view: mounts the parent of a layer for the time of a context.
    """

    def __init__(
        self,
        *,
        state: State,
        records: LayerRecords,
        places: Places,
        mounts_root: Path,
        driver: Callable[[str], Driver[StorageHooks]],
        image_layers: Callable[[Image, str], tuple[str, ...]],
        parent_view: ParentView,
    ) -> None:
        self._state = state
        self._records = records
        self._places = places
        self._mounts = mounts_root
        self._driver = driver
        self._image_layers = image_layers
        self._parent_view = parent_view
        self.pending = MigrationRecords(state)

    def check(self, container_id: str, target: str) -> LayerRecord:
        """Find out whether a container's layer can be moved, and return it.

        Raises:
            NotFound, NotSupported: of the target.
            InvalidArgument: the layer has an option that the target does not know.
        """
        record = self._records.of_container(container_id)
        if record is None:
            raise Internal(f"container {container_id[:12]} has no writable layer")
        schema = self._driver(target).call.layer_options()
        try:
            parse_options(f"storage driver {target}", schema, record.options)
        except InvalidArgument as error:
            raise InvalidArgument(
                f"it was made with --storage-opt for {record.driver}: {error}; choose a driver that"
                " knows the option, or make the container anew"
            ) from error
        return record

    def migrate(
        self,
        container_id: str,
        image: Image | None,
        target: str,
        *,
        use: Use = "container",
        restart: bool = False,
        switched: Callable[[], None] = lambda: None,
    ) -> Iterator[Progress]:
        """Move a layer, which nobody mounts meanwhile; see ``Layers.held``.

        A caller that stops listening stops the move: nothing of it is left.

        Args:
            container_id: whose.
            image: what it stands on; ``None``: nothing.
            target: name of the driver.
            use: what the layer is made for.
            restart: remembered until :meth:`started`.
            switched: called in the transaction that makes the new layer the container's.

        Yields:
            How far it is.

        Raises:
            NotSupported: the target cannot hold some entry as it is; names it.
            Exhausted: no space is left.
            Internal: the trees differ after all.
        """
        source = self.check(container_id, target)
        found = self.pending.get(container_id)
        resumed = found is not None and found.phase == "copying" and found.target == target
        migration = Migration(container_id, source.driver, target, restart=restart)
        if not resumed:
            self.forget(container_id)
            self.pending.put(migration)
        try:
            yield Progress("unpacking")
            layer = self._layer(source, image, target, use, resumed)
            migration.phase = "copying"
            self.pending.put(migration)
            last = Progress("copying")
            for last in self._fill(source, layer, resumed):
                yield last
        except CannotKeep as error:
            self.forget(container_id, keep=restart)
            raise _refused(error, source.driver, target) from error
        except OSError as error:
            self.forget(container_id, keep=restart)
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            kind = Exhausted if full else Internal
            hint = f": make room for {target}, then try again" if full else ""
            raise kind(f"{error}; {THROWN_AWAY}{hint}") from error
        except BaseException:
            self.forget(container_id, keep=restart)
            raise
        self._switch(source, layer, migration, switched)
        self._finish(migration)
        yield Progress("migrated", last.total, last.total, last.bytes)

    def _layer(
        self, source: LayerRecord, image: Image | None, target: str, use: Use, resumed: bool
    ) -> LayerRecord:
        """Return the layer on the target's side: the one that waits, or a new one."""
        parents = self._image_layers(image, target) if image is not None else ()
        if resumed and (waiting := self._records.get(target, source.key)) is not None:
            return waiting
        layer = LayerRecord(target, source.key, parents, False, "", source.options)
        call = self._driver(target).call
        owner = f"storage driver {target}"
        options = parse_options(owner, call.layer_options(), source.options)
        self._records.put(layer)
        call.layer_create(layer.key, parents, options, use)
        return layer

    def _fill(self, source: LayerRecord, layer: LayerRecord, resumed: bool) -> Iterator[Progress]:
        """Copy and compare."""
        own = self._changes(source)
        with self._mounted(source, "from", read_only=True) as old:
            # A file system in user space learns at the first look which names are one file.
            survey(old)
            seen = survey(old)
            own = completed(own, seen)
            with self._mounted(layer, "to", read_only=False) as new:
                copy = Copy(old, new, seen)
                try:
                    todo = list(differences(old, new, own)) if resumed else own
                    yield from _copied(copy, todo)
                    yield Progress("verifying", len(todo), len(own), copy.bytes)
                    # Drivers unpack an image alike but for times and such: made good, once.
                    if rest := list(differences(old, new, own)):
                        yield from _copied(copy, rest)
                    copy.root()
                finally:
                    copy.close()
            with self._mounted(layer, "to", read_only=True) as new:
                verify(old, new, own, seen, again=bool(rest))
        yield Progress("verifying", len(own), len(own), copy.bytes)

    def _changes(self, source: LayerRecord) -> list[Change]:
        call = self._driver(source.driver).call
        found = call.layer_changes(source.key, source.parents)
        if found is not None:
            return list(found)
        with (
            self._parent_view(source) as parent,
            self._mounted(source, "from", read_only=True) as mine,
        ):
            snapshot_time = call.layer_snapshot_time(source.key)
            return list(trees.compare(parent, mine, snapshot_time=snapshot_time))

    @contextlib.contextmanager
    def _mounted(self, record: LayerRecord, name: str, *, read_only: bool) -> Iterator[Path]:
        target = self._mounts / f"migrate-{name}-{record.key}"
        # A view of overlayfs does not show flags, and only a writable mount can: so that is made,
        # and this one place of it closed to writers.
        self._places.mount(record, target, read_only=False)
        try:
            if read_only:
                mounts.mount((Mount("bind", "none", ("remount", "bind", "ro")),), target)
            yield target
        finally:
            self._places.unmount(target, record)

    def _switch(
        self,
        source: LayerRecord,
        layer: LayerRecord,
        migration: Migration,
        switched: Callable[[], None],
    ) -> None:
        """Make the new layer the container's, in one transaction."""
        with self._mounted(layer, "to", read_only=False) as new:
            _sync(new)
        owner, migration.phase = source.container, "removing"
        source.container, layer.container = "", owner
        try:
            with self._state.transaction():
                self._records.put(source)
                self._records.put(layer)
                self.pending.put(migration)
                switched()
        except BaseException:
            self._records.forget()
            raise

    def _finish(self, migration: Migration) -> None:
        """Remove what the container had before."""
        old = self._records.get(migration.source, migration.container)
        if old is not None and not old.container:
            self.remove_layer(old)
        if migration.restart:
            migration.phase = "done"
            self.pending.put(migration)
        else:
            self.pending.delete(migration.container)

    def announce(self, container_id: str, target: str) -> None:
        """Remember that a container which runs is about to be stopped for its move."""
        found = self.pending.get(container_id)
        if found is not None and found.phase == "copying" and found.target == target:
            found.restart = True
            self.pending.put(found)
            return
        self.forget(container_id)
        record = self._records.of_container(container_id)
        source = record.driver if record is not None else ""
        self.pending.put(Migration(container_id, source, target, restart=True))

    def started(self, container_id: str) -> None:
        """Take note that a container which was stopped for its move has been started again."""
        found = self.pending.get(container_id)
        if found is None:
            return
        found.restart = False
        if found.phase == "copying":
            self.pending.put(found)
        else:
            self.pending.delete(container_id)

    def forget(self, container_id: str, *, keep: bool = False) -> None:
        """Remove what an interrupted move has made; none is fine.

        Args:
            container_id: whose move.
            keep: the record, which says that the container is to be started.
        """
        found = self.pending.get(container_id)
        if found is None:
            return
        layer = self._records.get(found.target, container_id)
        if layer is not None and not layer.container:
            self.remove_layer(layer)
        old = self._records.get(found.source, container_id)
        if old is not None and not old.container:
            self.remove_layer(old)
        if keep:
            found.phase, found.restart = "done", True
            self.pending.put(found)
        else:
            self.pending.delete(container_id)

    def reconcile(self, containers: set[str]) -> set[tuple[str, str]]:
        """Mend what a crash left.

        Args:
            containers: ids of all that have a record.

        Returns:
            Driver and key of the layers that wait for another try.
        """
        waiting: set[tuple[str, str]] = set()
        for migration in list(self.pending):
            for name in ("from", "to"):
                place = self._mounts / f"migrate-{name}-{migration.container}"
                self._places.unmount(place, None)
            with contextlib.suppress(EngineError):
                if migration.container not in containers:
                    self.forget(migration.container)
                elif migration.phase == "removing":
                    self._finish(migration)
                elif migration.phase == "copying":
                    waiting.add((migration.target, migration.container))
                else:
                    self.forget(migration.container, keep=migration.restart)
        return waiting

    def remove_layer(self, record: LayerRecord) -> None:
        """Remove a layer, then its record."""
        self._driver(record.driver).call.layer_remove(record.key)
        self._records.delete(record)


def _copied(copy: Copy, changes: list[Change]) -> Iterator[Progress]:
    total = len(changes)
    for done, _ in enumerate(copy.apply(changes)):
        if done % STEP == 0:
            yield Progress("copying", done, total, copy.bytes)


def _refused(error: CannotKeep, source: str, target: str) -> EngineError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Exhausted(f"{error}; {THROWN_AWAY}: make room for {target}, then try again")
    return NotSupported(
        f"storage driver {target} cannot hold {error}; {THROWN_AWAY}: remove the file, or choose"
        f" another driver than {target} (it is on {source})"
    )


def _sync(root: Path) -> None:
    """Have the kernel write a file system, before the only other copy goes."""
    from drivetrain.host import libc

    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        libc.syncfs(descriptor)
    finally:
        os.close(descriptor)
