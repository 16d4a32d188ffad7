"""``HostConfig`` of the API, with its resources."""

from __future__ import annotations

from typing import Any

import msgspec

from drivetrain_engine.containers.request.config import Api


class LogConfig(Api):
    """Log driver and its options; an empty type is the daemon's default."""

    type: str = ""
    config: dict[str, str] | None = None


class RestartPolicy(Api):
    """When to start a container again that has ended."""

    name: str = ""
    maximum_retry_count: int = 0


class Ulimit(Api):
    """A resource limit of processes, as of getrlimit(2), -1: none."""

    name: str = ""
    soft: int = 0
    hard: int = 0


class DeviceMapping(Api):
    """A device of the host in the container."""

    path_on_host: str = ""
    path_in_container: str = ""
    cgroup_permissions: str = ""


class WeightDevice(Api):
    """Relative weight of block I/O on a device."""

    path: str = ""
    weight: int = 0


class ThrottleDevice(Api):
    """Bytes or operations a second on a device."""

    path: str = ""
    rate: int = 0


class Resources(Api):
    """Limits; 0 and ``None``: none of their own. What ``update`` may change."""

    cpu_shares: int = 0
    memory: int = 0
    nano_cpus: int = 0
    cgroup_parent: str = ""
    blkio_weight: int = 0
    blkio_weight_device: list[WeightDevice] | None = None
    blkio_device_read_bps: list[ThrottleDevice] | None = None
    blkio_device_write_bps: list[ThrottleDevice] | None = None
    blkio_device_read_iops: list[ThrottleDevice] | None = msgspec.field(
        default=None, name="BlkioDeviceReadIOps"
    )
    blkio_device_write_iops: list[ThrottleDevice] | None = msgspec.field(
        default=None, name="BlkioDeviceWriteIOps"
    )
    cpu_period: int = 0
    cpu_quota: int = 0
    cpu_realtime_period: int = 0
    cpu_realtime_runtime: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    devices: list[DeviceMapping] | None = None
    device_cgroup_rules: list[str] | None = None
    device_requests: list[dict[str, Any]] | None = None
    kernel_memory: int = 0
    kernel_memory_tcp: int = msgspec.field(default=0, name="KernelMemoryTCP")
    memory_reservation: int = 0
    memory_swap: int = 0
    memory_swappiness: int | None = None
    oom_kill_disable: bool | None = None
    pids_limit: int | None = None
    ulimits: list[Ulimit] | None = None


class HostConfig(Resources):
    """How a container is tied to the host."""

    binds: list[str] | None = None
    container_id_file: str = msgspec.field(default="", name="ContainerIDFile")
    log_config: LogConfig = msgspec.field(default_factory=LogConfig)
    extra_log_configs: list[LogConfig] | None = None
    network_mode: str = ""
    port_bindings: dict[str, list[dict[str, str]] | None] | None = None
    restart_policy: RestartPolicy = msgspec.field(default_factory=RestartPolicy)
    auto_remove: bool = False
    volume_driver: str = ""
    volumes_from: list[str] | None = None
    mounts: list[dict[str, Any]] | None = None
    console_size: list[int] | None = None
    annotations: dict[str, str] | None = None
    cap_add: list[str] | None = None
    cap_drop: list[str] | None = None
    cgroupns_mode: str = ""
    dns: list[str] | None = None
    dns_options: list[str] | None = None
    dns_search: list[str] | None = None
    extra_hosts: list[str] | None = None
    group_add: list[str] | None = None
    ipc_mode: str = ""
    cgroup: str = ""
    links: list[str] | None = None
    oom_score_adj: int = 0
    pid_mode: str = ""
    privileged: bool = False
    publish_all_ports: bool = False
    readonly_rootfs: bool = False
    security_opt: list[str] | None = None
    storage_opt: dict[str, str] | None = None
    storage_driver: str = ""
    tmpfs: dict[str, str] | None = None
    uts_mode: str = msgspec.field(default="", name="UTSMode")
    userns_mode: str = ""
    shm_size: int = 0
    sysctls: dict[str, str] | None = None
    runtime: str = ""
    isolation: str = ""
    init: bool | None = None
    masked_paths: list[str] | None = None
    readonly_paths: list[str] | None = None


_OMITTED = (
    "Annotations", "Mounts", "StorageOpt", "StorageDriver", "Tmpfs", "Sysctls", "Init",
    "KernelMemory", "KernelMemoryTCP", "ExtraLogConfigs",
)  # fmt: skip
_LISTS = (
    "BlkioWeightDevice", "BlkioDeviceReadBps", "BlkioDeviceWriteBps", "BlkioDeviceReadIOps",
    "BlkioDeviceWriteIOps", "Devices", "Ulimits", "Dns", "DnsOptions", "DnsSearch",
)  # fmt: skip


def echo(host: HostConfig) -> dict[str, Any]:
    """Return the host config as ``inspect`` shows it."""
    document: dict[str, Any] = msgspec.to_builtins(host)
    for key in _OMITTED:
        if document[key] is None or (document[key] in (0, "", [], {}) and key != "Init"):
            del document[key]
    for key in _LISTS:
        document[key] = document[key] or []
    document["PortBindings"] = document["PortBindings"] or {}
    document["ConsoleSize"] = document["ConsoleSize"] or [0, 0]
    return document
