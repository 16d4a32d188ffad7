"""What Docker cannot do with volumes: snapshot, clone, restore, rename, export, import."""

from __future__ import annotations

from typing import BinaryIO, cast

from drivetrain.errors import InvalidArgument
from drivetrain_engine.api.backend import Backend
from drivetrain_engine.api.compression import decompressed
from drivetrain_engine.api.messages import Request, Response, Stream, json_response
from drivetrain_engine.api.router import Routes
from drivetrain_engine.containers.volumefiles import export_volume, import_volume
from drivetrain_engine.volumes import CopyRequest

routes = Routes()


def _paused(backend: Backend) -> set[str]:
    found = backend.containers.list(all=True, filters={"status": ["paused"]})
    return {str(container["Id"]) for container in found}


def _named(request: Request, key: str) -> str:
    name = request.json().get(key)
    if not isinstance(name, str) or not name:
        raise InvalidArgument(f"the field {key} is needed: the name of a volume")
    return name


def _copy_request(backend: Backend, request: Request) -> CopyRequest:
    body = request.json()
    return CopyRequest(
        labels=dict(body.get("Labels") or {}),
        driver=str(body.get("Driver") or ""),
        options=dict(body.get("DriverOpts") or {}),
        paused=lambda: _paused(backend),
    )


@routes.post("/engine/volumes/{name}/snapshot", mode="thread")
def snapshot(backend: Backend, request: Request) -> Response:
    """``POST /engine/volumes/{name}/snapshot``: keep it as it is as the volume ``Name``."""
    name, copy = _named(request, "Name"), _copy_request(backend, request)
    made = backend.volumes.contents.copy("snapshot", request.parameters["name"], name, copy)
    return json_response(made, 201)


@routes.post("/engine/volumes/{name}/clone", mode="thread")
def clone(backend: Backend, request: Request) -> Response:
    """``POST /engine/volumes/{name}/clone``: a volume ``Name`` with the same content."""
    name, copy = _named(request, "Name"), _copy_request(backend, request)
    made = backend.volumes.contents.copy("clone", request.parameters["name"], name, copy)
    return json_response(made, 201)


@routes.post("/engine/volumes/{name}/restore", mode="thread")
def restore(backend: Backend, request: Request) -> Response:
    """``POST /engine/volumes/{name}/restore``: give it the content of the volume ``From``."""
    source = _named(request, "From")
    return json_response(backend.volumes.contents.restore(request.parameters["name"], source))


@routes.post("/engine/volumes/{name}/rename", mode="thread")
def rename(backend: Backend, request: Request) -> Response:
    """``POST /engine/volumes/{name}/rename``: to ``Name``."""
    name = _named(request, "Name")
    return json_response(backend.volumes.contents.rename(request.parameters["name"], name))


@routes.get("/engine/volumes/{name}/export", mode="thread")
def export(backend: Backend, request: Request) -> Stream:
    """``GET /engine/volumes/{name}/export``: a tar of its content."""
    name = request.parameters["name"]
    source = export_volume(backend.volumes, name, lambda: _paused(backend))
    return Stream(source, "application/x-tar")


@routes.put("/engine/volumes/{name}/import", mode="thread", streams_body=True)
def import_content(backend: Backend, request: Request) -> Response:
    """``PUT /engine/volumes/{name}/import``: unpack a tar, compressed or not, into it."""
    assert request.stream is not None
    stream = cast(BinaryIO, decompressed(request.stream))
    import_volume(backend.volumes, request.parameters["name"], stream)
    return json_response(backend.volumes.inspect(request.parameters["name"]))
