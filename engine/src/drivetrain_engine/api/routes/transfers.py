"""Images that come and go: load, import, save, and registries."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from drivetrain.errors import EngineError, InvalidArgument, NotSupported
from drivetrain_engine.api.answers import message_of
from drivetrain_engine.api.backend import Backend
from drivetrain_engine.api.messages import Request, Response, Stream, json_response
from drivetrain_engine.api.router import Routes
from drivetrain_engine.api.routes.images import target_reference
from drivetrain_engine.content import decode_header, parse_credentials, registry_domain

routes = Routes()

_AUTH = "x-registry-auth"


def _progress(documents: Iterable[Any]) -> Stream:
    """Return a stream of progress documents; an error before the first one is a status."""
    lines = (msgspec.json.encode(document) + b"\r\n" for document in documents)
    return Stream(lines, on_error=progress_error)


def progress_error(error: Exception) -> bytes:
    """Return an error in the middle of a progress stream, as clients read it."""
    message = message_of(error)
    code = error.http_status if isinstance(error, EngineError) else 500
    document = {"errorDetail": {"code": code, "message": message}, "error": message}
    return msgspec.json.encode(document) + b"\r\n"


@routes.post("/images/load", mode="thread", streams_body=True)
def load(backend: Backend, request: Request) -> Stream:
    """``POST /images/load``: a line per image that was loaded."""
    assert request.stream is not None
    lines = backend.images.load(request.stream)

    def documents() -> Iterator[bytes]:
        for line in lines:
            yield msgspec.json.encode({"stream": line.rstrip("\n") + "\n"}) + b"\r\n"

    return Stream(documents(), on_error=progress_error)


@routes.post("/images/create", mode="thread", streams_body=True)
def create(backend: Backend, request: Request) -> Response | Stream:
    """``POST /images/create``: pull or import."""
    if request.has("fromImage"):
        user = decode_header(request.headers.get(_AUTH, ""))
        platform = request.text("platform")
        return _progress(backend.images.registries.pull(target(request), platform, user))
    source = request.text("fromSrc")
    if source != "-":
        if not source:
            raise InvalidArgument("fromSrc or fromImage is needed")
        raise NotSupported(
            f"cannot import from {source}: give the archive itself, as in curl … | engine import -"
        )
    assert request.stream is not None
    image = backend.images.import_tar(
        request.stream,
        reference=target_reference(request) if request.has("repo") else "",
        changes=tuple(request.query.get("changes", ())),
        message=request.text("message"),
        platform=request.text("platform"),
    )
    return json_response({"status": image.id})


def _save(backend: Backend, names: list[str]) -> Stream:
    return Stream(backend.images.save(names), "application/x-tar")


@routes.get("/images/get", mode="thread")
def save_many(backend: Backend, request: Request) -> Stream:
    """``GET /images/get``."""
    names = [
        name for text in request.query.get("names", ()) for name in text.split(",") if name.strip()
    ]
    if not names:
        raise InvalidArgument("names is needed: which images to save")
    return _save(backend, names)


@routes.get("/images/{name:path}/get", mode="thread")
def save(backend: Backend, request: Request) -> Stream:
    """``GET /images/{name}/get``."""
    return _save(backend, [request.parameters["name"]])


def target(request: Request) -> str:
    """Return the name that ``fromImage`` and ``tag`` mean; a tag may be a digest."""
    name, tag = request.text("fromImage"), request.text("tag")
    if not tag:
        return name
    return f"{name}@{tag}" if ":" in tag else f"{name}:{tag}"


@routes.post("/images/{name:path}/push", mode="thread")
def push(backend: Backend, request: Request) -> Stream:
    """``POST /images/{name}/push``."""
    name = request.parameters["name"]
    if request.has("tag"):
        name += f":{request.text('tag')}"
    user = decode_header(request.headers.get(_AUTH, ""))
    return _progress(backend.images.registries.push(name, user))


@routes.get("/images/search", mode="loop")
def search(backend: Backend, request: Request) -> Response:
    """``GET /images/search``: Docker Hub's own, which no other registry has."""
    raise NotSupported("searching Docker Hub is not supported: use its web page")


@routes.get("/distribution/{name:path}/json", mode="thread")
def distribution(backend: Backend, request: Request) -> Response:
    """``GET /distribution/{name}/json``."""
    user = decode_header(request.headers.get(_AUTH, ""))
    return json_response(backend.images.registries.inspect(request.parameters["name"], user))


@routes.post("/auth", mode="thread")
def login(backend: Backend, request: Request) -> Response:
    """``POST /auth``."""
    document = request.json()
    domain = str(document.get("serveraddress") or "")
    backend.images.registries.login(registry_domain(domain), parse_credentials(document))
    return json_response({"Status": "Login Succeeded", "IdentityToken": ""})


@routes.post("/build", mode="loop", streams_body=True)
def build(backend: Backend, request: Request) -> Response:
    """``POST /build``."""
    raise NotSupported("builds are not supported: build elsewhere, then use engine load or import")


@routes.post("/build/prune", mode="loop")
def build_prune(backend: Backend, request: Request) -> Response:
    """``POST /build/prune``: there is no cache."""
    return json_response({"CachesDeleted": [], "SpaceReclaimed": 0})
