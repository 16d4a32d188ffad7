"""Freezing the processes of a container, and letting them go on."""

from __future__ import annotations

from drivetrain.errors import FailedPrecondition, InUse
from drivetrain_engine.containers.container import Container
from drivetrain_engine.containers.services import Services


def pause(services: Services, container: Container) -> None:
    """Freeze all processes.

    Raises:
        FailedPrecondition: it does not run, or is frozen already.
    """
    with container.lock:
        record = container.record
        if record.state.paused:
            raise FailedPrecondition(f"container {record.id} is already paused")
        if record.state.restarting:
            raise FailedPrecondition(
                f"container {record.id} is restarting, wait until the container is running"
            )
        if container.shim is None:
            raise FailedPrecondition(f"container {record.id} is not running")
        container.shim.pause()
        record.state.paused = True
        services.store.save(container)
        services.emit(container, "pause")


def unpause(services: Services, container: Container) -> None:
    """Let the processes go on.

    Raises:
        FailedPrecondition: it is not frozen.
        InUse: a volume of it is being copied.
    """
    with container.lock:
        record = container.record
        if not record.state.paused or container.shim is None:
            raise FailedPrecondition(f"container {record.id} is not paused")
        take_off_pause(services, container)
        container.shim.resume()
        services.store.save(container)
        services.emit(container, "unpause")


def take_off_pause(services: Services, container: Container, *, to_die: bool = False) -> None:
    """Note that a container is paused no more; its processes are thawed after this.

    Args:
        services: of the container.
        container: its lock is held.
        to_die: no process of it runs again.

    Raises:
        InUse: files that its processes may write are being copied.
    """
    state = container.record.state
    # in this order: a copy that begins now sees that it is not paused, or is seen here
    state.paused = False
    if not to_die:
        try:
            services.volumes.check_going_on(container.id)
        except InUse:
            state.paused = True
            raise
