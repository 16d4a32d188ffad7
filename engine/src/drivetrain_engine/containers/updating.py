"""``update``: limits and restart policy of a container that exists."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from drivetrain.errors import FailedPrecondition, InvalidArgument
from drivetrain_engine.containers.container import Container
from drivetrain_engine.containers.request.checks import check_restart_policy
from drivetrain_engine.containers.request.hostconfig import HostConfig, Resources
from drivetrain_engine.containers.request.parse import parse_host_config
from drivetrain_engine.containers.request.resources import check_resources
from drivetrain_engine.containers.services import Services
from drivetrain_engine.containers.spec.cgroups import cgroup_path, host_cgroups

#: What a running container can take.
_FIELDS = (
    "cpu_shares", "memory", "memory_swap", "memory_reservation", "nano_cpus", "cpu_period",
    "cpu_quota", "cpu_realtime_period", "cpu_realtime_runtime", "cpuset_cpus", "cpuset_mems",
    "blkio_weight", "pids_limit",
)  # fmt: skip


def update(services: Services, container: Container, body: Mapping[str, Any]) -> list[str]:
    """Change limits and restart policy; what is not given, or 0, stays. Returns warnings.

    Raises:
        FailedPrecondition: the container is being removed.
        InvalidArgument: limits that contradict each other or those there are.
    """
    given = parse_host_config(body)
    with container.lock:
        record = container.record
        if record.phase == "removing" or record.state.dead:
            raise FailedPrecondition(
                f"Cannot update container {record.id}: container is marked for removal and "
                "cannot be updated"
            )
        merged = msgspec.convert(msgspec.to_builtins(record.host), HostConfig)
        changed = Resources()
        for field in _FIELDS:
            value = getattr(given, field)
            if value:
                setattr(merged, field, value)
                setattr(changed, field, value)
        _check_together(given, record.host)
        if given.nano_cpus:
            merged.cpu_quota = merged.cpu_period = 0
        warnings = check_resources(merged, update=True)
        if given.restart_policy.name:
            merged.restart_policy = given.restart_policy
            check_restart_policy(merged.restart_policy, merged.auto_remove)
        if container.shim is not None:
            parent = services.settings.cgroup_parent
            try:
                host_cgroups().update(cgroup_path(record.id, merged.cgroup_parent, parent), changed)
            except OSError as error:
                raise InvalidArgument(
                    f"Cannot update container {record.id}: the kernel refuses it: {error}"
                ) from None
        record.host = merged
        services.store.save(container)
        services.emit(container, "update")
    return warnings


def _check_together(given: HostConfig, present: HostConfig) -> None:
    if given.memory > 0 and not given.memory_swap and 0 < present.memory_swap < given.memory:
        raise InvalidArgument(
            "Memory limit should be smaller than already set memoryswap limit, update the "
            "memoryswap at the same time"
        )
    if given.nano_cpus and (present.cpu_quota or present.cpu_period):
        raise InvalidArgument(
            "Conflicting options: Nano CPUs cannot be updated as CPU Period has already been set"
        )
    if (given.cpu_quota or given.cpu_period) and present.nano_cpus:
        raise InvalidArgument(
            "Conflicting options: CPU Quota cannot be updated as NanoCPUs has already been set"
        )
