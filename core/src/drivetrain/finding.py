"""Finders: drivers that are no packages, such as programs behind a socket.

A distribution announces a finder by an entry point in the group ``drivetrain.finder`` whose name
is a family and whose value is a class::

    [project.entry-points."drivetrain.finder"]
    volume = "drivetrain_volume_docker_plugins:Finder"

It is asked for names that no installed driver has.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol, cast

from drivetrain.discovery import Entry, entries


class Finder(Protocol):
    """Finds drivers of one family."""

    def names(self) -> Sequence[str]:
        """Return the drivers that can be found now; quick, since lists of drivers ask it."""

    def driver(self, name: str) -> object | None:
        """Return a new instance of a driver, or ``None`` when there is none of that name."""


def finders(family: str) -> Iterator[tuple[Entry, Finder]]:
    """Yield the finders of a family.

    Raises:
        NotSupported: one of them cannot be imported.
    """
    from drivetrain.registry import instance_of

    for entry in entries():
        if entry.family == "finder" and entry.name == family:
            yield entry, cast("Finder", instance_of(entry))
