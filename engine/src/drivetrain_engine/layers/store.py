"""The layer store: keys, kinds, parents, mounts and who uses what; drivers only make room."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from drivetrain.calling import Driver
from drivetrain.errors import AlreadyExists, EngineError, InUse, NotFound
from drivetrain.host import orphans, trees
from drivetrain.options import parse_options
from drivetrain.registry import Registry
from drivetrain.storage import Change, StorageHooks
from drivetrain_engine.content import Image, Images
from drivetrain_engine.layers import archive
from drivetrain_engine.layers.discarding import discard
from drivetrain_engine.layers.driveroptions import sort_options
from drivetrain_engine.layers.imagelayers import KEY_LENGTH, ImageLayers, key_of
from drivetrain_engine.layers.migration import Migrations
from drivetrain_engine.layers.places import Places, free
from drivetrain_engine.layers.records import LayerRecord, LayerRecords
from drivetrain_engine.layers.totals import allocated, totals
from drivetrain_engine.state import State

logger = logging.getLogger(__name__)


class Layers:
    """All layers of a data root.

    Args:
        root: each driver has a directory of its name below it.
        mounts_root: where layers are mounted.
        state: records.
        images: where layers of images come from.
        registry: the installed drivers.
        default: the driver of containers that name none.
        options: of drivers, as given (``--storage-opt``), see :mod:`.driveroptions`.
    """

    def __init__(
        self,
        *,
        root: Path,
        mounts_root: Path,
        state: State,
        images: Images,
        registry: Registry,
        default: str,
        options: Mapping[str, str] | None = None,
    ) -> None:
        self._root = root
        self._mounts = mounts_root
        # Not in a layer, which may be unmounted while a program still fills it.
        self._unpackers = root / "unpackers"
        self._unpackers.touch(0o600)
        self._records = LayerRecords(state)
        self._images = images
        self._registry = registry
        self.default = default
        self._options = sort_options(registry, default, options or {})
        self._drivers: dict[str, Driver[StorageHooks]] = {}
        self._lock = threading.RLock()
        self._holding: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._users: dict[str, int] = {}
        # Keys of committed layers are names of their content.
        self._sizes: dict[tuple[str, str], int] = {}
        self._places = Places(self.driver)
        self._image_layers = ImageLayers(
            records=self._records,
            images=images,
            driver=self.driver,
            places=self._places,
            mounts_root=mounts_root,
            unpackers=self._unpackers,
        )
        #: Moves containers' layers between drivers.
        self.migrations = Migrations(
            state=state,
            records=self._records,
            places=self._places,
            mounts_root=mounts_root,
            driver=self.driver,
            image_layers=self.image_layers,
            parent_view=self._parent_view,
        )
        mounts_root.mkdir(parents=True, exist_ok=True)
        mounts_root.chmod(0o711)
        free(root)
        self.driver(default)

    def driver(self, name: str) -> Driver[StorageHooks]:
        """Return a driver, opened."""
        with self._lock:
            if name not in self._drivers:
                loaded = self._registry.storage(name)
                root = self._root / name
                root.mkdir(parents=True, exist_ok=True)
                root.chmod(0o711)
                loaded.call.storage_probe(root)
                owner, given = f"storage driver {name}", self._options.get(name, {})
                options = parse_options(owner, loaded.call.storage_options(), given)
                loaded.call.storage_open(root, options)
                self._drivers[name] = loaded
            return self._drivers[name]

    # Containers

    def create(
        self,
        container_id: str,
        image: Image | None,
        *,
        driver: str | None = None,
        options: Mapping[str, str] | None = None,
        throwaway: bool = False,
    ) -> None:
        """Make a container's writable layer on an image, which is unpacked first if need be.

        Args:
            container_id: whose layer.
            image: what it stands on; ``None``: nothing.
            driver: another than the default one.
            options: as given (``--storage-opt``).
            throwaway: the container is removed when it ends.

        Raises:
            AlreadyExists: it has one; that stays as it is.
            InvalidArgument: an option that the driver does not have, named.
            NotFound, NotSupported: of the driver.
        """
        if self._records.of_container(container_id) is not None:
            raise AlreadyExists(f"container {container_id[:12]} has a writable layer already")
        name = driver or self.default
        call = self.driver(name).call
        given = dict(options or {})
        parsed = parse_options(f"storage driver {name}", call.layer_options(), given)
        parents = self.image_layers(image, name) if image is not None else ()
        record = LayerRecord(name, container_id, parents, False, container_id, given)
        self._records.put(record)
        try:
            call.layer_create(
                container_id, parents, parsed, "throwaway" if throwaway else "container"
            )
        except BaseException:
            self._records.delete(record)
            raise

    def _container(self, container_id: str) -> LayerRecord:
        record = self._records.of_container(container_id)
        if record is None:
            raise NotFound(f"container {container_id[:12]} has no writable layer")
        return record

    def driver_of(self, container_id: str) -> str:
        """Return the name of the driver that holds a container's layer.

        Raises:
            NotFound: it has none.
        """
        return self._container(container_id).driver

    def _target(self, container_id: str) -> Path:
        return self._mounts / container_id

    def mount(self, container_id: str) -> Path:
        """Mount a container's layer and count the user; every mount needs an unmount."""
        with self._holding[container_id]:
            record = self._container(container_id)
            target = self._target(container_id)
            self._places.mount(record, target, read_only=False)
            self._users[container_id] = self._users.get(container_id, 0) + 1
        return target

    def unmount(self, container_id: str) -> None:
        """Drop one user; the last one unmounts. An extra call is harmless."""
        with self._holding[container_id]:
            users = self._users.get(container_id, 0) - 1
            if users > 0:
                self._users[container_id] = users
                return
            self._users.pop(container_id, None)
            record = None
            with contextlib.suppress(NotFound):
                record = self._container(container_id)
            self._places.unmount(self._target(container_id), record)

    def remove(self, container_id: str) -> None:
        """Remove a container's layer; unknown ones are fine."""
        try:
            record = self._container(container_id)
        except NotFound:
            return
        with self._holding[container_id]:
            self._users.pop(container_id, None)
            self._places.unmount(self._target(container_id), record)
            self.migrations.forget(container_id)
            self.migrations.remove_layer(record)
        self._holding.pop(container_id, None)

    @contextlib.contextmanager
    def mounted(self, container_id: str) -> Iterator[Path]:
        """Mount a container's layer for the time of the context."""
        path = self.mount(container_id)
        try:
            yield path
        finally:
            self.unmount(container_id)

    def changes(self, container_id: str) -> list[Change]:
        """Return what a container changed, parents before children."""
        record = self._container(container_id)
        call = self.driver(record.driver).call
        found = call.layer_changes(record.key, record.parents)
        if found is not None:
            return list(found)
        with self._parent_view(record) as parent, self.mounted(container_id) as mine:
            snapshot_time = call.layer_snapshot_time(record.key)
            return list(trees.compare(parent, mine, snapshot_time=snapshot_time))

    @contextlib.contextmanager
    def _parent_view(self, record: LayerRecord) -> Iterator[Path | None]:
        if not record.parents:
            yield None
            return
        parent = self._records.get(record.driver, record.parents[0])
        assert parent is not None
        target = self._mounts / f"parent-{record.key[:KEY_LENGTH]}-{threading.get_ident()}"
        self._places.mount(parent, target, read_only=True)
        try:
            yield target
        finally:
            self._places.unmount(target, parent)

    def diff_tar(self, container_id: str) -> Iterator[bytes]:
        """Yield a container's changes as an OCI layer, not compressed."""
        changes = self.changes(container_id)
        with self.mounted(container_id) as root:
            yield from archive.layer(root, changes)

    def export_tar(self, container_id: str) -> Iterator[bytes]:
        """Yield a container's whole tree as tar."""
        with self.mounted(container_id) as root:
            yield from archive.tree(root)

    def usage(self, container_id: str) -> tuple[int, int]:
        """Return the bytes of a container's own files, and those with its image's."""
        record = self._container(container_id)
        own = self._size(record)
        below = 0
        for key in record.parents:
            parent = self._records.get(record.driver, key)
            below += self._size(parent) if parent is not None else 0
        return own, own + below

    def metadata(self, container_id: str) -> dict[str, str] | None:
        """Return what ``inspect`` shows of a container's layer; ``None``: nothing."""
        record = self._container(container_id)
        found = self.driver(record.driver).call.layer_metadata(record.key, record.parents)
        shown = dict(found or {})
        if self._users.get(container_id):
            shown["MergedDir"] = str(self._target(container_id))
        return shown or None

    def _size(self, record: LayerRecord) -> int:
        """Return the bytes of a layer; those of a committed one are counted once."""
        layer = (record.driver, record.key)
        size = self._sizes.get(layer)
        if size is None:
            size = self._measure(record)
            if record.committed:
                self._sizes[layer] = size
        return size

    def _measure(self, record: LayerRecord) -> int:
        call = self.driver(record.driver).call
        usage = call.layer_usage(record.key, record.parents)
        if usage is not None:
            return usage.size
        target = self._mounts / f"usage-{record.key[:KEY_LENGTH]}-{threading.get_ident()}"
        with self._parent_view(record) as parent:
            self._places.mount(record, target, read_only=True)
            try:
                snapshot_time = call.layer_snapshot_time(record.key)
                changes = trees.compare(parent, target, snapshot_time=snapshot_time)
                return allocated(target, changes)
            finally:
                self._places.unmount(target, record)

    @contextlib.contextmanager
    def held(self, container_id: str) -> Iterator[None]:
        """Keep a container's layer from being mounted for the time of the context.

        Raises:
            InUse: it is mounted.
        """
        with self._holding[container_id]:
            if self._users.get(container_id):
                raise InUse(
                    f"the files of container {container_id[:12]} are in use: by itself, or by an"
                    " export, a copy or a diff; try again when that has ended"
                )
            yield

    # Images

    def image_layers(self, image: Image, driver: str) -> tuple[str, ...]:
        """Return the keys of an image's layers, nearest first, after unpacking what is missing."""
        return self._image_layers.unpacked(image, driver)

    def mount_image(self, image: Image, user: str) -> Path:
        """Mount an image read-only for somebody; the same user gets the same mount again."""
        return self._image_layers.mount(image, user, self.default)

    def unmount_image(self, image: Image, user: str) -> None:
        """Undo ``mount_image``; an extra call is harmless."""
        self._image_layers.unmount(image, user, self.default)

    def discard_image_layers(self, *, keep_images: bool = True) -> None:
        """Remove unpacked layers that no container needs.

        Args:
            keep_images: nor any image; else they are unpacked again when they are needed.
        """
        with self._lock:
            images = self._images.list() if keep_images else ()
            of_images = {key_of(chain_id) for image in images for chain_id in image.chain_ids}
            discard(self._records, of_images, self.migrations.remove_layer)

    # The whole

    def records(self) -> list[LayerRecord]:
        """Return all layers of all drivers."""
        return list(self._records)

    def totals(self) -> list[dict[str, Any]]:
        """Return what each driver holds, see :mod:`.totals`."""
        return totals(self._records, self.migrations.pending, self.default, self._size)

    def in_use(self) -> dict[str, int]:
        """Return how many containers each driver holds."""
        counts: dict[str, int] = {}
        for record in self._records:
            if record.container:
                counts[record.driver] = counts.get(record.driver, 0) + 1
        return counts

    def status(self, driver: str | None = None) -> list[tuple[str, str]]:
        """Return pairs for ``info``; a driver that fails tells why."""
        try:
            return list(self.driver(driver or self.default).call.storage_status())
        except EngineError as error:
            return [("Error", str(error))]

    def reconcile(self, containers: set[str], running: set[str]) -> None:
        """Make disk and mounts agree with the containers that are known.

        Args:
            containers: ids of all containers that have a record.
            running: of those whose layer has to stay mounted.
        """
        orphans.end(self._unpackers)
        kept = self.migrations.reconcile(containers)
        for record in list(self._records):
            orphan = record.container and record.container not in containers
            unfinished = not record.container and not record.committed
            if orphan or (unfinished and (record.driver, record.key) not in kept):
                self._places.unmount(self._target(record.key), record)
                try:
                    unpacking = self._mounts / f"unpack-{record.driver}-{record.key}"
                    self._places.unmount(unpacking, record)
                    self.migrations.remove_layer(record)
                except EngineError as error:
                    logger.warning("layer %s stays for now: %s", record.key, error)
        stale = False
        for place in self._mounts.iterdir():
            if place.name in running:
                self._users[place.name] = 1
                with contextlib.suppress(NotFound):
                    self._places.adopt(self._container(place.name), place)
            elif place.name.startswith("image-") and place.name.split("-")[1] in running:
                if view := self._records.get(self.default, place.name.split("-")[2]):
                    self._places.adopt(view, place)
            else:
                self._places.unmount(place, None)
                stale = True
        if stale:
            self._places.release(self._records)

    def close(self) -> None:
        """Leave; mounts and layers stay."""
        for driver in self._drivers.values():
            driver.call.storage_close()
