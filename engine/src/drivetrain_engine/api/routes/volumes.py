"""Volumes."""

from __future__ import annotations

from drivetrain.errors import Unavailable
from drivetrain_engine.api.backend import Backend
from drivetrain_engine.api.messages import Request, Response, json_response
from drivetrain_engine.api.router import Routes

routes = Routes()


@routes.get("/volumes")
def list_volumes(backend: Backend, request: Request) -> Response:
    """``GET /volumes``."""
    volumes, warnings = backend.volumes.list(request.filters())
    return json_response({"Volumes": volumes, "Warnings": list(warnings)})


@routes.post("/volumes/create")
def create(backend: Backend, request: Request) -> Response:
    """``POST /volumes/create``."""
    body = request.json()
    volume = backend.volumes.create(
        str(body.get("Name") or ""),
        driver=str(body.get("Driver") or "local"),
        options=body.get("DriverOpts") or {},
        labels=body.get("Labels") or {},
    )
    return json_response(volume, 201)


@routes.get("/volumes/{name}")
def inspect(backend: Backend, request: Request) -> Response:
    """``GET /volumes/{name}``."""
    return json_response(backend.volumes.inspect(request.parameters["name"]))


@routes.put("/volumes/{name}", mode="loop")
def update(backend: Backend, request: Request) -> Response:
    """``PUT /volumes/{name}``: of clusters only."""
    raise Unavailable("volume update only valid for cluster volumes, but swarm is unavailable")


@routes.delete("/volumes/{name}", mode="thread")
def remove(backend: Backend, request: Request) -> Response:
    """``DELETE /volumes/{name}``."""
    backend.volumes.remove(request.parameters["name"], force=request.flag("force"))
    return Response(status=204)


@routes.post("/volumes/prune", mode="thread")
def prune(backend: Backend, request: Request) -> Response:
    """``POST /volumes/prune``; clients before 1.42 mean named ones too."""
    filters = request.filters()
    if request.version < (1, 42):
        filters.setdefault("all", ["true"])
    return json_response(backend.volumes.prune(filters))
