"""Storage drivers side by side: what each holds, and moving containers between them."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from drivetrain.errors import InvalidArgument
from drivetrain_engine.api.backend import Backend
from drivetrain_engine.api.messages import Request, Response, Stream, json_response
from drivetrain_engine.api.router import Routes
from drivetrain_engine.api.routes.transfers import progress_error

routes = Routes()


class Move(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The body of a migration.

    Attributes:
        to: name of the driver.
        containers: ids or names; or ``all``.
        stop: those that run, and start them again.
        timeout: seconds before the kill; ``None``: each container's own.
        dry_run: only tell what would be done.
    """

    to: str
    containers: list[str] = []
    all: bool = False
    stop: bool = False
    timeout: int | None = None
    dry_run: bool = False


@routes.get("/engine/storage/df", mode="thread")
def usage(backend: Backend, request: Request) -> Response:
    """``GET /engine/storage/df``: what each storage driver holds."""
    return json_response(backend.layers.totals())


@routes.post("/engine/storage/migrate", mode="thread")
def migrate(backend: Backend, request: Request) -> Stream:
    """``POST /engine/storage/migrate``: a document per step, see ``Migrator.migrate``."""
    try:
        move = msgspec.json.decode(request.body or b"{}", type=Move)
    except msgspec.DecodeError as error:
        raise InvalidArgument(f"invalid migration: {error}") from None
    steps = backend.containers.migrate(
        move.containers,
        move.to,
        everything=move.all,
        stop=move.stop,
        timeout=move.timeout,
        dry_run=move.dry_run,
    )

    def documents() -> Iterator[bytes]:
        try:
            for step in steps:
                yield msgspec.json.encode(step) + b"\n"
        finally:
            steps.close()  # type: ignore[attr-defined]  # a client that left stops the move

    return Stream(documents(), on_error=progress_error)
