"""All containers: found by id, name or the beginning of an id."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import msgspec

from drivetrain.errors import AlreadyExists, InvalidArgument, NotFound
from drivetrain_engine.containers.container import Container
from drivetrain_engine.containers.names import check_name, random_name
from drivetrain_engine.containers.record import Record

if TYPE_CHECKING:
    from drivetrain_engine.state import State


class Store:
    """The containers of a data root, in memory and in the state.

    Args:
        state: keeps the records, in the table ``containers``.
    """

    def __init__(self, state: State) -> None:
        self._table = state.table("containers")
        self._lock = threading.Lock()
        self._containers: dict[str, Container] = {}
        self._names: dict[str, str] = {}
        for document in self._table.items().values():
            record = msgspec.convert(document, Record)
            self._containers[record.id] = Container(record)
            self._names[record.name] = record.id

    def find(self, reference: str) -> Container:
        """Return a container by id, name or the beginning of an id, in this order.

        Raises:
            NotFound: there is none.
            InvalidArgument: the beginning of several ids.
        """
        with self._lock:
            found = self._containers.get(reference)
            if found is None and (owner := self._names.get(reference.lstrip("/"))):
                found = self._containers.get(owner)
            if found is not None:
                return found
            if reference:
                near = [name for name in self._containers if name.startswith(reference)]
                if len(near) == 1:
                    return self._containers[near[0]]
                if near:
                    raise InvalidArgument(f"Multiple IDs found with provided prefix: {reference}")
        raise NotFound(f"No such container: {reference}")

    def get(self, container_id: str) -> Container | None:
        """Return a container by its full id."""
        return self._containers.get(container_id)

    def all(self) -> list[Container]:
        """Return all containers, the latest first."""
        with self._lock:
            found = list(self._containers.values())
        return sorted(found, key=lambda one: one.record.created, reverse=True)

    def ids(self) -> set[str]:
        """Return all ids."""
        with self._lock:
            return set(self._containers)

    def reserve(self, name: str | None, container_id: str) -> str:
        """Take a name, a random one when none is given, and return it.

        Raises:
            AlreadyExists: another container has it.
            InvalidArgument: it is no name.
        """
        with self._lock:
            if not name:
                attempt = 0
                while (made := random_name(attempt)) in self._names:
                    attempt += 1
                self._names[made] = container_id
                return made
            name = check_name(name)
            owner = self._names.get(name)
            if owner is not None and owner != container_id:
                raise AlreadyExists(
                    f'Conflict. The container name "/{name}" is already in use by container '
                    f'"{owner}". You have to remove (or rename) that container to be able to '
                    "reuse that name."
                )
            self._names[name] = container_id
            return name

    def release(self, name: str, container_id: str) -> None:
        """Give a name back, if it is this container's."""
        with self._lock:
            if self._names.get(name) == container_id:
                del self._names[name]

    def add(self, container: Container) -> None:
        """Remember a new container."""
        self.save(container)
        with self._lock:
            self._containers[container.id] = container

    def save(self, container: Container) -> None:
        """Write a container's record."""
        self._table.put(container.id, container.document())

    def forget(self, container: Container) -> None:
        """Drop a container's record and name."""
        self._table.delete(container.id)
        with self._lock:
            self._containers.pop(container.id, None)
            if self._names.get(container.record.name) == container.id:
                del self._names[container.record.name]
