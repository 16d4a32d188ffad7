"""Mounting, unmounting and reading the table of mounts.

System calls only; a command is run for file systems in user space, which are programs.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from drivetrain.host import libc
from drivetrain.storage import TARGET, Mount

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_SYNCHRONOUS, MS_REMOUNT, MS_DIRSYNC, MS_NOSYMFOLLOW = 16, 32, 128, 256
MS_NOATIME, MS_NODIRATIME, MS_BIND, MS_REC = 1024, 2048, 4096, 16384
MS_SILENT, MS_UNBINDABLE, MS_PRIVATE, MS_SLAVE, MS_SHARED = (
    1 << 15,
    1 << 17,
    1 << 18,
    1 << 19,
    1 << 20,
)
MS_RELATIME, MS_STRICTATIME, MS_LAZYTIME = 1 << 21, 1 << 24, 1 << 25
MNT_DETACH, UMOUNT_NOFOLLOW = 2, 8

# Option, flag, and whether it sets (else clears) it.
_FLAGS: dict[str, tuple[int, bool]] = {
    "ro": (MS_RDONLY, True), "rw": (MS_RDONLY, False),
    "nosuid": (MS_NOSUID, True), "suid": (MS_NOSUID, False),
    "nodev": (MS_NODEV, True), "dev": (MS_NODEV, False),
    "noexec": (MS_NOEXEC, True), "exec": (MS_NOEXEC, False),
    "sync": (MS_SYNCHRONOUS, True), "async": (MS_SYNCHRONOUS, False),
    "dirsync": (MS_DIRSYNC, True), "nosymfollow": (MS_NOSYMFOLLOW, True),
    "noatime": (MS_NOATIME, True), "atime": (MS_NOATIME, False),
    "nodiratime": (MS_NODIRATIME, True), "diratime": (MS_NODIRATIME, False),
    "relatime": (MS_RELATIME, True), "norelatime": (MS_RELATIME, False),
    "strictatime": (MS_STRICTATIME, True), "nostrictatime": (MS_STRICTATIME, False),
    "lazytime": (MS_LAZYTIME, True), "nolazytime": (MS_LAZYTIME, False),
    "silent": (MS_SILENT, True), "loud": (MS_SILENT, False),
    "remount": (MS_REMOUNT, True), "bind": (MS_BIND, True), "rbind": (MS_BIND | MS_REC, True),
}  # fmt: skip
_PROPAGATION = {
    "private": MS_PRIVATE, "slave": MS_SLAVE, "shared": MS_SHARED, "unbindable": MS_UNBINDABLE,
    "rprivate": MS_PRIVATE | MS_REC, "rslave": MS_SLAVE | MS_REC,
    "rshared": MS_SHARED | MS_REC, "runbindable": MS_UNBINDABLE | MS_REC,
}  # fmt: skip
_IGNORED = frozenset({"defaults", "auto", "noauto", "user", "nouser", "nofail", "_netdev", ""})
# What a bind mount takes from its source unless it is remounted.
_PER_MOUNT = (
    MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_NOATIME | MS_NODIRATIME | MS_RELATIME
    | MS_NOSYMFOLLOW
)  # fmt: skip
_PAGE = os.sysconf("SC_PAGESIZE")
_ATTRIBUTES = {
    MS_RDONLY: 0x1, MS_NOSUID: 0x2, MS_NODEV: 0x4, MS_NOEXEC: 0x8,
    MS_NODIRATIME: 0x80, MS_NOSYMFOLLOW: 0x200000,
}  # fmt: skip
_AT_RECURSIVE = 0x8000
_AT_FDCWD = -100


@dataclass(frozen=True, slots=True)
class ParsedOptions:
    """Mount options, taken apart.

    Attributes:
        flags: for mount(2).
        propagation: each is a call of mount(2) of its own.
        data: what is left, for the file system.
    """

    flags: int
    propagation: tuple[int, ...]
    data: str


def parse_mount_options(options: Sequence[str]) -> ParsedOptions:
    """Take options as of mount(8) apart; a later one wins over an earlier."""
    flags = 0
    propagation: list[int] = []
    data: list[str] = []
    for option in options:
        if option in _FLAGS:
            flag, on = _FLAGS[option]
            flags = flags | flag if on else flags & ~flag
        elif option in _PROPAGATION:
            propagation.append(_PROPAGATION[option])
        elif option not in _IGNORED:
            data.append(option)
    return ParsedOptions(flags, tuple(propagation), ",".join(data))


def mount(mounts: Sequence[Mount], target: Path) -> None:
    """Mount one after the other at ``target``; after an error none of them is left.

    Raises:
        OSError: what the kernel said, or the program of a ``fuse.…`` type, with source and target.
    """
    done = 0
    try:
        for entry in mounts:
            done += _mount_one(_placed(entry, target), target)
    except BaseException:
        for _ in range(done):
            libc.umount2(os.fsencode(target), MNT_DETACH | UMOUNT_NOFOLLOW)
        raise


def _placed(entry: Mount, target: Path) -> Mount:
    """Put the target where the mount names it; every other path begins with a slash."""

    def place(text: str) -> str:
        before, equals, value = text.rpartition("=")
        if value.startswith(TARGET):
            value = value.replace(TARGET, str(target), 1)
        return before + equals + value

    if TARGET not in f"{entry.source} {entry.options}":
        return entry
    return Mount(entry.type, place(entry.source), tuple(map(place, entry.options)))


def _mount_fuse(entry: Mount, target: Path) -> int:
    """Run the program of a FUSE file system; it returns when the mount is made.

    It stays behind to serve the mount, in a session of its own, and ends when that is gone.
    """
    program = entry.type.removeprefix("fuse.")
    options = ["-o", ",".join(entry.options)] if entry.options else []
    try:
        done = subprocess.run(
            [program, *options, str(target)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=60,
            start_new_session=True,
        )
    except FileNotFoundError as error:
        raise OSError(errno.ENOENT, f"mount {program} at {target}: no such program") from error
    if done.returncode != 0:
        reason = done.stderr.decode(errors="replace").strip() or f"exit code {done.returncode}"
        raise OSError(errno.EIO, f"mount {program} at {target}: {reason}")
    return 1


def _mount_one(entry: Mount, target: Path) -> int:
    """Make one mount and return how many entries it added to the table."""
    if entry.type.startswith("fuse."):
        return _mount_fuse(entry, target)
    parsed = parse_mount_options(entry.options)
    flags, data = parsed.flags, os.fsencode(parsed.data)
    if entry.type in ("bind", "rbind") and not flags & MS_REMOUNT:
        flags |= MS_BIND | (MS_REC if entry.type == "rbind" else 0)
    place = os.fsencode(target)
    source = os.fsencode(entry.source)
    kind = b"" if flags & MS_BIND else os.fsencode(entry.type)
    if flags & MS_BIND and not flags & MS_REMOUNT:
        libc.mount(source, place, b"", flags & (MS_BIND | MS_REC), b"")
    elif len(data) >= _PAGE and entry.type == "overlay":
        _mount_overlay(entry, flags, parsed.data, target)
    else:
        libc.mount(source, place, kind, flags, data)
    added = 0 if flags & MS_REMOUNT else 1
    try:
        if flags & MS_BIND and not flags & MS_REMOUNT and flags & _PER_MOUNT:
            _restrict(target, flags)
        for change in parsed.propagation:
            libc.mount(b"", place, b"", change, b"")
    except BaseException:
        if added:
            libc.umount2(place, MNT_DETACH | UMOUNT_NOFOLLOW)
        raise
    return added


def _restrict(target: Path, flags: int) -> None:
    """Set flags on a bind mount, which takes none at its birth; recursively for ``rbind``."""
    attributes = 0
    for flag, attribute in _ATTRIBUTES.items():
        attributes |= attribute if flags & flag else 0
    try:
        _set_attributes(target, attributes, recursive=bool(flags & MS_REC))
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
        # Linux before 5.12: only the top can be changed.
        kept = _current_flags(target)
        wanted = MS_REMOUNT | MS_BIND | kept | flags & _PER_MOUNT
        libc.mount(b"", os.fsencode(target), b"", wanted, b"")


def _set_attributes(target: Path, attributes: int, *, recursive: bool) -> None:
    class Attributes(ctypes.Structure):
        _fields_ = (
            ("attr_set", ctypes.c_uint64),
            ("attr_clr", ctypes.c_uint64),
            ("propagation", ctypes.c_uint64),
            ("userns_fd", ctypes.c_uint64),
        )

    value = Attributes(attributes, 0, 0, 0)
    libc.syscall(
        f"restrict mount {target}",
        libc.MOUNT_SETATTR,
        ctypes.c_int(_AT_FDCWD),
        ctypes.c_char_p(os.fsencode(target)),
        ctypes.c_uint(_AT_RECURSIVE if recursive else 0),
        ctypes.byref(value),
        ctypes.c_size_t(ctypes.sizeof(value)),
    )


def _current_flags(target: Path) -> int:
    """Return the flags a mount has now; a remount that forgets one would clear it."""
    found = os.statvfs(target).f_flag
    flags = 0
    for bit, flag in (
        (os.ST_RDONLY, MS_RDONLY), (os.ST_NOSUID, MS_NOSUID), (os.ST_NODEV, MS_NODEV),
        (os.ST_NOEXEC, MS_NOEXEC), (os.ST_NOATIME, MS_NOATIME),
        (os.ST_NODIRATIME, MS_NODIRATIME), (os.ST_RELATIME, MS_RELATIME),
    ):  # fmt: skip
        flags |= flag if found & bit else 0
    return flags


def _mount_overlay(entry: Mount, flags: int, data: str, target: Path) -> None:
    """Mount an overlay whose options do not fit in the one page that mount(2) takes.

    The newer calls take one option at a time, and since Linux 6.5 one lower directory.
    """
    attributes = 0
    for flag, attribute in _ATTRIBUTES.items():
        attributes |= attribute if flags & flag else 0
    context = libc.syscall("open overlay", libc.FSOPEN, ctypes.c_char_p(b"overlay"), 1)
    try:
        _configure(context, "source", entry.source)
        for option in re.split(r"(?<!\\),", data):
            key, equals, value = option.partition("=")
            if key == "lowerdir":
                for lower in re.split(r"(?<!\\):", value):
                    _configure(context, "lowerdir+", lower.replace("\\:", ":"))
            else:
                _configure(context, key, value if equals else None)
        libc.syscall(
            f"mount overlay at {target}", libc.FSCONFIG, context, 6, None, None, 0
        )  # FSCONFIG_CMD_CREATE
        mounted = libc.syscall(
            f"mount overlay at {target}", libc.FSMOUNT, context, 1, ctypes.c_uint(attributes)
        )
    finally:
        os.close(context)
    try:
        libc.syscall(
            f"mount overlay at {target}", libc.MOVE_MOUNT, mounted, ctypes.c_char_p(b""),
            _AT_FDCWD, ctypes.c_char_p(os.fsencode(target)), 4,
        )  # fmt: skip  # MOVE_MOUNT_F_EMPTY_PATH
    finally:
        os.close(mounted)


def _configure(context: int, key: str, value: str | None) -> None:
    command = 0 if value is None else 1  # FSCONFIG_SET_FLAG, FSCONFIG_SET_STRING
    text = None if value is None else ctypes.c_char_p(os.fsencode(value))
    name = ctypes.c_char_p(os.fsencode(key))
    libc.syscall(
        f"set overlay option {key}={value}", libc.FSCONFIG, context, command, name, text, 0
    )


def bind(source: Path, target: Path, read_only: bool = False) -> None:
    """Bind ``source``, with all that is mounted below it, at ``target``.

    Args:
        source: a directory or file.
        target: an existing directory or file.
        read_only: for the mounts below it too (since Linux 5.12).
    """
    mount((Mount("rbind", str(source), ("rbind", "ro" if read_only else "rw")),), target)


def unmount(target: Path, detach: bool = True) -> None:
    """Unmount everything that is mounted at ``target``; nothing mounted there is fine.

    Args:
        target: the place; when it is a symbolic link, it is not followed.
        detach: take it out of sight now even when it is in use.

    Raises:
        OSError: EBUSY without ``detach``.
    """
    place = os.fsencode(target)
    flags = UMOUNT_NOFOLLOW | (MNT_DETACH if detach else 0)
    while True:
        try:
            libc.umount2(place, flags)
        except OSError as error:
            # EINVAL: not a mount point, or no longer one.
            if error.errno in (errno.EINVAL, errno.ENOENT, errno.ENOTDIR):
                return
            raise


def make_private(path: Path) -> None:
    """Make ``path`` a mount point of its own whose mounts reach no other namespace.

    Without it, mounts below a shared mount are copied into every namespace made meanwhile, and
    keep devices and directories busy there.
    """
    if not is_mounted(path):
        libc.mount(os.fsencode(path), os.fsencode(path), b"", MS_BIND, b"")
    libc.mount(b"", os.fsencode(path), b"", MS_PRIVATE, b"")


def is_mounted(path: Path) -> bool:
    """Tell whether something is mounted exactly at ``path``."""
    place = os.fsdecode(os.path.realpath(path.parent) + "/" + path.name) if path.name else "/"
    place = os.path.normpath(place)
    return any(entry.target == place for entry in mount_table())


@dataclass(frozen=True, slots=True)
class MountEntry:
    """One line of /proc/self/mountinfo; see proc_pid_mountinfo(5).

    Attributes:
        id, parent: of the mount, and of what it is mounted on.
        device: ``major:minor``.
        root: the directory of the file system that is the root of the mount.
        target: where it is mounted.
        options: per-mount options.
        propagation: ``shared:1`` and the like; empty when private.
        type: of the file system.
        source: device or free name.
        super_options: options of the file system.
    """

    id: int
    parent: int
    device: str
    root: str
    target: str
    options: tuple[str, ...]
    propagation: tuple[str, ...]
    type: str
    source: str
    super_options: tuple[str, ...]


_OCTAL = re.compile(rb"\\([0-7]{3})")


def _decode(field: bytes) -> str:
    if b"\\" in field:
        field = _OCTAL.sub(lambda match: bytes([int(match[1], 8)]), field)
    return os.fsdecode(field)


def parse_mount_table(text: bytes) -> list[MountEntry]:
    """Read the format of /proc/PID/mountinfo."""
    table = []
    for line in text.splitlines():
        fields = line.split(b" ")
        dash = fields.index(b"-", 6)
        kind, source, super_options = (*fields[dash + 1 :], b"", b"")[:3]
        table.append(
            MountEntry(
                id=int(fields[0]),
                parent=int(fields[1]),
                device=fields[2].decode(),
                root=_decode(fields[3]),
                target=_decode(fields[4]),
                options=tuple(fields[5].decode().split(",")),
                propagation=tuple(field.decode() for field in fields[6:dash] if field),
                type=_decode(kind),
                source=_decode(source),
                super_options=tuple(_decode(super_options).split(",")),
            )
        )
    return table


def mount_table() -> list[MountEntry]:
    """Return all mounts that this thread sees, in the order they were made."""
    with open("/proc/thread-self/mountinfo", "rb") as file:
        return parse_mount_table(file.read())
