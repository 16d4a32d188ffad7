"""The layers of images: unpacked for a driver when it first needs them, mounted to be looked at."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from drivetrain.calling import Driver
from drivetrain.errors import NotFound
from drivetrain.host import orphans
from drivetrain.options import parse_options
from drivetrain.storage import StorageHooks
from drivetrain_engine.content import Image, Images
from drivetrain_engine.layers.places import Places
from drivetrain_engine.layers.records import LayerRecord, LayerRecords
from drivetrain_engine.layers.unpacking import unpack

KEY_LENGTH = 32


def key_of(chain_id: str) -> str:
    """Return the key that the layer of a chain has with every driver."""
    return chain_id.removeprefix("sha256:")[:KEY_LENGTH]


class ImageLayers:
    """The layers of images, of all drivers.

    Args:
        records: of layers.
        images: where layers come from.
        driver: returns an opened driver by its name.
        places: mounts them.
        mounts_root: where.
        unpackers: a file that the programs which unpack hold, see :mod:`drivetrain.host.orphans`.
    """

    def __init__(
        self,
        *,
        records: LayerRecords,
        images: Images,
        driver: Callable[[str], Driver[StorageHooks]],
        places: Places,
        mounts_root: Path,
        unpackers: Path,
    ) -> None:
        self._records = records
        self._images = images
        self._driver = driver
        self._places = places
        self._mounts = mounts_root
        self._unpackers = unpackers
        self._unpacking: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

    def unpacked(self, image: Image, driver: str) -> tuple[str, ...]:
        """Return the keys of an image's layers, nearest first, after unpacking what is missing."""
        parents: tuple[str, ...] = ()
        for index, chain_id in enumerate(image.chain_ids):
            key = key_of(chain_id)
            record = self._records.get(driver, key)
            if record is None or not record.committed:
                with self._unpacking[f"{driver}/{key}"]:
                    record = self._records.get(driver, key)
                    if record is None or not record.committed:
                        self._unpack(image, index, LayerRecord(driver, key, parents))
            parents = (key, *parents)
        return parents

    def _unpack(self, image: Image, index: int, record: LayerRecord) -> None:
        call = self._driver(record.driver).call
        owner = f"storage driver {record.driver}"
        options = parse_options(owner, call.layer_options(), {})
        self._records.put(record)
        target = self._mounts / f"unpack-{record.driver}-{record.key}"
        try:
            call.layer_create(record.key, record.parents, options, "image")
            self._places.mount(record, target, read_only=False)
            try:
                with (
                    self._images.open_layer(image, index) as stream,
                    orphans.working(self._unpackers) as lock,
                ):
                    unpack(stream, target, image.diff_ids[index], lock)
            finally:
                self._places.unmount(target, record)
            call.layer_commit(record.key)
        except BaseException:
            call.layer_remove(record.key)
            self._records.delete(record)
            raise
        record.committed = True
        self._records.put(record)

    def mount(self, image: Image, user: str, driver: str) -> Path:
        """Mount an image read-only for somebody; the same user gets the same mount again."""
        keys = self.unpacked(image, driver)
        if not keys:
            raise NotFound(f"image {image.id} has no layers")
        record = self._records.get(driver, keys[0])
        assert record is not None
        target = self._mounts / f"image-{user}-{keys[0]}"
        self._places.mount(record, target, read_only=True)
        return target

    def unmount(self, image: Image, user: str, driver: str) -> None:
        """Undo ``mount``; an extra call is harmless."""
        key = key_of(image.chain_ids[-1])
        record = self._records.get(driver, key)
        self._places.unmount(self._mounts / f"image-{user}-{key}", record)
