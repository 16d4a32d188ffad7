"""The engine as a whole: ping, version, info, disk usage."""

from __future__ import annotations

import os
import platform
import threading
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import msgspec

from drivetrain_engine.api import hostinfo
from drivetrain_engine.api.answers import ENGINE_VERSION
from drivetrain_engine.api.backend import Backend
from drivetrain_engine.api.messages import Request, Response, json_response
from drivetrain_engine.api.platforms import architecture
from drivetrain_engine.api.router import API_VERSION, MINIMUM_API_VERSION, Routes

routes = Routes()

_PING_HEADERS = {
    "Builder-Version": "1",
    "Cache-Control": "no-cache, no-store, must-revalidate",
    "Pragma": "no-cache",
    "Swarm": "inactive",
}
_PING = Response(b"OK", content_type="text/plain; charset=utf-8", headers=_PING_HEADERS)
_API = f"{API_VERSION[0]}.{API_VERSION[1]}"
_MINIMUM = f"{MINIMUM_API_VERSION[0]}.{MINIMUM_API_VERSION[1]}"


@routes.head("/_ping", mode="loop")
@routes.get("/_ping", mode="loop")
def ping(backend: Backend, request: Request) -> Response:
    """``GET /_ping``."""
    return _PING


@routes.get("/version")
def version(backend: Backend, request: Request) -> Response:
    """``GET /version``."""
    facts = backend.facts()
    details = {
        "ApiVersion": _API,
        "Arch": architecture(),
        "BuildTime": facts.started,
        "Experimental": "false",
        "GitCommit": "",
        "GoVersion": "",
        "KernelVersion": os.uname().release,
        "MinAPIVersion": _MINIMUM,
        "Os": "linux",
        "PythonVersion": platform.python_version(),
    }
    runtime = hostinfo.runtime_version(facts.runtimes.get(facts.default_runtime, ""))
    components = [{"Name": "Engine", "Version": ENGINE_VERSION, "Details": details}]
    if runtime:
        components.append({"Name": facts.default_runtime, "Version": runtime, "Details": {}})
    return json_response(
        {
            "Platform": {"Name": "Drivetrain"},
            "Components": components,
            "Version": ENGINE_VERSION,
            "ApiVersion": _API,
            "MinAPIVersion": _MINIMUM,
            "GitCommit": "",
            "GoVersion": "",
            "Os": "linux",
            "Arch": architecture(),
            "KernelVersion": os.uname().release,
            "BuildTime": facts.started,
        }
    )


@routes.get("/info")
def info(backend: Backend, request: Request) -> Response:
    """``GET /info``."""
    facts = backend.facts()
    document = _counts(backend) | _drivers(backend) | hostinfo.capabilities() | hostinfo.host()
    document |= {
        "ID": facts.id,
        "Name": facts.name,
        "Driver": facts.storage_driver,
        "DriverStatus": [list(pair) for pair in backend.layers.status()],
        "DockerRootDir": facts.root,
        "ExecRoot": facts.exec_root,
        "Settings": msgspec.to_builtins(facts.settings),
        "Debug": facts.debug,
        "NFd": len(os.listdir("/proc/self/fd")),
        "NGoroutines": threading.active_count(),
        "NEventsListener": len(backend.events.listeners),
        "SystemTime": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
        "LoggingDriver": facts.log_driver,
        "Labels": list(facts.labels),
        "ExperimentalBuild": False,
        "ServerVersion": ENGINE_VERSION,
        "Runtimes": {name: {"path": path} for name, path in facts.runtimes.items()},
        "DefaultRuntime": facts.default_runtime,
        "LiveRestoreEnabled": facts.live_restore,
        "InitBinary": facts.init_binary,
        "DefaultAddressPools": [{"Base": base, "Size": size} for base, size in facts.pools],
        "SecurityOptions": hostinfo.security_options(facts.seccomp_profile),
        "Warnings": list(facts.warnings),
    }
    return json_response(document)


def _counts(backend: Backend) -> dict[str, Any]:
    counts = backend.containers.counts()
    return {
        "Containers": counts["total"],
        "ContainersRunning": counts["running"],
        "ContainersPaused": counts["paused"],
        "ContainersStopped": counts["stopped"],
        "Images": len(backend.images.list()),
    }


def _registries(backend: Backend) -> dict[str, Any]:
    settings = backend.images.registries.settings
    networks = [text for text in settings.insecure if "/" in text]
    hub = {"Name": "docker.io", "Mirrors": list(settings.mirrors), "Secure": True, "Official": True}
    others = {
        name: {"Name": name, "Mirrors": [], "Secure": False, "Official": False}
        for name in settings.insecure
        if "/" not in name
    }
    return {
        "InsecureRegistryCIDRs": ["::1/128", "127.0.0.0/8", *networks],
        "IndexConfigs": {"docker.io": hub, **others},
        "Mirrors": list(settings.mirrors),
    }


def _drivers(backend: Backend) -> dict[str, Any]:
    names = backend.registry.names
    return {
        "Plugins": {
            "Volume": names("volume"),
            "Network": names("network"),
            "Authorization": None,
            "Log": names("log"),
            "Storage": names("storage"),
        },
        "Swarm": {
            "NodeID": "",
            "NodeAddr": "",
            "LocalNodeState": "inactive",
            "ControlAvailable": False,
            "Error": "",
            "RemoteManagers": None,
        },
        "RegistryConfig": _registries(backend),
        "IndexServerAddress": "https://index.docker.io/v1/",
        "GenericResources": None,
        "ContainerdCommit": {"ID": ""},
        "RuncCommit": {"ID": ""},
        "InitCommit": {"ID": ""},
    }


@routes.get("/system/df", mode="thread")
def disk_usage(backend: Backend, request: Request) -> Response:
    """``GET /system/df``."""
    kinds = request.query.get("type", ["container", "image", "volume", "build-cache"])
    document: dict[str, Any] = {"BuilderSize": 0}
    if "image" in kinds:
        images = backend.images.summaries({}, True, shared_size=True)
        used = Counter(one["ImageID"] for one in backend.containers.list(all=True))
        for image in images:
            image["Containers"] = used[image["Id"]]
        document["Images"] = images
        document["LayersSize"] = backend.images.layers_size()
    if "container" in kinds:
        document["Containers"] = backend.containers.list(all=True, size=True)
    if "volume" in kinds:
        document["Volumes"] = backend.volumes.usage()
    if "build-cache" in kinds:
        document["BuildCache"] = []
    return json_response(document)
