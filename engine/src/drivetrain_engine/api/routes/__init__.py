"""The handlers, by kind of object; :func:`all_routes` is the whole API."""

from __future__ import annotations

from collections.abc import Sequence

from drivetrain_engine.api.router import Routes


def all_routes() -> Sequence[Routes]:
    """Return every group of routes, in the order in which they are matched."""
    from drivetrain_engine.api.routes import (
        archives,
        containers,
        engine,
        events,
        execs,
        images,
        networks,
        refused,
        storage,
        streams,
        system,
        transfers,
        volumecontents,
        volumes,
    )

    return (
        system.routes,
        events.routes,
        containers.routes,
        streams.routes,
        execs.routes,
        archives.routes,
        transfers.routes,
        images.routes,
        networks.routes,
        volumes.routes,
        volumecontents.routes,
        engine.routes,
        storage.routes,
        refused.routes,
    )
