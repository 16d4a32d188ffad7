"""A thin pool: devices that share blocks until they are written.

See admin-guide/device-mapper/thin-provisioning in the kernel's documentation.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from dataclasses import dataclass

from drivetrain.errors import Exhausted, Unavailable
from drivetrain_storage_devicemapper import dm
from drivetrain_storage_devicemapper.dm import SECTOR, Target

_BLKDISCARD = 0x1277
#: Size of a block of metadata in bytes, fixed by the kernel.
_METADATA_BLOCK = 4096


@dataclass(frozen=True, slots=True)
class PoolStatus:
    """What a pool says of itself; sizes in bytes.

    Attributes:
        transaction: the number that it keeps for its user.
        metadata_used, metadata_total: of what it keeps about devices.
        data_used, data_total: of what devices hold.
        mode: ``rw``, ``ro`` or ``out_of_data_space``.
        needs_check: its metadata has to be repaired first.
    """

    transaction: int
    metadata_used: int
    metadata_total: int
    data_used: int
    data_total: int
    mode: str
    needs_check: bool


class ThinPool:
    """A pool, and the devices of one user of it.

    Args:
        name: of the pool's device.
        prefix: of the names of devices.
    """

    def __init__(self, name: str, prefix: str) -> None:
        self.name = name
        self.prefix = prefix
        table = dm.status(name, table=True).parameters.split()
        #: Bytes that are given to a device at once.
        self.block = int(table[2]) * SECTOR
        #: Whether blocks are handed out as they were, not zeroed.
        self.unzeroed = "skip_block_zeroing" in table

    def status(self) -> PoolStatus:
        """Return how full the pool is, and how well.

        Raises:
            Unavailable: it failed.
        """
        words = dm.status(self.name).parameters.split()
        if len(words) < 5:
            raise Unavailable(
                f"thin pool {self.name} has failed: repair it by thin_repair or lvconvert --repair"
            )
        metadata, data = (tuple(map(int, word.split("/"))) for word in words[1:3])
        return PoolStatus(
            transaction=int(words[0]),
            metadata_used=metadata[0] * _METADATA_BLOCK,
            metadata_total=metadata[1] * _METADATA_BLOCK,
            data_used=data[0] * self.block,
            data_total=data[1] * self.block,
            mode=words[4],
            needs_check="needs_check" in words,
        )

    # Devices in the pool

    def create_thin(self, number: int) -> None:
        """Make an empty device."""
        self._message(f"create_thin {number}")

    def create_snapshot(self, number: int, origin: int, origin_key: str) -> None:
        """Make a device with the content of another one.

        Args:
            number: the new device.
            origin: its content.
            origin_key: under which that is active, if it is.
        """
        active = dm.find(self._name(origin_key)) is not None
        if active:
            dm.suspend(self._name(origin_key))
        try:
            self._message(f"create_snap {number} {origin}")
        finally:
            if active:
                dm.resume(self._name(origin_key))

    def delete(self, number: int) -> bool:
        """Delete a device; one that is gone is fine. ``False``: it is active."""
        try:
            self._message(f"delete {number}")
        except OSError as error:
            if error.errno == errno.EBUSY:
                return False
            if error.errno not in (errno.ENODATA, errno.ENOENT):
                raise
        return True

    def set_transaction(self, old: int, new: int) -> None:
        """Change the number that the pool keeps for its user."""
        self._message(f"set_transaction_id {old} {new}")

    def _message(self, text: str) -> None:
        try:
            dm.message(self.name, text)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise Exhausted(
                    f"thin pool {self.name} has no room for metadata: extend it (lvextend"
                    " --poolmetadatasize)"
                ) from error
            if error.errno == errno.EOPNOTSUPP:
                mode = dm.status(self.name).parameters
                raise Unavailable(f"thin pool {self.name} takes no changes: {mode}") from error
            raise

    # Devices that can be used

    def _name(self, key: str) -> str:
        return f"{self.prefix}-{key}"

    def activate(self, key: str, number: int, size: int) -> dm.Device:
        """Return a device that can be mounted.

        Args:
            key: names it.
            number: of the device in the pool.
            size: in bytes.
        """
        found = dm.find(self._name(key))
        if found is not None:
            return found
        pool = dm.find(self.name)
        if pool is None:
            raise Unavailable(f"thin pool {self.name} is gone")
        target = Target(size // SECTOR, "thin", f"{pool.path} {number}")
        return dm.create(self._name(key), target, uuid=f"ENGINE-{self._name(key)}"[:128])

    def resize(self, key: str, number: int, size: int) -> None:
        """Give an active device another size, in bytes."""
        pool = dm.find(self.name)
        assert pool is not None
        dm.reload(self._name(key), Target(size // SECTOR, "thin", f"{pool.path} {number}"))

    def deactivate(self, key: str, *, deferred: bool = False, patient: bool = True) -> bool:
        """Undo ``activate``; ``False``: it is in use, after a moment when ``patient``."""
        name = self._name(key)
        if not patient:
            return dm.remove(name, deferred=deferred, patience=0)
        return dm.remove(name, deferred=deferred)

    def deactivate_idle(self) -> None:
        """Deactivate what a process that was killed has left, but for what is in use."""
        for name in dm.names():
            device = dm.find(name) if name.startswith(f"{self.prefix}-") else None
            if device is not None and name != self.name and device.open_count == 0:
                dm.remove(name)

    def active(self, key: str) -> dm.Device | None:
        """Return a device that can be used, or ``None``."""
        return dm.find(self._name(key))

    def discard(self, key: str, size: int) -> None:
        """Give all blocks of an active device back, down to the disk or file below the pool."""
        device = dm.find(self._name(key))
        if device is None:
            return
        descriptor = os.open(device.path, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.ioctl(descriptor, _BLKDISCARD, struct.pack("=QQ", 0, size))
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise
        finally:
            os.close(descriptor)
