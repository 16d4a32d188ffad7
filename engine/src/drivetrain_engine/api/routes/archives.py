"""Files of containers: ``cp`` in both directions."""

from __future__ import annotations

import base64
from typing import Any, BinaryIO, cast

import msgspec

from drivetrain.errors import InvalidArgument
from drivetrain_engine.api.backend import Backend
from drivetrain_engine.api.compression import decompressed
from drivetrain_engine.api.messages import Request, Response, Stream
from drivetrain_engine.api.router import Routes

routes = Routes()


def _path(request: Request) -> str:
    path = request.text("path")
    if not path:
        raise InvalidArgument("missing path parameter: path")
    return path


def _stat_header(stat: dict[str, Any]) -> dict[str, str]:
    text = base64.b64encode(msgspec.json.encode(stat)).decode("ascii")
    return {"X-Docker-Container-Path-Stat": text}


@routes.get("/containers/{id}/archive", mode="thread")
def get(backend: Backend, request: Request) -> Stream:
    """``GET /containers/{id}/archive``."""
    path = _path(request)
    stat, source = backend.containers.archive_get(request.parameters["id"], path)
    return Stream(source, "application/x-tar", _stat_header(stat))


@routes.head("/containers/{id}/archive", mode="thread")
def head(backend: Backend, request: Request) -> Response:
    """``HEAD /containers/{id}/archive``."""
    stat = backend.containers.archive_stat(request.parameters["id"], _path(request))
    return Response(headers=_stat_header(stat))


@routes.put("/containers/{id}/archive", mode="thread", streams_body=True)
def put(backend: Backend, request: Request) -> Response:
    """``PUT /containers/{id}/archive``."""
    assert request.stream is not None
    backend.containers.archive_put(
        request.parameters["id"],
        _path(request),
        cast(BinaryIO, decompressed(request.stream)),
        request.flag("noOverwriteDirNonDir"),
        request.flag("copyUIDGID"),
    )
    return Response()
