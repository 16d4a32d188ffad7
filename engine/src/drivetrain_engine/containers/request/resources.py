"""Limits: what is accepted, and what this host cannot honour."""

from __future__ import annotations

import os

from drivetrain.errors import InvalidArgument
from drivetrain_engine.containers.request.hostconfig import Resources, Ulimit
from drivetrain_engine.containers.spec.cgroups import host_cgroups

_MINIMUM_MEMORY = 6 << 20
_ULIMITS = (
    "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc",
    "rss", "rtprio", "rttime", "sigpending", "stack",
)  # fmt: skip


def check_resources(given: Resources, *, update: bool) -> list[str]:
    """Check limits, and take out those that the host cannot set.

    Args:
        given: changed in place.
        update: they are for a container that exists.

    Returns:
        Warnings in Docker's words.

    Raises:
        InvalidArgument: likewise.
    """
    warnings = _check_memory(given, update=update)
    warnings += _check_cpu(given)
    warnings += _check_others(given)
    for limit in given.ulimits or ():
        _check_ulimit(limit)
    return warnings


def _check_memory(given: Resources, *, update: bool) -> list[str]:
    warnings = []
    cgroups = host_cgroups()
    if given.memory and not cgroups.has("memory"):
        warnings.append(
            "Your kernel does not support memory limit capabilities or the cgroup is not mounted. "
            "Limitation discarded."
        )
        given.memory, given.memory_swap = 0, -1
    if given.memory > 0 and given.memory_swap != -1 and not cgroups.swap:
        warnings.append(
            "Your kernel does not support swap limit capabilities or the cgroup is not mounted. "
            "Memory limited without swap."
        )
        given.memory_swap = -1
    if given.memory and given.memory < _MINIMUM_MEMORY:
        raise InvalidArgument("Minimum memory limit allowed is 6MB")
    if given.memory > 0 and 0 < given.memory_swap < given.memory:
        raise InvalidArgument(
            "Minimum memoryswap limit should be larger than memory limit, see usage"
        )
    if not given.memory and given.memory_swap > 0 and not update:
        raise InvalidArgument(
            "You should always set the Memory limit when using Memoryswap limit, see usage"
        )
    if given.memory_swappiness is not None and given.memory_swappiness != -1:
        if not 0 <= given.memory_swappiness <= 100:
            raise InvalidArgument(
                f"Invalid value: {given.memory_swappiness}, valid memory swappiness range is 0-100"
            )
        if cgroups.version == 2:
            warnings.append(
                "Your kernel does not support memory swappiness capabilities or the cgroup is not "
                "mounted. Memory swappiness discarded."
            )
            given.memory_swappiness = None
    if given.memory_swappiness == -1:
        given.memory_swappiness = None
    if given.memory_reservation and given.memory_reservation < _MINIMUM_MEMORY:
        raise InvalidArgument("Minimum memory reservation allowed is 6MB")
    if 0 < given.memory < given.memory_reservation:
        raise InvalidArgument(
            "Minimum memory limit can not be less than memory reservation limit, see usage"
        )
    if given.oom_kill_disable:
        warnings.append("OomKillDisable is not supported: a container could hang. Discarded.")
        given.oom_kill_disable = None
    if given.kernel_memory or given.kernel_memory_tcp:
        warnings.append("Specifying a kernel memory limit has no effect on current kernels.")
        given.kernel_memory = given.kernel_memory_tcp = 0
    return warnings


def _check_cpu(given: Resources) -> list[str]:
    warnings: list[str] = []
    cpus = os.cpu_count() or 1
    if given.nano_cpus:
        if given.cpu_period:
            raise InvalidArgument(
                "Conflicting options: Nano CPUs and CPU Period cannot both be set."
            )
        if given.cpu_quota:
            raise InvalidArgument(
                "Conflicting options: Nano CPUs and CPU Quota cannot both be set."
            )
        if not 0 < given.nano_cpus <= cpus * 10**9:
            raise InvalidArgument(
                f"range of CPUs is from 0.01 to {cpus}.00, as there are only {cpus} CPUs available"
            )
    if given.cpu_period and not 1000 <= given.cpu_period <= 1_000_000:
        raise InvalidArgument(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)"
        )
    if 0 < given.cpu_quota < 1000:
        raise InvalidArgument("CPU cfs quota can not be less than 1ms (i.e. 1000)")
    if given.cpu_shares < 0:
        raise InvalidArgument(f"invalid CPU shares ({given.cpu_shares}): cannot be negative")
    if (given.nano_cpus or given.cpu_quota) and not host_cgroups().quota:
        warnings.append(
            "Your kernel does not support CPU cfs quota or the cgroup is not mounted. Quota "
            "discarded."
        )
        given.nano_cpus = given.cpu_quota = given.cpu_period = 0
    _check_set("CPUs", "cpus", given.cpuset_cpus)
    _check_set("memory nodes", "mems", given.cpuset_mems)
    return warnings


def _check_set(what: str, name: str, text: str) -> None:
    if not text:
        return
    try:
        wanted = parse_set(text)
    except ValueError:
        raise InvalidArgument(f"Invalid value {text} for cpuset {name}") from None
    available = host_cgroups().available(name)
    if available and not wanted <= parse_set(available):
        raise InvalidArgument(
            f"Requested {what} are not available - requested {text}, available: {available}"
        )


def parse_set(text: str) -> set[int]:
    """Return the numbers of ``0-3,7``.

    Raises:
        ValueError: it is no such list.
    """
    found: set[int] = set()
    for part in text.strip().split(","):
        first, dash, last = part.partition("-")
        found.update(range(int(first), int(last if dash else first) + 1))
    return found


def _check_others(given: Resources) -> list[str]:
    warnings = []
    cgroups = host_cgroups()
    if given.pids_limit is not None and given.pids_limit <= 0:
        given.pids_limit = None
    if given.pids_limit and not cgroups.has("pids"):
        warnings.append(
            "Your kernel does not support PIDs limit capabilities or the cgroup is not mounted. "
            "PIDs limit discarded."
        )
        given.pids_limit = None
    if given.blkio_weight and not 10 <= given.blkio_weight <= 1000:
        raise InvalidArgument("Range of blkio weight is from 10 to 1000")
    if (given.blkio_weight or given.blkio_weight_device) and not cgroups.block_weight:
        warnings.append(
            "Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight "
            "discarded."
        )
        given.blkio_weight, given.blkio_weight_device = 0, None
    return warnings


def _check_ulimit(limit: Ulimit) -> None:
    if limit.name not in _ULIMITS:
        raise InvalidArgument(f"invalid ulimit type: {limit.name}")
    unlimited = limit.hard == -1
    if not unlimited and (limit.soft > limit.hard or limit.soft == -1):
        raise InvalidArgument(
            f"ulimit soft limit must be less than or equal to hard limit: "
            f"{limit.soft} > {limit.hard}"
        )
