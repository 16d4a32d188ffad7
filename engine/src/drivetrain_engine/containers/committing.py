"""``commit``: an image of a container."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import msgspec

from drivetrain.errors import EngineError, InvalidArgument
from drivetrain.options import parse_boolean
from drivetrain_engine.containers.container import Container
from drivetrain_engine.containers.services import Services
from drivetrain_engine.content.changes import apply_changes

Json = dict[str, Any]

_KEPT = (
    "User", "ExposedPorts", "Env", "Entrypoint", "Cmd", "Healthcheck", "Volumes", "WorkingDir",
    "OnBuild", "Labels", "StopSignal", "Shell", "ArgsEscaped",
)  # fmt: skip


def _config(container: Container, body: Mapping[str, Any] | None, changes: list[str]) -> Json:
    """Return the config of the new image: the container's, the body's on top, then changes."""
    document: Json = msgspec.to_builtins(container.record.config)
    config = {key: document[key] for key in _KEPT if document.get(key)}
    for key in _KEPT:
        given = (body or {}).get(key)
        if given:
            if isinstance(given, dict) and key in ("ExposedPorts", "Labels", "Volumes"):
                given = {**(config.get(key) or {}), **given}
            config[key] = given
    return apply_changes(config, changes)


def commit(
    services: Services, container: Container, query: Mapping[str, str], body: Json | None
) -> str:
    """Make an image of a container and return its id.

    Args:
        services: images and layers.
        container: paused meanwhile, unless the query says otherwise.
        query: repo, tag, author, comment, changes, pause.
        body: a ``ContainerConfig`` that is put over the container's.

    Raises:
        InvalidArgument: a bad name or change.
    """
    changes = (query.get("changes") or "").splitlines()
    config = _config(container, body, changes)
    reference = query.get("repo") or ""
    if reference and query.get("tag"):
        reference += ":" + query["tag"]
    try:
        pause = parse_boolean(query.get("pause") or "true")
    except ValueError:
        raise InvalidArgument(f"invalid value for pause: {query.get('pause')}") from None
    record = container.record
    parent = services.images.get(record.image_id) if record.image_id else None
    with ExitStack() as stack:
        if pause:
            _pause(container, stack)
        image = services.images.commit(
            parent=parent,
            layer=services.layers.diff_tar(container.id),
            config=config,
            author=query.get("author") or "",
            comment=query.get("comment") or "",
            reference=reference,
        )
    services.emit(
        container,
        "commit",
        comment=query.get("comment") or "",
        imageID=image.id,
        imageRef=reference,
    )
    return image.id


def _pause(container: Container, stack: ExitStack) -> None:
    """Freeze a running container until the stack unwinds."""
    with container.lock:
        shim = container.shim
        if shim is None or container.record.state.paused:
            return
        shim.pause()

    def resume() -> None:
        try:
            shim.resume()
        except EngineError:
            pass  # it was killed meanwhile

    stack.callback(resume)
