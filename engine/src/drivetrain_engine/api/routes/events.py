"""``GET /events``: what happened, and what happens."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping

import msgspec

from drivetrain.errors import InvalidArgument
from drivetrain.extension import Event
from drivetrain_engine.api.backend import Backend
from drivetrain_engine.api.bridging import Mailbox
from drivetrain_engine.api.messages import LiveStream, Request
from drivetrain_engine.api.router import Routes
from drivetrain_engine.api.routes.streams import parse_time

routes = Routes()

_BY_OBJECT = ("container", "image", "network", "volume", "daemon", "plugin")
_KNOWN = frozenset((*_BY_OBJECT, "event", "label", "scope", "type"))
_UNUSED = frozenset(("config", "node", "secret", "service"))


def document(event: Event) -> dict[str, object]:
    """Return an event as clients read it, old fields included."""
    shown: dict[str, object] = {
        "Type": event.type,
        "Action": event.action,
        "Actor": {"ID": event.id, "Attributes": dict(event.attributes)},
        "scope": "local",
        "time": event.time // 10**9,
        "timeNano": event.time,
    }
    if event.type in ("container", "image"):
        shown |= {"status": event.action, "id": event.id}
        if image := event.attributes.get("image"):
            shown["from"] = image
    return shown


def _label_matches(wanted: str, attributes: Mapping[str, str]) -> bool:
    key, equals, value = wanted.partition("=")
    return key in attributes and (not equals or attributes[key] == value)


def _object_matches(kind: str, wanted: str, event: Event) -> bool:
    if event.type != kind:
        # Docker's filter by image also finds the containers made of it.
        return kind == "image" and event.attributes.get("image") in (wanted, f"{wanted}:latest")
    name = event.attributes.get("name", "")
    return (
        event.id == wanted
        or name == wanted
        or (len(wanted) >= 4 and event.id.removeprefix("sha256:").startswith(wanted))
        or (kind == "image" and name.partition(":")[0] == wanted)
    )


def matcher(filters: Mapping[str, list[str]]) -> Callable[[Event], bool]:
    """Return a test for events: values of one key are alternatives, keys are conditions.

    Raises:
        InvalidArgument: an unknown key.
    """
    for key in filters:
        if key not in _KNOWN | _UNUSED:
            raise InvalidArgument(f"invalid filter '{key}'")

    def matches(event: Event) -> bool:
        for key, values in filters.items():
            if not values:
                continue
            if key == "type":
                found = event.type in values
            elif key == "event":
                # "exec_start: sh -c …" is found by exec_start too
                found = event.action in values or event.action.partition(":")[0] in values
            elif key == "scope":
                found = "local" in values
            elif key == "label":
                found = all(_label_matches(value, event.attributes) for value in values)
            elif key in _BY_OBJECT:
                found = any(_object_matches(key, value, event) for value in values)
            else:
                found = False
            if not found:
                return False
        return True

    return matches


@routes.get("/events")
async def events(backend: Backend, request: Request) -> LiveStream:
    """``GET /events``: the past from ``since``, then the present up to ``until``."""
    since, until = parse_time(request.text("since")), parse_time(request.text("until"))
    matches = matcher(request.filters())
    mailbox: Mailbox[Event] = Mailbox()
    # Listen first and look back then: what happens in between comes twice, and never not at all.
    backend.events.listeners.append(mailbox.post)
    past = backend.events.history(since, until or time.time_ns()) if since else []

    async def source() -> AsyncGenerator[bytes, None]:
        try:
            seen = {id(event) for event in past}
            for event in past:
                if matches(event):
                    yield msgspec.json.encode(document(event)) + b"\n"
            while True:
                left = None if not until else (until - time.time_ns()) / 1e9
                if left is not None and left <= 0:
                    return
                try:
                    event = await asyncio.wait_for(mailbox.get(), left)
                except TimeoutError:
                    return
                if id(event) not in seen and matches(event):
                    yield msgspec.json.encode(document(event)) + b"\n"
        finally:
            backend.events.listeners.remove(mailbox.post)

    return LiveStream(source())
