"""Putting the OCI spec of a container together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from drivetrain_engine.containers.record import Record
from drivetrain_engine.containers.request.checks import find_init
from drivetrain_engine.containers.request.hostconfig import HostConfig
from drivetrain_engine.containers.settings import ContainerSettings
from drivetrain_engine.containers.spec.capabilities import effective_capabilities
from drivetrain_engine.containers.spec.cgroups import cgroup_path, cpu_quota, host_cgroups
from drivetrain_engine.containers.spec.devices import container_devices
from drivetrain_engine.containers.spec.mounts import default_mounts
from drivetrain_engine.containers.spec.seccomp import convert_profile, default_profile
from drivetrain_engine.containers.spec.security import Security, apparmor_enabled, parse_security
from drivetrain_engine.containers.spec.users import User

Json = dict[str, Any]

_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
INIT_PATH = "/sbin/docker-init"


class Place(msgspec.Struct, kw_only=True):
    """What is known about a container at its start and not before.

    Attributes:
        rootfs: where its root is mounted.
        user: the ids of its process.
        mounts: of the user, as OCI mounts, in the order they are to be made.
        network: path of its network namespace; ``None``: the host's.
        joined: namespaces of others to use, ``ipc`` or ``pid`` to its path.
        shm: directory of the host to mount at /dev/shm; empty: one of its own.
        environment: variables before the user's own, such as those of links.
    """

    rootfs: Path
    user: User
    mounts: Sequence[Json] = ()
    network: str | None = None
    joined: Mapping[str, str] = {}
    shm: str = ""
    environment: Sequence[str] = ()


def build_spec(record: Record, settings: ContainerSettings, place: Place) -> Json:
    """Return the OCI spec.

    Raises:
        EngineError: something asked for is gone from the host since creation.
    """
    host = record.host
    capabilities = effective_capabilities(host.cap_add, host.cap_drop, privileged=host.privileged)
    mounts = [*default_mounts(host, place.shm), *place.mounts]
    if host.init:
        mounts.append(
            {
                "destination": INIT_PATH,
                "type": "bind",
                "source": find_init(settings),
                "options": ["bind", "ro"],
            }
        )
    spec: Json = {
        "ociVersion": "1.0.2",
        "process": build_process(record, settings, place.user, place.environment, capabilities),
        "root": {"path": str(place.rootfs), "readonly": host.readonly_rootfs},
        "mounts": mounts,
        "linux": _linux(record, settings, place, capabilities),
    }
    if host.uts_mode != "host":
        spec["hostname"] = record.config.hostname
    if host.annotations:
        spec["annotations"] = host.annotations
    return spec


def environment(record: Record, before: Sequence[str] = ()) -> list[str]:
    """Return the variables of a container's processes; of several of one name the last holds."""
    config = record.config
    base = [_PATH, f"HOSTNAME={config.hostname}"]
    if config.tty:
        base.append("TERM=xterm")
    merged: dict[str, str] = {}
    for variable in (*base, *before, *(config.env or ())):
        name, equals, _ = variable.partition("=")
        if equals:
            merged[name] = variable
        else:
            merged.pop(name, None)  # "-e NAME" of a variable that the client does not have
    return list(merged.values())


def capability_sets(capabilities: Sequence[str], uid: int) -> Json:
    """Return the sets of a process; only root has any in effect, as in Docker."""
    held = list(capabilities)
    if uid:
        return {"bounding": held, "effective": [], "permitted": [], "inheritable": []}
    return {"bounding": held, "effective": held, "permitted": held}


def build_process(
    record: Record,
    settings: ContainerSettings,
    user: User,
    before: Sequence[str],
    capabilities: Sequence[str],
) -> Json:
    """Return the ``process`` object of the container's first process."""
    host, config = record.host, record.config
    security = parse_security(host.security_opt)
    arguments = [record.path, *record.args]
    if host.init:
        arguments = [INIT_PATH, "--", *arguments]
    process: Json = {
        "terminal": config.tty,
        "user": oci_user(user),
        "args": arguments,
        "env": environment(record, before),
        "cwd": config.working_dir or "/",
        "capabilities": capability_sets(capabilities, user.uid),
        "noNewPrivileges": no_new_privileges(security, settings),
        "rlimits": rlimits(host, settings),
    }
    if host.oom_score_adj:
        process["oomScoreAdj"] = host.oom_score_adj
    if config.tty and host.console_size and any(host.console_size):
        process["consoleSize"] = {"height": host.console_size[0], "width": host.console_size[1]}
    if (
        security.apparmor
        and security.apparmor != "unconfined"
        and apparmor_enabled()
        and not host.privileged
    ):
        process["apparmorProfile"] = security.apparmor
    return process


def oci_user(user: User) -> Json:
    """Return the ``user`` object of a process."""
    return {"uid": user.uid, "gid": user.gid, "additionalGids": user.groups}


def no_new_privileges(security: Security, settings: ContainerSettings) -> bool:
    """Tell whether a process may gain privileges by execve(2)."""
    if security.no_new_privileges is None:
        return settings.no_new_privileges
    return security.no_new_privileges


def rlimits(host: HostConfig, settings: ContainerSettings) -> list[Json]:
    """Return the limits of a container's processes."""
    limits = dict(settings.default_ulimits)
    for limit in host.ulimits or ():
        limits[limit.name] = (limit.soft, limit.hard)
    unlimited = 2**64 - 1
    return [
        {
            "type": "RLIMIT_" + name.upper(),
            "soft": unlimited if soft == -1 else soft,
            "hard": unlimited if hard == -1 else hard,
        }
        for name, (soft, hard) in sorted(limits.items())
    ]


def _linux(
    record: Record, settings: ContainerSettings, place: Place, capabilities: Sequence[str]
) -> Json:
    host = record.host
    devices, device_rules = container_devices(host)
    linux: Json = {
        "cgroupsPath": cgroup_path(record.id, host.cgroup_parent, settings.cgroup_parent),
        "namespaces": _namespaces(host, place),
        "resources": {"devices": device_rules, **_resources(host)},
        "sysctl": _sysctls(record, place),
        "rootfsPropagation": _propagation(place.mounts),
    }
    if devices:
        linux["devices"] = devices
    if not host.privileged or host.masked_paths:
        linux["maskedPaths"] = host.masked_paths or []
        linux["readonlyPaths"] = host.readonly_paths or []
    seccomp = _seccomp(host, settings, capabilities)
    if seccomp is not None:
        linux["seccomp"] = seccomp
    return linux


def _propagation(mounts: Sequence[Json]) -> str:
    """Return what the root needs so that a shared or slave bind of the user can be one."""
    options = {option for mount in mounts for option in mount.get("options", ())}
    if options & {"shared", "rshared"}:
        return "rshared"
    return "rslave" if options & {"slave", "rslave"} else "rprivate"


def _namespaces(host: HostConfig, place: Place) -> list[Json]:
    found: list[Json] = [{"type": "mount"}]
    if place.network is not None:
        found.append({"type": "network", "path": place.network})
    if host.uts_mode != "host":
        found.append({"type": "uts"})
    for kind, mode in (("ipc", host.ipc_mode), ("pid", host.pid_mode)):
        if kind in place.joined:
            found.append({"type": kind, "path": place.joined[kind]})
        elif mode != "host":
            found.append({"type": kind})
    if host.cgroupns_mode == "private":
        found.append({"type": "cgroup"})
    return found


def _sysctls(record: Record, place: Place) -> dict[str, str]:
    host, found = record.host, {}
    own_network = place.network is not None and not host.network_mode.startswith("container:")
    if own_network:
        # As in Docker: no capability is needed for low ports and for ping.
        found["net.ipv4.ip_unprivileged_port_start"] = "0"
        found["net.ipv4.ping_group_range"] = "0 2147483647"
    if record.config.domainname and host.uts_mode != "host":
        found["kernel.domainname"] = record.config.domainname
    for key, value in (host.sysctls or {}).items():
        found[key.replace("/", ".")] = value
    return found


def _seccomp(
    host: HostConfig, settings: ContainerSettings, capabilities: Sequence[str]
) -> Json | None:
    if host.privileged:
        return None
    chosen = parse_security(host.security_opt).seccomp or settings.seccomp_profile
    if chosen == "unconfined":
        return None
    if chosen in ("", "builtin", "default"):
        return default_profile(frozenset(capabilities))
    if chosen.startswith("/"):
        chosen = Path(chosen).read_text()
    return convert_profile(chosen, capabilities)


def _resources(host: HostConfig) -> Json:
    found: Json = {}
    memory: Json = {}
    if host.memory > 0:
        memory["limit"] = host.memory
        swap = host.memory_swap or host.memory * 2
        if host_cgroups().swap or swap == -1:
            memory["swap"] = swap
    if host.memory_reservation:
        memory["reservation"] = host.memory_reservation
    if host.memory_swappiness is not None:
        memory["swappiness"] = host.memory_swappiness
    cpu: Json = {}
    quota, period = cpu_quota(host)
    for key, value in (
        ("shares", host.cpu_shares), ("quota", quota), ("period", period),
        ("realtimePeriod", host.cpu_realtime_period),
        ("realtimeRuntime", host.cpu_realtime_runtime),
        ("cpus", host.cpuset_cpus), ("mems", host.cpuset_mems),
    ):  # fmt: skip
        if value:
            cpu[key] = value
    if memory:
        found["memory"] = memory
    if cpu:
        found["cpu"] = cpu
    if host.pids_limit:
        found["pids"] = {"limit": host.pids_limit}
    if block := _block_io(host):
        found["blockIO"] = block
    return found


def _block_io(host: HostConfig) -> Json:
    import os

    found: Json = {}
    if host.blkio_weight:
        found["weight"] = host.blkio_weight

    def numbers(path: str) -> Json:
        device = os.stat(path).st_rdev
        return {"major": os.major(device), "minor": os.minor(device)}

    if host.blkio_weight_device:
        found["weightDevice"] = [
            {**numbers(one.path), "weight": one.weight} for one in host.blkio_weight_device
        ]
    for key, entries in (
        ("throttleReadBpsDevice", host.blkio_device_read_bps),
        ("throttleWriteBpsDevice", host.blkio_device_write_bps),
        ("throttleReadIOPSDevice", host.blkio_device_read_iops),
        ("throttleWriteIOPSDevice", host.blkio_device_write_iops),
    ):
        if entries:
            found[key] = [{**numbers(one.path), "rate": one.rate} for one in entries]
    return found
