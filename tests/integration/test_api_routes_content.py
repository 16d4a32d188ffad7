"""Images, volumes and events over HTTP, with the real services behind them."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import pytest

from drivetrain.registry import Registry
from drivetrain.testing.rootfs import busybox_tar
from drivetrain_engine.api.backend import Backend
from drivetrain_engine.api.front import Front
from drivetrain_engine.api.router import Router
from drivetrain_engine.api.routes import all_routes
from drivetrain_engine.content import Images
from drivetrain_engine.state import Events, State
from drivetrain_engine.volumes import Volumes

DEADLINE = 30


class Connection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("engine", timeout=DEADLINE)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(DEADLINE)
        self.sock.connect(str(self._path))


class Service:
    """A front door with images, volumes and events behind it."""

    def __init__(self, root: Path) -> None:
        self.path = root / "s"
        self.state = State(root / "state.db")
        self.events = Events()
        self.images = Images(root=root / "content", state=self.state, events=self.events)
        registry = Registry()
        self.volumes = Volumes(
            root=root / "volumes", state=self.state, registry=registry, events=self.events
        )
        self._backend = Backend(
            registry=registry,
            events=self.events,
            images=self.images,
            volumes=self.volumes,
            layers=NoLayers(),  # type: ignore[arg-type]
            networks=None,  # type: ignore[arg-type]
            containers=None,  # type: ignore[arg-type]
            facts=lambda: SimpleNamespace(root=str(root)),  # type: ignore[arg-type,return-value]
        )
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()), daemon=True)
        self._thread.start()
        assert self._ready.wait(DEADLINE)

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        front = Front(Router(all_routes()), self._backend)
        server = await self._loop.create_unix_server(front.protocol, str(self.path))
        self._ready.set()
        await self._stop.wait()
        server.close()
        await front.close(0.5)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(DEADLINE)
        self.volumes.close()
        self.state.close()

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        data = json.dumps(body).encode() if isinstance(body, dict) else body
        connection = Connection(self.path)
        try:
            connection.request(method, "/v1.47" + path, data, encode_chunked=False)
            response = connection.getresponse()
            content = response.read()
        finally:
            connection.close()
        if response.headers.get("Content-Type") == "application/json" and content:
            lines = [json.loads(line) for line in content.splitlines() if line.strip()]
            return response.status, lines[0] if len(lines) == 1 else lines
        return response.status, content

    def load_busybox(self) -> str:
        status, answer = self.ask(
            "POST", "/images/create?fromSrc=-&repo=busybox&tag=1&changes=CMD%20sh", busybox_tar()
        )
        assert status == 200
        return str(answer["status"])


class NoLayers:
    """Nothing was unpacked in these tests."""

    def discard_image_layers(self) -> None:
        pass


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    opened = Service(tmp_path)
    yield opened
    opened.close()


def test_an_imported_image_is_listed_inspected_tagged_and_removed(service: Service) -> None:
    image_id = service.load_busybox()
    assert image_id.startswith("sha256:")
    assert service.ask("POST", "/images/busybox:1/tag?repo=a.b:5000/c/d&tag=2")[0] == 201
    status, found = service.ask("GET", "/images/a.b:5000/c/d:2/json")
    assert (status, found["Id"]) == (200, image_id)
    assert found["Config"]["Cmd"] == ["/bin/sh", "-c", "sh"]
    _, listed = service.ask("GET", "/images/json")
    (entry,) = listed if isinstance(listed[0], dict) else listed[0]
    assert sorted(entry["RepoTags"]) == ["a.b:5000/c/d:2", "busybox:1"]
    assert service.ask("GET", "/images/busybox:1/history")[0] == 200
    assert (
        service.ask("DELETE", "/images/a.b:5000/c/d:2")[1] == [{"Untagged": "a.b:5000/c/d:2"}]
        or service.ask("GET", "/images/a.b:5000/c/d:2/json")[0] == 404
    )
    assert service.ask("DELETE", "/images/busybox:1")[0] == 200
    assert service.ask("GET", f"/images/{image_id}/json")[0] == 404


def test_a_saved_image_can_be_loaded_again(service: Service) -> None:
    image_id = service.load_busybox()
    status, archive = service.ask("GET", "/images/get?names=busybox:1")
    assert status == 200
    assert service.ask("DELETE", "/images/busybox:1")[0] == 200
    status, answer = service.ask("POST", "/images/load", archive)
    assert (status, answer) == (200, {"stream": "Loaded image: busybox:1\n"})
    assert service.ask("GET", "/images/busybox:1/json")[1]["Id"] == image_id


def test_a_damaged_archive_is_refused_with_a_status(service: Service) -> None:
    status, answer = service.ask("POST", "/images/load", b"x" * 100000)
    assert status == 400
    assert answer["message"]


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("GET", "/images/nothing/json", 404, "No such image: nothing"),
        ("GET", "/images/get?names=nothing", 404, "nothing"),
        ("POST", "/images/create?fromImage=127.0.0.1:1/x&tag=1", 503, "cannot reach the registry"),
        ("POST", "/images/create?fromSrc=http://x/y.tar", 501, "cannot import from http://x/y.tar"),
        ("POST", "/images/nothing/push", 404, "does not exist locally with the tag: nothing"),
        ("POST", "/images/x/push?tag=X!", 400, "invalid reference format"),
        ("GET", "/images/search?term=x", 501, "searching"),
        ("GET", "/distribution/127.0.0.1:1/x/json", 503, "cannot reach the registry 127.0.0.1:1"),
        ("POST", "/build?t=x", 501, "builds are not supported"),
        ("POST", "/swarm/init", 501, "clusters"),
        ("POST", "/swarm/leave", 503, "This node is not part of a swarm"),
        ("GET", "/services", 503, "This node is not a swarm manager"),
        ("GET", "/nodes/x", 503, "This node is not a swarm manager"),
        ("POST", "/plugins/pull", 501, "plugins are not supported"),
        ("POST", "/session", 404, "page not found"),
        ("POST", "/grpc", 404, "page not found"),
        ("GET", "/volumes/nothing", 404, "nothing"),
        ("PUT", "/volumes/x?version=1", 503, "swarm is unavailable"),
        ("POST", "/containers/create", 400, "config cannot be empty"),
        ("POST", "/networks/create", 400, "EOF"),
        ("POST", "/containers/x/resize?h=5", 400, "invalid resize width"),
        ("POST", "/containers/x/wait?condition=soon", 400, "invalid condition"),
        ("GET", "/containers/x/logs", 400, "you must choose at least one stream"),
        ("GET", "/containers/x/archive", 400, "path"),
        ("GET", "/engine/drivers/colour/red", 404, "No such driver family: colour"),
        ("GET", "/engine/drivers/log/red", 404, "pip install drivetrain-log-red"),
        ("GET", "/extensions/none/status", 404, "No such extension: none"),
        ("GET", "/events?filters=%7B%22colour%22%3A%5B%22x%22%5D%7D", 400, "colour"),
        ("PATCH", "/images/json", 405, "method not allowed"),
    ],
)
def test_errors_are_what_clients_expect(
    service: Service, method: str, path: str, status: int, message: str
) -> None:
    found, answer = service.ask(method, path)
    assert found == status
    assert message in answer["message"]


def test_volumes_are_made_listed_and_removed(service: Service) -> None:
    status, made = service.ask("POST", "/volumes/create", {"Name": "data", "Labels": {"a": "b"}})
    assert (status, made["Driver"], made["Labels"]) == (201, "local", {"a": "b"})
    status, unnamed = service.ask("POST", "/volumes/create")
    assert status == 201 and unnamed["Name"]
    filters = quote(json.dumps({"label": ["a=b"]}))
    _, listed = service.ask("GET", f"/volumes?filters={filters}")
    assert [volume["Name"] for volume in listed["Volumes"]] == ["data"]
    assert service.ask("POST", "/volumes/prune")[1]["VolumesDeleted"] == [unnamed["Name"]]
    assert service.ask("DELETE", "/volumes/data")[0] == 204
    assert service.ask("DELETE", "/volumes/data")[0] == 404


def test_a_driver_can_be_tried(service: Service) -> None:
    status, answer = service.ask("POST", "/engine/drivers/volume/local/probe")
    assert (status, answer) == (200, {"supported": True, "reason": ""})


def test_events_of_the_past_and_the_present_come_once_each(service: Service) -> None:
    started = time.time_ns()
    service.ask("POST", "/volumes/create", {"Name": "one"})
    connection = Connection(service.path)
    filters = quote(json.dumps({"type": ["volume"]}))
    since = f"{started // 10**9}.{started % 10**9:09}"
    connection.request("GET", f"/events?since={since}&filters={filters}")
    response = connection.getresponse()
    first = json.loads(response.readline())
    service.ask("POST", "/volumes/create", {"Name": "two"})
    second = json.loads(response.readline())
    connection.close()
    assert [each["Actor"]["ID"] for each in (first, second)] == ["one", "two"]
    assert (first["Type"], first["Action"], first["scope"]) == ("volume", "create", "local")
    assert first["timeNano"] >= started


def test_events_end_at_until_and_the_listener_goes(service: Service) -> None:
    before = len(service.events.listeners)
    status, answer = service.ask("GET", f"/events?until={time.time() + 0.3:.3f}")
    assert (status, answer) == (200, b"") or (status, answer) == (200, [])
    assert len(service.events.listeners) == before


def test_a_ping_says_what_a_client_needs(service: Service) -> None:
    connection = Connection(service.path)
    connection.request("HEAD", "/_ping")
    response = connection.getresponse()
    assert response.status == 200
    assert response.headers["Api-Version"] == "1.50"
    assert response.headers["Ostype"] == "linux"
    assert response.headers["Swarm"] == "inactive"
    connection.close()
