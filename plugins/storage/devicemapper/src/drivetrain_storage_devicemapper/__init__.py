"""The devicemapper storage driver: a thin device a layer, a snapshot of its parent's.

``devices/`` remembers the devices, see :mod:`.records`; the pool comes from :mod:`.setup`. The
first device, ``base``, has an empty file system, of which a layer without parents is a snapshot.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from drivetrain import hookimpl
from drivetrain.errors import EngineError, Exhausted, InUse, InvalidArgument, NotFound, Unavailable
from drivetrain.options import Option, Options
from drivetrain.storage import TARGET, Mount
from drivetrain_storage_devicemapper import dm, filesystems, setup, xfs
from drivetrain_storage_devicemapper.records import Record, Records
from drivetrain_storage_devicemapper.settings import OPTIONS, read
from drivetrain_storage_devicemapper.status import pairs
from drivetrain_storage_devicemapper.thinpool import ThinPool

log = logging.getLogger(__name__)
#: Keys of layers have no dot; these are the driver's own.
_BASE = "base."
_DELETED = ".deleted"


class DeviceMapper:
    """Layers as thin devices."""

    @hookimpl
    def storage_probe(self) -> bool:
        dm.require("thin-pool", "thin")
        filesystems.preferred()
        return True

    @hookimpl
    def storage_options(self) -> Sequence[Option]:
        return OPTIONS

    @hookimpl
    def layer_options(self) -> Sequence[Option]:
        return (Option("size", "size", help="size of the root, its image included; dm.basesize"),)

    @hookimpl
    def storage_open(self, root: Path, options: Options) -> bool:
        dm.require("thin-pool", "thin")
        self._settings = read(options)
        self._root, self._scratch = root, root / "mnt"
        self._scratch.mkdir(mode=0o700, exist_ok=True)
        filesystems.sweep(self._scratch)
        self._pool = setup.open_pool(root, self._settings)
        self._thin = ThinPool(self._pool.name, setup.prefix(root))
        self._thin.deactivate_idle()
        self._records = Records(root / "devices", self._thin)
        self._open_base()
        self._held: dict[str, int] = {}
        self._delete_waiting()
        return True

    def _open_base(self) -> None:
        """Make the device of which all others descend, or let it grow."""
        settings, base = self._settings, self._records.get(_BASE)
        if base is None:
            kind = settings.file_system or filesystems.preferred()
            filesystems.check_size(kind, settings.base_size)
            with self._records.creating() as number:
                self._thin.create_thin(number)
                record = Record(number, settings.base_size, kind, committed=True)
                try:
                    device = self._thin.activate(_BASE, number, record.size)
                    filesystems.make(
                        kind, device.path, settings.mkfs_arguments, self._scratch,
                        zeroed=not self._thin.unzeroed,
                    )  # fmt: skip
                finally:
                    self._thin.deactivate(_BASE)
                self._records.put(_BASE, record)
            return
        if settings.file_system not in ("", base.file_system):
            raise InvalidArgument(
                f"dm.fs={settings.file_system}: {self._root} was made with {base.file_system}"
            )
        if settings.base_size_given and settings.base_size < base.size:
            raise InvalidArgument(
                f"dm.basesize can only grow: {settings.base_size} bytes are asked for, the base"
                f" device has {base.size}"
            )
        if settings.base_size > base.size:
            self._grow(_BASE, base, settings.base_size)

    def _grow(self, key: str, record: Record, size: int) -> Record:
        device = self._thin.activate(key, record.number, record.size)
        try:
            self._thin.resize(key, record.number, size)
            filesystems.grow(record.file_system, device.path, self._scratch)
        finally:
            self._thin.deactivate(key)
        grown = replace(record, size=size)
        self._records.put(key, grown)
        return grown

    # Layers

    @hookimpl
    def layer_create(self, key: str, parents: Sequence[str], options: Options) -> bool:
        origin_key = parents[0] if parents else _BASE
        origin = self._record(origin_key)
        size = options.integer("size") // dm.SECTOR * dm.SECTOR or origin.size
        if size < origin.size:
            raise InvalidArgument(
                f"size: a root of {size} bytes is smaller than what it is made of, which has"
                f" {origin.size}"
            )
        self.layer_remove(key)
        self._check_space()
        with self._records.creating() as number:
            made = time.time_ns()
            self._thin.create_snapshot(number, origin.number, origin_key)
            record = replace(origin, number=number, committed=False, made=made)
            self._records.put(key, record)
        if size > origin.size:
            try:
                self._grow(key, record, size)
            except BaseException:
                self.layer_remove(key)
                raise
        return True

    def _record(self, key: str) -> Record:
        record = self._records.get(key)
        if record is None:
            raise NotFound(f"layer {key} has no thin device")
        return record

    def _check_space(self) -> None:
        """Refuse a new layer while the pool is too full to hold it."""
        settings, status = self._settings, self._thin.status()
        fullest = 100 * max(
            status.data_used / status.data_total, status.metadata_used / status.metadata_total
        )
        if self._pool.kind == "lvm" and fullest >= settings.autoextend_threshold:
            with contextlib.suppress(EngineError):
                setup.extend(self._pool)
                status = self._thin.status()
        if status.needs_check or status.mode == "ro":
            raise Unavailable(
                f"thin pool {self._thin.name} takes no changes ({status.mode}): repair it by"
                " lvconvert --repair or thin_repair"
            )
        for what, used, total in (
            ("data", status.data_used, status.data_total),
            ("metadata", status.metadata_used, status.metadata_total),
        ):
            free = 100 * (1 - used / total)
            if free < settings.least_free or used >= total:
                raise Exhausted(
                    f"thin pool {self._thin.name} has {free:.1f}% of its {what} free, less than"
                    f" dm.min_free_space={settings.least_free:g}%: remove containers and images,"
                    " or extend it"
                )

    @hookimpl
    def layer_mounts(self, key: str, read_only: bool) -> Sequence[Mount]:
        record = self._record(key)
        device = self._thin.activate(key, record.number, record.size)
        # All mounts of one file system agree: only what never changes is read-only as a whole.
        flag = "ro" if record.committed else "rw"
        retries = self._settings.xfs_retries
        writable = record.file_system == "xfs" and not record.committed
        if retries is not None and writable and key not in self._held:
            self._held[key] = xfs.hold(device.path, retries)
        options = (*filesystems.mount_options(record.file_system), *self._settings.mount_options)
        return (
            Mount(record.file_system, str(device.path), (*options, flag)),
            Mount("bind", f"{TARGET}/{filesystems.ROOT}", ("ro" if read_only else "rw",)),
        )

    @hookimpl
    def layer_unmounted(self, key: str) -> bool:
        self._let_go(key)
        if not self._thin.deactivate(key, deferred=self._settings.deferred_removal):
            log.warning("the device of layer %s is in use and stays active", key)
        return True

    def _let_go(self, key: str) -> None:
        held = self._held.pop(key, None)
        if held is not None:
            os.close(held)

    @hookimpl
    def layer_metadata(self, key: str) -> Mapping[str, str]:
        record = self._record(key)
        return {
            "DeviceId": str(record.number),
            "DeviceName": f"{self._thin.prefix}-{key}",
            "DeviceSize": str(record.size),
        }

    @hookimpl
    def layer_commit(self, key: str) -> bool:
        self._records.put(key, replace(self._record(key), committed=True))
        return True

    @hookimpl
    def layer_snapshot_time(self, key: str) -> int:
        return self._record(key).made

    @hookimpl
    def layer_remove(self, key: str) -> bool:
        if self._records.get(key) is None:
            return True
        if self._delete(key):
            return True
        if not self._settings.deferred_deletion:
            raise InUse(
                f"the device of layer {key} is in use, maybe by a mount in another namespace; try"
                " again, or set dm.use_deferred_removal and dm.use_deferred_deletion"
            )
        record = self._record(key)
        self._records.rename(key, f"{key}.{record.number}{_DELETED}")
        return True

    def _delete(self, key: str, active_key: str | None = None, *, patient: bool = True) -> bool:
        """Delete a device; ``False``: it is in use."""
        record = self._record(key)
        active_key = active_key or key
        self._let_go(active_key)
        if not self._thin.deactivate(active_key, patient=patient):
            if self._settings.deferred_removal:
                self._thin.deactivate(active_key, deferred=True)
            return False
        if self._settings.discard:
            self._thin.activate(active_key, record.number, record.size)
            self._thin.discard(active_key, record.size)
            self._thin.deactivate(active_key)
        with self._records.deleting(key):
            if not self._thin.delete(record.number):
                raise InUse(f"the device of layer {active_key} is in use")
        return True

    def _delete_waiting(self) -> None:
        """Delete devices that were in use when their layers were removed."""
        for key, _ in list(self._records):
            if key.endswith(_DELETED):
                with contextlib.suppress(InUse):
                    self._delete(key, key.split(".")[0], patient=False)

    # The pool

    @hookimpl
    def storage_status(self) -> Sequence[tuple[str, str]]:
        self._delete_waiting()
        waiting = sum(key.endswith(_DELETED) for key, _ in self._records)
        return pairs(
            self._root, self._pool, self._thin, self._settings, self._record(_BASE), waiting
        )

    @hookimpl
    def storage_close(self) -> bool:
        with contextlib.suppress(OSError):
            setup.close_pool(self._pool)
        return True
