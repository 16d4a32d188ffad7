"""What to say of drivers that are asked for by name and are not installed."""

from __future__ import annotations

_KNOWN = {
    ("storage", "zfs"): (
        "There is none: the kernel module of ZFS is no part of Linux, and nothing here could test a"
        " driver with it. Use overlay2 on a dataset (OpenZFS 2.2 or newer), or on an ext4 in a"
        " zvol; --storage-driver overlay2"
    ),
    ("storage", "aufs"): (
        "There is none: aufs is no part of Linux, and distributions have dropped it. Use overlay2,"
        " or fuse-overlayfs where the kernel has no overlayfs"
    ),
}


def is_known(family: str, name: str) -> bool:
    """Tell whether a name is meant, though there is no such driver: no misspelling of another."""
    return (family, name) in _KNOWN


def advice(family: str, name: str) -> str:
    """Return what somebody can do who asked for a driver that is not installed."""
    return _KNOWN.get((family, name), f"Try: pip install drivetrain-{family}-{name}")
