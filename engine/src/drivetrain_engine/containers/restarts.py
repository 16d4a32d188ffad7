"""Restart policies: whether, and after how long."""

from __future__ import annotations

from drivetrain_engine.containers.record import Record

_FIRST, _LONGEST = 0.1, 60.0
#: A run of so many seconds counts as a success: the next wait begins anew.
_HEALTHY = 10.0


def wanted(record: Record, exit_code: int) -> bool:
    """Tell whether a container that ended by itself is to be started again."""
    policy = record.host.restart_policy
    if record.stopped_by_user:
        return False
    if policy.name in ("always", "unless-stopped"):
        return True
    if policy.name != "on-failure" or exit_code == 0:
        return False
    limit = policy.maximum_retry_count
    return not limit or record.restart_count < limit


def wanted_at_start(record: Record) -> bool:
    """Tell whether a container that does not run is to be started with the daemon."""
    policy = record.host.restart_policy
    if policy.name == "always":
        return record.started_once
    if policy.name == "unless-stopped":
        return record.started_once and not record.stopped_by_user
    return record.started_once and wanted(record, record.state.exit_code)


def backoff(last: float, ran_for: float) -> float:
    """Return the seconds to wait before the next start.

    Args:
        last: the wait before; 0 for the first time.
        ran_for: seconds of the last run.
    """
    if ran_for >= _HEALTHY or not last:
        return _FIRST
    return min(last * 2, _LONGEST)
