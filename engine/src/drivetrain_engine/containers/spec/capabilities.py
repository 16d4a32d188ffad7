"""Capabilities: names, Docker's default set, what ``--cap-add`` and ``--cap-drop`` make of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache

from drivetrain.errors import InvalidArgument, NotSupported


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


#: In the kernel's order: the index is the bit.
ALL = tuple(
    "CAP_" + name
    for name in _words("""
CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE
NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO
SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG
MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM
BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE
""")
)
DEFAULT = tuple(
    "CAP_" + name
    for name in _words("""
CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE
SYS_CHROOT KILL AUDIT_WRITE
""")
)


@cache
def available_capabilities() -> tuple[str, ...]:
    """Return what this process may give away: its bounding set."""
    with open("/proc/self/status") as file:
        match = re.search(r"^CapBnd:\s*([0-9a-f]+)", file.read(), re.MULTILINE)
    bits = int(match[1], 16) if match else 0
    return tuple(name for bit, name in enumerate(ALL) if bits >> bit & 1)


def _normalize(names: Sequence[str] | None, option: str) -> list[str]:
    found = []
    for given in names or ():
        name = given.strip().upper()
        if name != "ALL" and not name.startswith("CAP_"):
            name = "CAP_" + name
        if name != "ALL" and name not in ALL:
            raise InvalidArgument(f'invalid {option}: unknown capability: "{name}"')
        found.append(name)
    return found


def effective_capabilities(
    add: Sequence[str] | None, drop: Sequence[str] | None, *, privileged: bool = False
) -> tuple[str, ...]:
    """Return the capabilities that a container's root has.

    Raises:
        InvalidArgument: an unknown name.
        NotSupported: one that the engine itself lacks.
    """
    adds, drops = _normalize(add, "CapAdd"), _normalize(drop, "CapDrop")
    available = available_capabilities()
    if privileged:
        return available
    for name in adds:
        if name != "ALL" and name not in available:
            raise NotSupported(f"cannot add {name}: the engine itself does not have it here")
    if "ALL" in adds:
        return tuple(name for name in available if name not in drops)
    base = () if "ALL" in drops else tuple(name for name in DEFAULT if name in available)
    kept = [name for name in base if name not in drops]
    return tuple(kept + [name for name in adds if name not in kept])
