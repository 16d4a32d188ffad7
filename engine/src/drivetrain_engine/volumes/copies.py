"""Clones and snapshots: by the driver where it can, else by copying the files."""

from __future__ import annotations

import os

from drivetrain.errors import NotSupported
from drivetrain_engine.volumes.catalog import Catalog
from drivetrain_engine.volumes.copyup import copy_up
from drivetrain_engine.volumes.model import Record


class Copy:
    """One volume becoming the copy of another. The caller holds both.

    Args:
        catalog: the volumes.
        source: what is copied; it may be mounted.
        target: the record of the new one, with the same driver and options.
    """

    def __init__(self, catalog: Catalog, source: Record, target: Record) -> None:
        self._catalog = catalog
        self._source = source
        self._target = target
        self._driver, self._options = catalog.options(source)

    def make(self, kind: str) -> None:
        """Make the ``clone`` or ``snapshot``; after an error nothing is left of it.

        Raises:
            NotSupported: a copy with the same options would be the same data, or none.
            OSError: such as no space.
        """
        call = self._driver.call
        hook = call.volume_clone if kind == "clone" else call.volume_snapshot
        try:
            if hook(self._source.name, self._target.name, self._options) is None:
                self._copy_files()
        except BaseException:
            call.volume_remove(self._target.name, self._options)
            raise

    def _copy_files(self) -> None:
        call, source, target = self._driver.call, self._source.name, self._target.name
        call.volume_create(target, self._options)
        from_path = self._catalog.paths.get(source) or call.volume_mount(source, self._options)
        try:
            names = set(os.listdir(from_path))
            try:
                copy_up(call.volume_mount(target, self._options), from_path)
                # a tmpfs forgets, and a device that both volumes name was not copied at all
                call.volume_unmount(target, self._options)
                to_path = call.volume_mount(target, self._options)
                kept = names == set(os.listdir(to_path)) and not to_path.samefile(from_path)
            finally:
                call.volume_unmount(target, self._options)
        finally:
            if not self._source.mounted:
                call.volume_unmount(source, self._options)
        if not kept:
            raise NotSupported(
                f"volume {source}: a copy of it with the same options would not be one; "
                "make a volume with other options and copy the files"
            )
