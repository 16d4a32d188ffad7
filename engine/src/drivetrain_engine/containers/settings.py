"""What the daemon tells the containers service."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec


class ContainerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Defaults for containers that do not say otherwise.

    Attributes:
        default_runtime: a key of ``runtimes``.
        runtimes: path of each OCI runtime by the name users give.
        log_driver, log_opts: for containers that name no log driver, or this one.
        log_cache_driver: keeps a copy for ``logs`` where none of a container's drivers can read.
        default_ulimits: soft and hard limit by name, such as ``nofile``.
        shm_size: bytes of ``/dev/shm``.
        ipc_mode: ``private`` or ``shareable``.
        cgroupns_mode: ``private`` or ``host``; empty: private on cgroup v2, host on v1.
        cgroup_parent: below which each container has its cgroup.
        seccomp_profile: path of a profile; empty: the built-in one; ``unconfined``: none.
        no_new_privileges: set it for every container.
        init: run an init in every container.
        init_path: of the init; empty: the first that is found.
        stop_timeout: seconds between the stop signal and SIGKILL.
        host: the host's name, for logs.
    """

    default_runtime: str = "runc"
    runtimes: Mapping[str, str] = msgspec.field(default_factory=lambda: {"runc": "/usr/bin/runc"})
    log_driver: str = "json-file"
    log_opts: Mapping[str, str] = {}
    log_cache_driver: str = "local"
    default_ulimits: Mapping[str, tuple[int, int]] = {}
    shm_size: int = 64 << 20
    ipc_mode: str = "private"
    cgroupns_mode: str = ""
    cgroup_parent: str = "/engine"
    seccomp_profile: str = ""
    no_new_privileges: bool = False
    init: bool = False
    init_path: str = ""
    stop_timeout: int = 10
    host: str = ""
