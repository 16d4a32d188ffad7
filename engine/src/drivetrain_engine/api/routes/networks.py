"""Networks."""

from __future__ import annotations

from drivetrain.errors import InvalidArgument
from drivetrain_engine.api.backend import Backend
from drivetrain_engine.api.messages import Request, Response, json_response
from drivetrain_engine.api.router import Routes

routes = Routes()


@routes.get("/networks")
def list_networks(backend: Backend, request: Request) -> Response:
    """``GET /networks``."""
    return json_response(backend.networks.list(request.filters()))


@routes.post("/networks/create")
def create(backend: Backend, request: Request) -> Response:
    """``POST /networks/create``."""
    body = request.json(required=True)
    if not str(body.get("Name") or "").strip():
        raise InvalidArgument("network name cannot be empty")
    network_id, warning = backend.networks.create(body)
    return json_response({"Id": network_id, "Warning": warning}, 201)


@routes.get("/networks/{id}")
def inspect(backend: Backend, request: Request) -> Response:
    """``GET /networks/{id}``."""
    return json_response(backend.networks.inspect(request.parameters["id"]))


@routes.delete("/networks/{id}")
def remove(backend: Backend, request: Request) -> Response:
    """``DELETE /networks/{id}``."""
    backend.networks.remove(request.parameters["id"])
    return Response(status=204)


@routes.post("/networks/{id}/connect")
def connect(backend: Backend, request: Request) -> Response:
    """``POST /networks/{id}/connect``."""
    body = request.json(required=True)
    backend.containers.network_connect(
        _container(body), request.parameters["id"], body.get("EndpointConfig") or {}
    )
    return Response()


@routes.post("/networks/{id}/disconnect")
def disconnect(backend: Backend, request: Request) -> Response:
    """``POST /networks/{id}/disconnect``."""
    body = request.json(required=True)
    backend.containers.network_disconnect(
        _container(body), request.parameters["id"], force=bool(body.get("Force"))
    )
    return Response()


def _container(body: dict[str, object]) -> str:
    container = body.get("Container")
    if not container:
        raise InvalidArgument("container is needed: which one to connect or disconnect")
    return str(container)


@routes.post("/networks/prune", mode="thread")
def prune(backend: Backend, request: Request) -> Response:
    """``POST /networks/prune``."""
    return json_response({"NetworksDeleted": backend.networks.prune(request.filters())})
