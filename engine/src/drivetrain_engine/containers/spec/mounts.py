"""The mounts that every container has, and the OCI form of those that users ask for."""

from __future__ import annotations

import os
from typing import Any

from drivetrain_engine.containers.record import MountPoint
from drivetrain_engine.containers.request.hostconfig import HostConfig

Json = dict[str, Any]


def _mount(destination: str, kind: str, source: str, *options: str) -> Json:
    return {"destination": destination, "type": kind, "source": source, "options": list(options)}


def default_mounts(host: HostConfig, shm: str) -> list[Json]:
    """Return /proc, /dev and what belongs into it, and /sys.

    Args:
        host: its modes and size of shared memory.
        shm: a directory to bind at /dev/shm; empty: a tmpfs of its own, if any.
    """
    access = "rw" if host.privileged else "ro"
    cgroup = "rw" if host.privileged else "ro"
    mounts = [
        _mount("/proc", "proc", "proc", "nosuid", "noexec", "nodev"),
        _mount("/dev", "tmpfs", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
        _mount("/dev/pts", "devpts", "devpts", "nosuid", "noexec", "newinstance",
               "ptmxmode=0666", "mode=0620", "gid=5"),
        _mount("/sys", "sysfs", "sysfs", "nosuid", "noexec", "nodev", access),
        _mount("/sys/fs/cgroup", "cgroup", "cgroup", cgroup, "nosuid", "noexec", "nodev"),
    ]  # fmt: skip
    if host.ipc_mode == "host":
        mounts.append(_mount("/dev/mqueue", "bind", "/dev/mqueue", "rbind"))
        mounts.append(_mount("/dev/shm", "bind", "/dev/shm", "rbind"))
        return mounts
    mounts.append(_mount("/dev/mqueue", "mqueue", "mqueue", "nosuid", "noexec", "nodev"))
    if shm:
        mounts.append(_mount("/dev/shm", "bind", shm, "rbind", "rprivate"))
    elif host.ipc_mode != "none":
        mounts.append(
            _mount("/dev/shm", "tmpfs", "shm", "nosuid", "noexec", "nodev", "mode=1777",
                   f"size={host.shm_size}")
        )  # fmt: skip
    return mounts


def user_mount(point: MountPoint, source: str) -> Json:
    """Return a mount point of a container as an OCI mount.

    Args:
        point: what was asked for.
        source: where its content is on the host; unused for tmpfs.
    """
    if point.type == "tmpfs":
        options = ["nosuid", "nodev", "noexec", *point.options]
        for word in ("suid", "dev", "exec"):
            if word in point.options:
                options.remove("no" + word)
        mode = 0o1777 if point.permissions is None else point.permissions
        options.append(f"mode={mode:o}")
        if point.size:
            options.append(f"size={point.size}")
        options.append("rw" if point.writable else "ro")
        return _mount(point.destination, "tmpfs", "tmpfs", *options)
    options = ["bind" if point.non_recursive else "rbind", point.propagation or "rprivate"]
    if not point.writable:
        # Nothing is mounted below a file, and crun 1.8 takes the target of rro for a directory.
        shallow = point.shallow_read_only or point.non_recursive or not os.path.isdir(source)
        options.append("ro" if shallow else "rro")
    return _mount(point.destination, "bind", source, *options)
