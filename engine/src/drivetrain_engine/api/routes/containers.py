"""Containers: everything with a plain answer. What streams is in ``streams``."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from typing import Any

import msgspec

from drivetrain.errors import InvalidArgument, NotFound
from drivetrain_engine.api.backend import Backend
from drivetrain_engine.api.bridging import as_coroutine
from drivetrain_engine.api.messages import LiveStream, Request, Response, json_response
from drivetrain_engine.api.platforms import check_platform
from drivetrain_engine.api.router import Routes

routes = Routes()

_WAIT_CONDITIONS = ("not-running", "next-exit", "removed")
_NO_CONTENT = Response(status=204)


@routes.get("/containers/json")
def list_containers(backend: Backend, request: Request) -> Response:
    """``GET /containers/json``."""
    return json_response(
        backend.containers.list(
            all=request.flag("all"),
            limit=request.number("limit", 0) or 0,
            size=request.flag("size"),
            filters=request.filters(),
        )
    )


@routes.post("/containers/create")
def create(backend: Backend, request: Request) -> Response:
    """``POST /containers/create``: extensions see the body first, and may refuse it."""
    body = request.json()
    if not body:
        raise InvalidArgument("config cannot be empty in order to create a container")
    name = request.text("name")
    if backend.extensions:
        body["Name"] = name
        for extension in backend.extensions:
            extension.call.container_creating(body)
        name = str(body.pop("Name", name) or "")
    if platform := request.text("platform"):
        check_platform(platform, backend.images, str(body.get("Image", "")))
    container_id, warnings = backend.containers.create(name or None, body)
    return json_response({"Id": container_id, "Warnings": list(warnings)}, 201)


@routes.get("/containers/{id}/json")
def inspect(backend: Backend, request: Request) -> Response:
    """``GET /containers/{id}/json``."""
    return json_response(
        backend.containers.inspect(request.parameters["id"], size=request.flag("size"))
    )


@routes.get("/containers/{id}/top")
def top(backend: Backend, request: Request) -> Response:
    """``GET /containers/{id}/top``."""
    arguments = request.text("ps_args") or "-ef"
    return json_response(backend.containers.top(request.parameters["id"], arguments))


@routes.get("/containers/{id}/changes")
def changes(backend: Backend, request: Request) -> Response:
    """``GET /containers/{id}/changes``."""
    return json_response(backend.containers.changes(request.parameters["id"]))


@routes.post("/containers/{id}/start")
def start(backend: Backend, request: Request) -> Response:
    """``POST /containers/{id}/start``."""
    if request.has("checkpoint"):
        raise InvalidArgument("checkpoints are not supported")
    backend.containers.start(request.parameters["id"])
    return _NO_CONTENT


def _stop_options(request: Request) -> dict[str, Any]:
    return {"timeout": request.number("t"), "signal": request.text("signal") or None}


@routes.post("/containers/{id}/stop", mode="thread")
def stop(backend: Backend, request: Request) -> Response:
    """``POST /containers/{id}/stop``; 304 when it does not run."""
    backend.containers.stop(request.parameters["id"], **_stop_options(request))
    return _NO_CONTENT


@routes.post("/containers/{id}/restart", mode="thread")
def restart(backend: Backend, request: Request) -> Response:
    """``POST /containers/{id}/restart``."""
    backend.containers.restart(request.parameters["id"], **_stop_options(request))
    return _NO_CONTENT


@routes.post("/containers/{id}/kill")
def kill(backend: Backend, request: Request) -> Response:
    """``POST /containers/{id}/kill``."""
    backend.containers.kill(request.parameters["id"], request.text("signal") or "SIGKILL")
    return _NO_CONTENT


@routes.post("/containers/{id}/pause")
def pause(backend: Backend, request: Request) -> Response:
    """``POST /containers/{id}/pause``."""
    backend.containers.pause(request.parameters["id"])
    return _NO_CONTENT


@routes.post("/containers/{id}/unpause")
def unpause(backend: Backend, request: Request) -> Response:
    """``POST /containers/{id}/unpause``."""
    backend.containers.unpause(request.parameters["id"])
    return _NO_CONTENT


@routes.post("/containers/{id}/rename")
def rename(backend: Backend, request: Request) -> Response:
    """``POST /containers/{id}/rename``."""
    name = request.text("name")
    if not name:
        raise InvalidArgument("Neither old nor new names may be empty")
    backend.containers.rename(request.parameters["id"], name)
    return _NO_CONTENT


@routes.post("/containers/{id}/update")
def update(backend: Backend, request: Request) -> Response:
    """``POST /containers/{id}/update``."""
    warnings = backend.containers.update(request.parameters["id"], request.json(required=True))
    return json_response({"Warnings": list(warnings or ())})


@routes.post("/containers/{id}/resize")
def resize(backend: Backend, request: Request) -> Response:
    """``POST /containers/{id}/resize``."""
    height, width = terminal_size(request)
    backend.containers.resize(request.parameters["id"], height, width)
    return Response()


def terminal_size(request: Request) -> tuple[int, int]:
    """Return ``h`` and ``w``.

    Raises:
        InvalidArgument: one is missing or out of range.
    """
    size = []
    for name in ("h", "w"):
        number = request.number(name)
        if number is None or not 0 <= number <= 65535:
            raise InvalidArgument(
                f"invalid resize {'height' if name == 'h' else 'width'}: {number}"
            )
        size.append(number)
    return size[0], size[1]


@routes.post("/containers/{id}/wait")
async def wait(backend: Backend, request: Request) -> LiveStream:
    """``POST /containers/{id}/wait``: the head at once, the body at the end.

    Clients start the container when they have the head, so the waiter is registered by then.
    """
    condition = request.text("condition") or "not-running"
    if condition not in _WAIT_CONDITIONS:
        raise InvalidArgument(f'invalid condition: "{condition}"')
    reference = request.parameters["id"]
    future = await request.run(lambda: backend.containers.wait(reference, condition))

    async def body() -> AsyncGenerator[bytes, None]:
        try:
            result = await as_coroutine(future)
        except Exception as error:
            result = {"StatusCode": -1, "Error": {"Message": str(error)}}
        yield msgspec.json.encode(result) + b"\n"

    return LiveStream(body())


@routes.delete("/containers/{id}", mode="thread")
def remove(backend: Backend, request: Request) -> Response:
    """``DELETE /containers/{id}``."""
    if request.flag("link"):
        raise InvalidArgument("links between containers are kept in the container that has them")
    backend.containers.remove(
        request.parameters["id"], volumes=request.flag("v"), force=request.flag("force")
    )
    return _NO_CONTENT


@routes.post("/containers/prune", mode="thread")
def prune(backend: Backend, request: Request) -> Response:
    """``POST /containers/prune``."""
    return json_response(backend.containers.prune(request.filters()))


@routes.post("/commit", mode="thread")
def commit(backend: Backend, request: Request) -> Response:
    """``POST /commit``."""
    if not request.has("container"):
        raise NotFound("No such container: (none was named)")
    query = {name: values[0] for name, values in request.query.items()}
    if "changes" in request.query:
        query["changes"] = "\n".join(request.query["changes"])
    if repository := query.get("repo"):
        query["repo"] = re.sub(r"^docker\.io/(library/)?", "", repository)
    image_id = backend.containers.commit(query, request.json())
    return json_response({"Id": image_id}, 201)
