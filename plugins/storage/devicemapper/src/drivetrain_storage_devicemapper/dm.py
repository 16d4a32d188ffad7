"""The device mapper by ioctl on /dev/mapper/control; see linux/dm-ioctl.h.

The command ``dmsetup`` costs a process for each step and waits for udev, which makes links that
nobody here needs: ``/dev/dm-N`` comes from the kernel.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from drivetrain.errors import NotSupported

CONTROL = Path("/dev/mapper/control")
SECTOR = 512

_LIST, _CREATE, _REMOVE, _SUSPEND, _STATUS, _LOAD, _TABLE_STATUS, _LIST_VERSIONS, _MESSAGE = (
    2, 3, 4, 6, 7, 9, 12, 13, 14,
)  # fmt: skip
_SUSPENDED, _TABLE, _BUFFER_FULL, _DEFERRED = 1 << 1, 1 << 4, 1 << 8, 1 << 17
_HEADER = struct.Struct("=6Ii3IQ128s129s7x")
_SPECIFICATION = struct.Struct("=QQiI16s")
_SIZE = 1 << 14
#: Seconds that a removal waits for others who have just opened the device, such as udev.
_PATIENCE = 2.0


@dataclass(frozen=True, slots=True)
class Device:
    """A mapped device.

    Attributes:
        number: N of ``/dev/dm-N``.
        open_count: how many mounts, devices and processes use it.
        suspended: its writes wait.
    """

    number: int
    open_count: int
    suspended: bool

    @property
    def path(self) -> Path:
        """The device's node, which the kernel makes."""
        return Path(f"/dev/dm-{self.number}")


@dataclass(frozen=True, slots=True)
class Target:
    """The one target that a device is made of.

    Attributes:
        sectors: its length in units of 512 bytes.
        type: ``thin``, ``thin-pool``, ….
        parameters: as in dmsetup's tables.
    """

    sectors: int
    type: str
    parameters: str


def _call(command: int, name: str, *, flags: int = 0, uuid: str = "", data: bytes = b"",
          targets: int = 0, size: int = _SIZE) -> bytes:  # fmt: skip
    """Make one call and return the whole buffer that the kernel filled.

    Raises:
        OSError: what the kernel said; its log has more.
    """
    buffer = bytearray(size)
    numbers = (4, 0, 0, size, _HEADER.size, targets, 0, flags, 0, 0, 0)
    _HEADER.pack_into(buffer, 0, *numbers, name.encode(), uuid.encode())
    buffer[_HEADER.size : _HEADER.size + len(data)] = data
    descriptor = os.open(CONTROL, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(descriptor, 0xC138FD00 | command, buffer)
    except OSError as error:
        raise OSError(error.errno, f"device mapper: {name}: {error.strerror}") from error
    finally:
        os.close(descriptor)
    return bytes(buffer)


def require(*targets: str) -> None:
    """See that the kernel has the device mapper and its targets, loading modules if need be.

    Raises:
        NotSupported: names what is missing.
    """
    if not CONTROL.exists():
        _modprobe("dm_mod")
    if not CONTROL.exists():
        raise NotSupported(
            f"this kernel has no device mapper ({CONTROL} is missing): modprobe dm_mod, or boot a"
            " kernel with CONFIG_BLK_DEV_DM"
        )
    missing = set(targets) - _loaded_targets()
    if missing:
        _modprobe("dm_thin_pool")
        missing -= _loaded_targets()
    if missing:
        raise NotSupported(
            f"the device mapper of this kernel has no target {', '.join(sorted(missing))}: modprobe"
            " dm_thin_pool, or boot a kernel with CONFIG_DM_THIN_PROVISIONING"
        )


def _modprobe(module: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        subprocess.run(["modprobe", "-q", module], check=False, capture_output=True)


def _loaded_targets() -> set[str]:
    found = _call(_LIST_VERSIONS, "")
    place, names = _HEADER.unpack_from(found)[4], set()
    while True:  # struct dm_target_versions: where the next is, version, name
        (next_one,) = struct.unpack_from("=I", found, place)
        names.add(found[place + 16 :].split(b"\0", 1)[0].decode())
        if not next_one:
            return names
        place += next_one


def names() -> list[str]:
    """Return the names of all mapped devices of this host."""
    size, found = _SIZE, b""
    while not found or _HEADER.unpack_from(found)[7] & _BUFFER_FULL:
        size *= 4
        found = _call(_LIST, "", size=size)
    place, listed = _HEADER.unpack_from(found)[4], []
    while True:  # struct dm_name_list: number, where the next is, name
        number, next_one = struct.unpack_from("=QI", found, place)
        if not number:
            return listed
        listed.append(found[place + 12 :].split(b"\0", 1)[0].decode())
        if not next_one:
            return listed
        place += next_one


def find(name: str) -> Device | None:
    """Return a device by its name, or ``None``."""
    try:
        found = _call(_STATUS, name)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return None
        raise
    return _device(found)


def _device(buffer: bytes) -> Device:
    fields = _HEADER.unpack_from(buffer)
    # The number in a dev_t as the kernel packs it for user space.
    number = fields[10] & 0xFF | (fields[10] >> 12) & 0xFFF00
    return Device(number, fields[6], bool(fields[7] & _SUSPENDED))


def create(name: str, target: Target, uuid: str = "") -> Device:
    """Make a device and return it, ready to be used."""
    _call(_CREATE, name, uuid=uuid)
    try:
        reload(name, target)
    except BaseException:
        _call(_REMOVE, name)
        raise
    found = find(name)
    assert found is not None
    return found


def reload(name: str, target: Target) -> None:
    """Give a device a new table."""
    parameters = target.parameters.encode() + b"\0"
    specification = _SPECIFICATION.pack(0, target.sectors, 0, 0, target.type.encode())
    data = specification + parameters + bytes(-len(parameters) % 8)
    _call(_LOAD, name, data=data, targets=1)
    resume(name)


def suspend(name: str) -> None:
    """Let the writes of a device wait, after those under way and its file system's are done."""
    _call(_SUSPEND, name, flags=_SUSPENDED)


def resume(name: str) -> None:
    """Let a device go on, with its new table if it was given one."""
    _call(_SUSPEND, name)


def status(name: str, *, table: bool = False) -> Target:
    """Return what a device's target says of itself, or its table."""
    found = _call(_TABLE_STATUS, name, flags=_TABLE if table else 0)
    fields = _HEADER.unpack_from(found)
    start, flags = fields[4], fields[7]
    if fields[5] != 1 or flags & _BUFFER_FULL:
        raise OSError(errno.EINVAL, f"device mapper: {name} is not one target")
    _, sectors, _, _, kind = _SPECIFICATION.unpack_from(found, start)
    text = found[start + _SPECIFICATION.size :].split(b"\0", 1)[0].decode()
    return Target(sectors, kind.rstrip(b"\0").decode(), text)


def message(name: str, text: str) -> None:
    """Send a message to the target of a device."""
    _call(_MESSAGE, name, data=struct.pack("=Q", 0) + text.encode() + b"\0")


def remove(name: str, *, deferred: bool = False, patience: float = _PATIENCE) -> bool:
    """Remove a device; one that is gone is fine.

    Args:
        name: of the device.
        deferred: while it is in use, let the kernel do it when it no longer is.
        patience: seconds that it may be in use before that is believed.

    Returns:
        Whether it is gone; ``False``: it is in use.
    """
    deadline = time.monotonic() + patience
    while True:
        try:
            _call(_REMOVE, name, flags=_DEFERRED if deferred else 0)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return True
            if error.errno != errno.EBUSY:
                raise
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.02)
        else:
            return not deferred or find(name) is None
