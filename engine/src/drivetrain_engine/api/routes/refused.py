"""What other engines have and this one does not: clear errors instead of 404."""

from __future__ import annotations

from drivetrain.errors import NotSupported, Unavailable
from drivetrain_engine.api.backend import Backend
from drivetrain_engine.api.messages import Request, Response, json_response
from drivetrain_engine.api.router import Routes

routes = Routes()

_METHODS = ("GET", "POST", "PUT", "DELETE")


@routes.get("/plugins", mode="loop")
def plugins(backend: Backend, request: Request) -> Response:
    """``GET /plugins``: drivers are pip packages, see ``/engine/drivers``."""
    return json_response([])


def _plugin(backend: Backend, request: Request) -> Response:
    raise NotSupported("plugins are not supported: drivers are pip packages, see engine driver ls")


def _cluster(backend: Backend, request: Request) -> Response:
    if request.path in ("/swarm/init", "/swarm/join"):
        raise NotSupported("clusters are not supported: this engine works for one host")
    if request.path == "/swarm/leave":
        raise Unavailable("This node is not part of a swarm")
    raise Unavailable(
        'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to '
        "connect this node to swarm and try again."
    )


for _name in ("swarm", "nodes", "services", "tasks", "secrets", "configs"):
    for _method in _METHODS:
        routes.add(_method, f"/{_name}", _cluster, mode="loop")
        routes.add(_method, f"/{_name}/{{rest:path}}", _cluster, mode="loop")
for _method in _METHODS:
    routes.add(_method, "/plugins/{rest:path}", _plugin, mode="loop")
