"""``rename``: another name, everywhere at once or nowhere."""

from __future__ import annotations

from drivetrain.errors import InvalidArgument
from drivetrain_engine.containers.container import Container
from drivetrain_engine.containers.services import Services


def rename(services: Services, container: Container, name: str) -> None:
    """Give a container another name.

    Raises:
        AlreadyExists: another one has it.
        InvalidArgument: it is none, or the one it has.
    """
    store = services.store
    with container.lock:
        record = container.record
        old = record.name
        if name.lstrip("/") == old:
            raise InvalidArgument("Renaming a container with the same name as its current name")
        record.name = store.reserve(name, record.id)
        try:
            store.save(container)
            services.networks.rename(record.id, record.name)
        except BaseException:
            store.release(record.name, record.id)
            record.name = old
            store.save(container)
            raise
        store.release(old, record.id)
        services.emit(container, "rename", oldName="/" + old)
