"""From method and path to a handler."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from drivetrain.errors import EngineError, InvalidArgument, NotFound

API_VERSION = (1, 50)
MINIMUM_API_VERSION = (1, 24)

#: ``loop``: a coroutine or an instant function; ``pool``: short work, in one of the pool's
#: threads; ``thread``: work that may take long, in a thread of its own.
Mode = Literal["loop", "pool", "thread"]
Handler = Callable[..., Any]

_VERSION = re.compile(r"^/v(\d+)\.(\d+)(?=/|$)")
_PARAMETER = re.compile(r"\{(\w+)(:path)?\}")


class MethodNotAllowed(EngineError):
    """The path exists, but not for this method."""

    http_status = 405

    def __init__(self, allowed: Iterable[str]) -> None:
        super().__init__("method not allowed")
        self.allowed = ", ".join(sorted(allowed))


@dataclass(frozen=True, slots=True)
class Route:
    """A handler and how to run it.

    Attributes:
        streams_body: the handler starts before the body is there and reads it itself.
    """

    method: str
    pattern: str
    handler: Handler
    mode: Mode
    streams_body: bool = False


class Routes:
    """A list of routes, filled by decorators: ``@routes.get("/containers/{id}/json")``.

    A parameter matches one segment of the path, ``{name:path}`` any number.
    """

    def __init__(self) -> None:
        self.entries: list[Route] = []

    def add(
        self,
        method: str,
        pattern: str,
        handler: Handler,
        *,
        mode: Mode = "pool",
        streams_body: bool = False,
    ) -> None:
        """Add a route; coroutines always run in the loop."""
        if inspect.iscoroutinefunction(handler):
            mode = "loop"
        self.entries.append(Route(method, pattern, handler, mode, streams_body))

    def _decorator(self, method: str, pattern: str, **how: Any) -> Callable[[Handler], Handler]:
        def register(handler: Handler) -> Handler:
            self.add(method, pattern, handler, **how)
            return handler

        return register

    def get(self, pattern: str, **how: Any) -> Callable[[Handler], Handler]:
        return self._decorator("GET", pattern, **how)

    def head(self, pattern: str, **how: Any) -> Callable[[Handler], Handler]:
        return self._decorator("HEAD", pattern, **how)

    def post(self, pattern: str, **how: Any) -> Callable[[Handler], Handler]:
        return self._decorator("POST", pattern, **how)

    def put(self, pattern: str, **how: Any) -> Callable[[Handler], Handler]:
        return self._decorator("PUT", pattern, **how)

    def delete(self, pattern: str, **how: Any) -> Callable[[Handler], Handler]:
        return self._decorator("DELETE", pattern, **how)


def negotiate(path: str) -> tuple[tuple[int, int], str]:
    """Split the version off a path.

    Raises:
        InvalidArgument: the client is too old or too new, in the words that clients know.
    """
    match = _VERSION.match(path)
    if match is None:
        return API_VERSION, path
    version = (int(match[1]), int(match[2]))
    shown = f"{version[0]}.{version[1]}"
    if version > API_VERSION:
        raise InvalidArgument(
            f"client version {shown} is too new. Maximum supported API version is "
            f"{API_VERSION[0]}.{API_VERSION[1]}"
        )
    if version < MINIMUM_API_VERSION:
        raise InvalidArgument(
            f"client version {shown} is too old. Minimum supported API version is "
            f"{MINIMUM_API_VERSION[0]}.{MINIMUM_API_VERSION[1]}, please upgrade your client to "
            f"a newer version"
        )
    return version, path[match.end() :] or "/"


def _compile(pattern: str) -> re.Pattern[str]:
    text = ""
    position = 0
    for match in _PARAMETER.finditer(pattern):
        text += re.escape(pattern[position : match.start()])
        text += f"(?P<{match[1]}>{'.+' if match[2] else '[^/]+'})"
        position = match.end()
    return re.compile(text + re.escape(pattern[position:]))


class Router:
    """All routes, looked up by the first segment of the path and then in order."""

    def __init__(self, groups: Iterable[Routes]) -> None:
        self._exact: dict[str, dict[str, Route]] = {}
        self._patterns: dict[str, list[tuple[re.Pattern[str], Route]]] = {}
        for group in groups:
            for route in group.entries:
                if "{" in route.pattern:
                    first = route.pattern.split("/", 2)[1]
                    key = "" if "{" in first else first
                    entries = self._patterns.setdefault(key, [])
                    entries.append((_compile(route.pattern), route))
                else:
                    self._exact.setdefault(route.pattern, {}).setdefault(route.method, route)

    def resolve(self, method: str, path: str) -> tuple[Route, dict[str, str]]:
        """Return the route of a path without version, and its parameters.

        Raises:
            NotFound: no route has this path.
            MethodNotAllowed: one has, for other methods.
        """
        exact = self._exact.get(path)
        if exact is not None and method in exact:
            return exact[method], {}
        allowed = set(exact or ())
        first = path.split("/", 2)[1] if path.startswith("/") else ""
        for pattern, route in (*self._patterns.get(first, ()), *self._patterns.get("", ())):
            match = pattern.fullmatch(path)
            if match is not None:
                if route.method == method:
                    return route, match.groupdict()
                allowed.add(route.method)
        if allowed:
            raise MethodNotAllowed(allowed)
        raise NotFound("page not found")
