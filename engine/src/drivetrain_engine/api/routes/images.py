"""Images that are here: listing, looking, naming, removing."""

from __future__ import annotations

from drivetrain.errors import InvalidArgument
from drivetrain_engine.api.backend import Backend
from drivetrain_engine.api.messages import Request, Response, json_response
from drivetrain_engine.api.router import Routes

routes = Routes()


@routes.get("/images/json")
def list_images(backend: Backend, request: Request) -> Response:
    """``GET /images/json``."""
    filters = request.filters()
    if request.has("filter"):
        filters.setdefault("reference", []).append(request.text("filter"))
    return json_response(
        backend.images.summaries(
            filters, request.flag("all"), shared_size=request.flag("shared-size")
        )
    )


@routes.get("/images/{name:path}/json")
def inspect(backend: Backend, request: Request) -> Response:
    """``GET /images/{name}/json``."""
    return json_response(backend.images.inspect(request.parameters["name"]))


@routes.get("/images/{name:path}/history")
def history(backend: Backend, request: Request) -> Response:
    """``GET /images/{name}/history``."""
    return json_response(backend.images.history(request.parameters["name"]))


@routes.post("/images/{name:path}/tag")
def tag(backend: Backend, request: Request) -> Response:
    """``POST /images/{name}/tag``."""
    backend.images.tag(request.parameters["name"], target_reference(request))
    return Response(status=201)


def target_reference(request: Request) -> str:
    """Return ``repo:tag``.

    Raises:
        InvalidArgument: no repository was given.
    """
    repository, tag = request.text("repo"), request.text("tag")
    if not repository:
        raise InvalidArgument("invalid reference format: a repository is needed")
    last = repository.rpartition("/")[2]
    if tag and ":" not in last:
        return f"{repository}:{tag}"
    return repository


@routes.delete("/images/{name:path}", mode="thread")
def remove(backend: Backend, request: Request) -> Response:
    """``DELETE /images/{name}``; layers that nobody needs any more are dropped with it."""
    gone = backend.images.remove(
        request.parameters["name"],
        force=request.flag("force"),
        prune=not request.flag("noprune"),
    )
    if any("Deleted" in each for each in gone):
        backend.layers.discard_image_layers()
    return json_response(gone)


@routes.post("/images/prune", mode="thread")
def prune(backend: Backend, request: Request) -> Response:
    """``POST /images/prune``."""
    result = backend.images.prune(request.filters())
    backend.layers.discard_image_layers()
    return json_response(result)
