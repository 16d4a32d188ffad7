"""The driver."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Sequence
from pathlib import Path

from drivetrain import hookimpl
from drivetrain.errors import (
    FailedPrecondition,
    InvalidArgument,
    NotSupported,
    Unavailable,
)
from drivetrain.host import mounts
from drivetrain.host.limits import IMAGE, Limits
from drivetrain.options import Option, Options
from drivetrain.storage import Mount, Usage

_REMOVING = ".removing-"
#: Where the file system in a sparse file is mounted that limits a volume.
_LIMITED = "limited"
_NETWORK_TYPES = ("nfs", "cifs", "smb")


class Local:
    """Directories, and whatever can be mounted on them."""

    def __init__(self) -> None:
        self._root = Path()

    @hookimpl
    def volume_options(self) -> Sequence[Option]:
        """Return Docker's options for its local driver."""
        return (
            Option("type", help="file system to mount: tmpfs, nfs, ext4, …, none for a bind mount"),
            Option("device", help="what to mount: a device, a directory, SERVER:/PATH, or tmpfs"),
            Option("o", help="mount options, as for mount -o: size=100m,uid=1000 or bind,ro"),
            Option("size", "size", help="limit in bytes of a plain directory, or of a tmpfs"),
        )

    @hookimpl
    def volume_open(self, root: Path) -> bool:
        """Remove what a crash left of volumes under removal."""
        self._root = root
        self._limits = Limits(root)
        for entry in root.glob(_REMOVING + "*"):
            shutil.rmtree(entry)
        return True

    @hookimpl
    def volume_create(self, name: str, options: Options) -> bool:
        """Make the directory; what is to be mounted there is only checked."""
        _check(options)
        folder = self._root / name
        folder.mkdir(mode=0o701, exist_ok=True)
        folder.chmod(0o701)
        data = folder / "_data"
        if not data.exists() and not self._limits.in_image(folder):
            data.mkdir()
            data.chmod(0o755)
            if _is_limited(options):
                self._limit(name, folder, options.integer("size"))
        return True

    def _limit(self, name: str, folder: Path, size: int) -> None:
        try:
            if self._limits.apply(folder, size, content=("_data",)):
                (folder / _LIMITED).mkdir(mode=0o711)
        except BaseException:
            self.volume_remove(name)
            raise

    def _data(self, name: str) -> Path:
        """Return where the content of a volume is, or will be when it is mounted."""
        folder = self._root / name
        inside = folder / _LIMITED if self._limits.in_image(folder) else folder
        return inside / "_data"

    @hookimpl
    def volume_mount(self, name: str, options: Options) -> Path:
        """Mount ``device``, unless that is already so."""
        folder, data = self._root / name, self._data(name)
        if data.parent != folder and not mounts.is_mounted(data.parent):
            mounts.mount(self._limits.mounts(folder), data.parent)
        if data.is_symlink() or not data.is_dir():
            raise FailedPrecondition(
                f"volume {name}: {data} is no longer a directory; somebody changed the data root"
            )
        if options.string("device") and not mounts.is_mounted(data):
            _mount(name, options, data)
        return data

    @hookimpl
    def volume_unmount(self, name: str, options: Options) -> bool:
        """Unmount what was mounted."""
        if options.string("device"):
            mounts.unmount(self._root / name / "_data")
        self._unmount_image(self._root / name)
        return True

    def _unmount_image(self, folder: Path) -> None:
        if self._limits.in_image(folder):
            mounts.unmount(folder / _LIMITED)
            self._limits.unmounted(folder)

    @hookimpl
    def volume_remove(self, name: str) -> bool:
        """Remove the directory; out of the way first, so that a crash leaves no half volume."""
        folder = self._root / name
        mounts.unmount(folder / "_data")
        self._unmount_image(folder)
        if folder.exists():
            self._limits.lift(folder)
        doomed = self._root / (_REMOVING + name)
        try:
            folder.rename(doomed)
        except FileNotFoundError:
            return True
        shutil.rmtree(doomed)
        return True

    @hookimpl
    def volume_path(self, name: str) -> Path:
        """Return where the volume is or will be mounted."""
        return self._data(name)

    @hookimpl
    def volume_usage(self, name: str, options: Options) -> Usage | None:
        """Count what has a limit, or is a tmpfs; plain directories are counted by the engine."""
        folder, data = self._root / name, self._data(name)
        if data.parent != folder:
            return Usage((folder / IMAGE).stat().st_blocks * 512, 0)
        tmpfs = options.string("type") == "tmpfs" and mounts.is_mounted(data)
        if not tmpfs and not _is_limited(options):
            return None
        # in a project with a limit, the file system tells its figures
        found = os.statvfs(data)
        used = (found.f_blocks - found.f_bfree) * found.f_frsize
        return Usage(used, found.f_files - found.f_ffree)


def _check(options: Options) -> None:
    """Check that the options make sense together."""
    kind, device = options.string("type"), options.string("device")
    if kind and not device:
        raise InvalidArgument('missing required option: "device" is needed with "type"')
    if device and not kind:
        raise InvalidArgument('missing required option: "type" is needed with "device"')
    if options.string("o") and not device:
        raise InvalidArgument('missing required options: "type" and "device" are needed with "o"')
    if options.integer("size") and device and kind != "tmpfs":
        raise NotSupported(
            f"option size: what is mounted from {device} has the size that it has; leave out type "
            "and device for a directory with a limit, or use type=tmpfs"
        )


def _is_limited(options: Options) -> bool:
    return bool(options.integer("size")) and not options.string("device")


def _mount(name: str, options: Options, target: Path) -> None:
    kind, device = options.string("type"), options.string("device")
    words = [word for word in options.string("o").split(",") if word]
    if options.integer("size"):
        words.append(f"size={options.integer('size')}")
    if kind.startswith(_NETWORK_TYPES):
        if not any(word.startswith(("addr=", "ip=")) for word in words) and _server(device):
            words.append(f"addr={_server(device)}")
        words = [_resolved(name, word) for word in words]
    try:
        mounts.mount((Mount(kind, device, tuple(words)),), target)
    except OSError as error:
        # the options stay out of the message: they may hold a password
        raise Unavailable(
            f"failed to mount local volume {name}: mount {device} ({kind}): {error.strerror}; "
            "check the volume's options and that the device is there"
        ) from None


def _server(device: str) -> str:
    """Return the host in ``//HOST/SHARE``, ``HOST:/PATH`` or ``[HOST]:/PATH``, or nothing."""
    if device.startswith("//"):
        return device[2:].partition("/")[0]
    host, separator, _ = device.rpartition(":/")
    return host.strip("[]") if separator else ""


def _resolved(name: str, word: str) -> str:
    """Return ``addr=HOST`` with the address, which the kernel does not look up itself."""
    key, _, host = word.partition("=")
    if key not in ("addr", "ip") or not host:
        return word
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise Unavailable(
            f"volume {name}: cannot resolve {host}: {error}; check the option o"
        ) from error
    return f"{key}={found[0][4][0]}"
