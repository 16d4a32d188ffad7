"""Execs: further processes in running containers."""

from __future__ import annotations

from drivetrain.errors import InvalidArgument
from drivetrain_engine.api.backend import Backend
from drivetrain_engine.api.messages import Hijack, Request, Response, json_response
from drivetrain_engine.api.router import Routes
from drivetrain_engine.api.routes.containers import terminal_size
from drivetrain_engine.api.routes.streams import (
    DEFAULT_DETACH_KEYS,
    content_type,
    parse_detach_keys,
)

routes = Routes()


@routes.post("/containers/{id}/exec")
def create(backend: Backend, request: Request) -> Response:
    """``POST /containers/{id}/exec``."""
    body = request.json(required=True)
    if not body.get("Cmd"):
        raise InvalidArgument("No exec command specified")
    if keys := body.get("DetachKeys"):
        parse_detach_keys(str(keys))
    exec_id = backend.containers.exec_create(request.parameters["id"], body)
    return json_response({"Id": exec_id}, 201)


@routes.post("/exec/{id}/start", mode="thread")
def start(backend: Backend, request: Request) -> Response | Hijack:
    """``POST /exec/{id}/start``: raw, unless the client detaches."""
    body = request.json()
    exec_id = request.parameters["id"]
    attachment = backend.containers.exec_start(exec_id, body)
    if attachment is None:
        return Response()
    keys = b""
    if attachment.tty:
        known = backend.containers.exec_inspect(exec_id).get("DetachKeys") or DEFAULT_DETACH_KEYS
        keys = parse_detach_keys(str(known))
    return Hijack(
        attachment.socket,
        None,
        content_type(request, tty=attachment.tty),
        detach_keys=keys,
        settled=attachment.settled,
    )


@routes.get("/exec/{id}/json")
def inspect(backend: Backend, request: Request) -> Response:
    """``GET /exec/{id}/json``."""
    return json_response(backend.containers.exec_inspect(request.parameters["id"]))


@routes.post("/exec/{id}/resize")
def resize(backend: Backend, request: Request) -> Response:
    """``POST /exec/{id}/resize``."""
    height, width = terminal_size(request)
    backend.containers.exec_resize(request.parameters["id"], height, width)
    return Response()
