"""Clones, snapshots and restores: by the driver where it can, else by copying the files."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from drivetrain.errors import InUse, NotSupported
from drivetrain_engine.volumes.catalog import Catalog
from drivetrain_engine.volumes.copyup import copy_up, empty
from drivetrain_engine.volumes.model import Record
from drivetrain_engine.volumes.quiet import Paused


@contextlib.contextmanager
def provided(catalog: Catalog, record: Record) -> Iterator[Path]:
    """Have a volume's tree for a while; the caller holds the volume."""
    driver, options = catalog.options(record)
    path = catalog.paths.get(record.name) or driver.call.volume_mount(record.at, options)
    try:
        yield path
    finally:
        if not record.mounted:
            driver.call.volume_unmount(record.at, options)


class Copy:
    """One volume becoming the copy of another. The caller holds both.

    Args:
        catalog: the volumes.
        source: what is copied; it may be mounted.
        target: the record of the new one.
        paused: returns the containers that write nothing meanwhile.
    """

    def __init__(self, catalog: Catalog, source: Record, target: Record, paused: Paused) -> None:
        self._catalog = catalog
        self._source = source
        self._target = target
        self._paused = paused
        self._driver, self._options = catalog.options(target)

    def make(self, kind: str) -> None:
        """Make the ``clone`` or ``snapshot``; after an error nothing is left of it.

        Raises:
            NotSupported: a copy with these options would be the same data, or none.
            InUse: files have to be copied that somebody may be writing.
            OSError: such as no space.
        """
        source, target, call = self._source, self._target, self._driver.call
        hook = call.volume_clone if kind == "clone" else call.volume_snapshot
        same = source.driver == target.driver and source.options == target.options
        try:
            done = hook(source.at, target.at, self._options) if same else None
            if done is None:
                with self._catalog.quiet.keeping(source, self._paused):
                    self._copy_files()
        except BaseException:
            call.volume_remove(target.at, self._options)
            raise

    def _copy_files(self) -> None:
        call, target = self._driver.call, self._target.at
        call.volume_create(target, self._options)
        with provided(self._catalog, self._source) as from_path:
            names = set(os.listdir(from_path))
            try:
                copy_up(call.volume_mount(target, self._options), from_path)
                # a tmpfs forgets, and a device that both volumes name was not copied at all
                call.volume_unmount(target, self._options)
                to_path = call.volume_mount(target, self._options)
                kept = names <= set(os.listdir(to_path)) and not to_path.samefile(from_path)
            finally:
                call.volume_unmount(target, self._options)
        if not kept:
            raise NotSupported(
                f"volume {self._source.name}: a copy of it with the driver {self._target.driver} "
                "and the same options would not be one; give another driver or other options"
            )


def replace_content(catalog: Catalog, source: Record, target: Record) -> None:
    """Give a volume the files of another one instead of its own."""
    with provided(catalog, source) as from_path, provided(catalog, target) as to_path:
        if to_path.samefile(from_path):
            raise NotSupported(f"volumes {source.name} and {target.name} are the same directory")
        empty(to_path)
        copy_up(to_path, from_path)


def check_complete(record: Record) -> None:
    """Refuse a volume whose content is half old and half new.

    Raises:
        InUse: until the restore that was broken off is done again.
    """
    if record.restoring:
        raise InUse(
            f"volume {record.name}: its restore from {record.restoring} was broken off; "
            f"do it again: engine volume restore {record.name} {record.restoring}"
        )
