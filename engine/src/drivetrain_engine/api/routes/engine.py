"""What is ours and not Docker's: drivers, metrics, the routes of extensions."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from drivetrain.errors import InvalidArgument, NotFound
from drivetrain.extension import Metric
from drivetrain.options import Option
from drivetrain.registry import DriverInfo
from drivetrain_engine.api.answers import ENGINE_VERSION
from drivetrain_engine.api.backend import Backend
from drivetrain_engine.api.messages import Request, Response, json_response
from drivetrain_engine.api.router import MethodNotAllowed, Routes

routes = Routes()

FAMILIES = ("storage", "network", "log", "volume")
_SCHEMAS = {
    "storage": ("storage_options", "layer_options"),
    "network": ("network_options", "endpoint_options"),
    "log": ("log_options",),
    "volume": ("volume_options",),
}


def _users(backend: Backend, family: str) -> dict[str, int]:
    """Return how many objects use each driver of a family."""
    if family == "storage":
        return dict(backend.layers.in_use())
    users: dict[str, int] = {}
    if family == "network":
        names = [str(network["Driver"]) for network in backend.networks.list({})]
    elif family == "volume":
        names = [str(volume["Driver"]) for volume in backend.volumes.list({})[0]]
    else:
        names = [
            str(backend.containers.inspect(str(each["Id"]))["HostConfig"]["LogConfig"]["Type"])
            for each in backend.containers.list(all=True)
        ]
    for name in names:
        users[name] = users.get(name, 0) + 1
    return users


def _entry(backend: Backend, info: DriverInfo, users: Mapping[str, int]) -> dict[str, Any]:
    facts = backend.facts()
    defaults = {
        "storage": facts.storage_driver,
        "network": "bridge",
        "log": facts.log_driver,
        "volume": "local",
    }
    supported, reason = None, info.reason
    if info.state == "ok" and info.family in FAMILIES:
        reason = backend.registry.probe(info.family, info.name, Path(facts.root))
        supported = not reason
    return {
        "family": info.family,
        "name": info.name,
        "distribution": info.distribution,
        "version": info.version,
        "state": info.state,
        "supported": supported,
        "reason": reason,
        "in_use": users.get(info.name, 0),
        "default": defaults.get(info.family) == info.name,
    }


@routes.get("/engine/drivers", mode="thread")
def drivers(backend: Backend, request: Request) -> Response:
    """``GET /engine/drivers``: every installed driver, broken and blocked ones too."""
    found = []
    for family in (*FAMILIES, "extension"):
        users = _users(backend, family) if family in FAMILIES else {}
        for info in backend.registry.describe(family):
            found.append(_entry(backend, info, users))
    return json_response(found)


def _family(request: Request) -> str:
    family = request.parameters["family"]
    if family not in FAMILIES:
        raise NotFound(f"No such driver family: {family} (there are {', '.join(FAMILIES)})")
    return family


def _option(option: Option) -> dict[str, Any]:
    return {
        "name": option.name,
        "type": option.type,
        "help": option.help,
        "default": "***" if option.secret and option.default else option.default,
        "choices": list(option.choices),
        "required": option.required,
        "repeatable": option.repeatable,
        "secret": option.secret,
        "retired": option.retired,
    }


@routes.get("/engine/drivers/{family}/{name}", mode="thread")
def driver(backend: Backend, request: Request) -> Response:
    """``GET /engine/drivers/{family}/{name}``: what it is, its hooks and its options."""
    family, name = _family(request), request.parameters["name"]
    info = next((each for each in backend.registry.describe(family) if each.name == name), None)
    if info is None or info.state == "ok":
        found = backend.registry.driver(family, name)
    if info is None:
        raise NotFound(f"No such {family} driver: {name}")
    document = _entry(backend, info, _users(backend, family))
    document |= {"hooks": [], "options": [], "status": []}
    if info.state != "ok":
        return json_response(document)
    document["hooks"] = [hook for hook in _hook_names(family) if found.implements(hook)]
    document["options"] = [
        _option(option) for schema in _SCHEMAS[family] for option in getattr(found.call, schema)()
    ]
    if family == "storage" and backend.layers.in_use().get(name):
        document["status"] = [list(pair) for pair in backend.layers.status(name)]
    if family != "storage":
        traits = getattr(found.call, f"{family}_traits")()
        named = traits._asdict() if hasattr(traits, "_asdict") else traits
        document["traits"] = msgspec.to_builtins(named)
    return json_response(document)


def _hook_names(family: str) -> list[str]:
    module = importlib.import_module(f"drivetrain.{family}")
    hooks = vars(getattr(module, f"{family.capitalize()}Hooks"))
    return [name for name, value in hooks.items() if callable(value) and not name.startswith("_")]


@routes.post("/engine/drivers/{family}/{name}/probe", mode="thread")
def probe(backend: Backend, request: Request) -> Response:
    """``POST /engine/drivers/{family}/{name}/probe``: can this host carry the driver?"""
    family, name = _family(request), request.parameters["name"]
    reason = backend.registry.probe(family, name, Path(backend.facts().root))
    return json_response({"supported": not reason, "reason": reason})


def render_metrics(metrics: Iterable[Metric]) -> bytes:
    """Return metrics in Prometheus' text format, those of one name together."""
    groups: dict[str, list[Metric]] = {}
    for metric in metrics:
        groups.setdefault(metric.name, []).append(metric)
    lines = []
    for name, group in groups.items():
        if group[0].help:
            text = group[0].help.replace("\\", r"\\").replace("\n", r"\n")
            lines.append(f"# HELP {name} {text}")
        lines.append(f"# TYPE {name} {group[0].type}")
        for metric in group:
            labels = ",".join(f'{key}="{_escape(text)}"' for key, text in metric.labels.items())
            value = f"{metric.value:.17g}"
            lines.append(f"{name}{{{labels}}} {value}" if labels else f"{name} {value}")
    return ("\n".join(lines) + "\n").encode()


def _escape(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _own_metrics(backend: Backend, request: Request) -> Iterable[Metric]:
    yield Metric("engine_info", 1, "the engine", "gauge", {"version": ENGINE_VERSION})
    counts = backend.containers.counts()
    for state in ("running", "paused", "stopped"):
        yield Metric("engine_containers", counts[state], "containers", "gauge", {"state": state})
    yield Metric("engine_images", len(backend.images.list()), "images")
    yield Metric("engine_networks", len(backend.networks.list({})), "networks")
    yield Metric("engine_volumes", len(backend.volumes.list({})[0]), "volumes")
    yield Metric("engine_requests_total", request.front.requests, "requests of the API", "counter")
    for container, status in backend.containers.log_statuses():
        labels = {"name": container, "driver": status.driver}
        text = "lines of logs that were given up"
        yield Metric("engine_log_dropped_lines_total", status.dropped, text, "counter", labels)
        text = "bytes of logs that wait for a log driver"
        yield Metric("engine_log_waiting_bytes", status.waiting, text, "gauge", labels)
    yield Metric("engine_requests_open", request.front.open_requests, "requests under way")


@routes.get("/metrics")
def metrics(backend: Backend, request: Request) -> Response:
    """``GET /metrics``: ours and those of extensions."""
    found = list(_own_metrics(backend, request))
    for extension in backend.extensions:
        for answer in extension.call.extension_metrics() or ():
            found += answer if isinstance(answer, (list, tuple)) else [answer]
    return Response(render_metrics(found), content_type="text/plain; version=0.0.4; charset=utf-8")


def _extension(backend: Backend, request: Request) -> Response:
    """Serve ``/extensions/NAME/…`` by the extension's own routes."""
    name, path = request.parameters["name"], request.parameters["path"].strip("/")
    found = next((each for each in backend.extensions if each.name == name), None)
    if found is None:
        raise NotFound(f"No such extension: {name}")
    allowed = []
    for route in found.call.extension_routes() or ():
        if route.path.strip("/") != path:
            continue
        if route.method.upper() != request.method:
            allowed.append(route.method.upper())
            continue
        body: object = None
        if request.body.strip():
            try:
                body = msgspec.json.decode(request.body)
            except msgspec.DecodeError as error:
                raise InvalidArgument(f"invalid JSON: {error}") from None
        query = {key: values[0] for key, values in request.query.items()}
        answer = route.handler(query, body)
        return json_response(answer.body, answer.status)
    if allowed:
        raise MethodNotAllowed(allowed)
    raise NotFound(f"extension {name} has no route {path}")


for _method in ("GET", "POST", "PUT", "DELETE", "HEAD"):
    routes.add(_method, "/extensions/{name}/{path:path}", _extension)
