"""The front door over a real unix socket, spoken to byte by byte."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from drivetrain.errors import InUse
from drivetrain_engine.api.front import Front
from drivetrain_engine.api.messages import (
    Hijack,
    LiveStream,
    Request,
    Response,
    Stream,
    json_response,
)
from drivetrain_engine.api.router import Router, Routes

DEADLINE = 30


def wait_until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, f"not within {DEADLINE} s: {what}"
        time.sleep(0.005)


class Door:
    """A front door in a thread, with routes that the tests need."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.peers: list[socket.socket] = []
        self.cancelled = threading.Event()
        self.closed_source = threading.Event()
        self.release = threading.Event()
        self.fed = threading.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()), daemon=True)
        self._thread.start()
        assert self._ready.wait(DEADLINE)

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self.front = Front(Router([self._routes()]), self)
        server = await self._loop.create_unix_server(self.front.protocol, str(self.path))
        self._ready.set()
        await self._stop.wait()
        server.close()
        await self.front.close(0.5)

    def close(self) -> None:
        self.release.set()
        for peer in self.peers:
            peer.close()
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(DEADLINE)
        assert not self._thread.is_alive()

    def _routes(self) -> Routes:
        routes = Routes()
        routes.add("GET", "/ping", lambda door, request: Response(b"OK"), mode="loop")
        routes.add("HEAD", "/ping", lambda door, request: Response(b"OK"), mode="loop")
        routes.add("POST", "/echo", lambda door, request: Response(request.body))
        routes.add("GET", "/items/{name:path}/json", _show)
        routes.add("POST", "/count", _count, mode="thread", streams_body=True)
        routes.add("POST", "/refuse", _refuse, mode="thread", streams_body=True)
        routes.add("GET", "/stream", _stream)
        routes.add("GET", "/broken", _broken)
        routes.add("GET", "/fails", _fails)
        routes.add("GET", "/busy", _busy)
        routes.add("GET", "/live", _live)
        routes.add("POST", "/attach", _attach)
        return routes

    def connect(self) -> socket.socket:
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(DEADLINE)
        client.connect(str(self.path))
        return client


def _show(door: Door, request: Request) -> Response:
    return json_response({"name": request.parameters["name"], "query": request.query})


def _count(door: Door, request: Request) -> Response:
    assert request.stream is not None
    total = 0
    door.fed.wait(DEADLINE) if request.flag("wait") else None
    while piece := request.stream.read(65536):
        total += len(piece)
    return json_response(total)


def _refuse(door: Door, request: Request) -> Response:
    raise InUse("not today")


def _stream(door: Door, request: Request) -> Stream:
    def pieces() -> Iterator[bytes]:
        try:
            for number in range(request.number("n") or 0):
                yield b"%d\n" % number
            if request.flag("endless"):
                while True:
                    yield b"x" * 65536
        finally:
            door.closed_source.set()

    return Stream(pieces(), "text/plain")


def _fails(door: Door, request: Request) -> Stream:
    def pieces() -> Iterator[bytes]:
        raise InUse("before the first piece")
        yield b""

    return Stream(pieces())


def _broken(door: Door, request: Request) -> Response:
    raise RuntimeError("a bug")


def _busy(door: Door, request: Request) -> Response:
    raise InUse("somebody has it")


async def _live(door: Door, request: Request) -> LiveStream:
    async def source():
        try:
            while not door.release.is_set():
                await asyncio.sleep(0.01)
            yield b'{"StatusCode":0}\n'
        except asyncio.CancelledError:
            door.cancelled.set()
            raise

    return LiveStream(source())


def _attach(door: Door, request: Request) -> Hijack:
    ours, theirs = socket.socketpair()
    ours.settimeout(DEADLINE)
    door.peers.append(ours)
    if request.flag("greet"):
        ours.sendall(b"at once")
    backlog = iter([b"old ", b"lines "]) if request.flag("logs") else None
    return Hijack(theirs, backlog, detach_keys=b"\x10\x11" if request.flag("tty") else b"")


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    opened = Door(tmp_path / "s")
    yield opened
    opened.close()


class Reply:
    def __init__(self, client: socket.socket) -> None:
        self.file = client.makefile("rb")

    def head(self) -> tuple[int, dict[str, str]]:
        status = int(self.file.readline().split()[1])
        headers = {}
        while line := self.file.readline().strip():
            name, _, value = line.decode().partition(": ")
            headers[name.lower()] = value
        return status, headers

    def read(self) -> tuple[int, dict[str, str], bytes]:
        status, headers = self.head()
        if headers.get("transfer-encoding") == "chunked":
            return status, headers, b"".join(self.chunks())
        return status, headers, self.file.read(int(headers.get("content-length", 0)))

    def chunks(self) -> Iterator[bytes]:
        while size := int(self.file.readline(), 16):
            yield self.file.read(size)
            assert self.file.readline() == b"\r\n"
        assert self.file.readline() == b"\r\n"


def ask(door: Door, data: bytes) -> tuple[int, dict[str, str], bytes]:
    with door.connect() as client:
        client.sendall(data)
        return Reply(client).read()


def test_a_thousand_requests_go_over_one_connection(door: Door) -> None:
    with door.connect() as client:
        reply = Reply(client)
        for _ in range(1000):
            client.sendall(b"GET /v1.40/ping HTTP/1.1\r\nHost: x\r\n\r\n")
            status, headers, body = reply.read()
            assert (status, body) == (200, b"OK")
    assert headers["api-version"] == "1.50"


def test_pipelined_requests_are_answered_in_order(door: Door) -> None:
    with door.connect() as client:
        client.sendall(
            b"".join(
                b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%d" % (len(str(n)), n)
                for n in range(300)
            )
        )
        reply = Reply(client)
        assert [int(reply.read()[2]) for _ in range(300)] == list(range(300))


def test_a_request_may_arrive_in_single_bytes(door: Door) -> None:
    with door.connect() as client:
        for byte in (
            b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nTrailer: z\r\n\r\n"
        ):
            client.sendall(bytes([byte]))
        assert Reply(client).read()[2] == b"abcde"


def test_refused_requests_in_a_pipeline_do_not_end_it(door: Door) -> None:
    with door.connect() as client:
        client.sendall(b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n" * 1200)
        client.sendall(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n")
        reply = Reply(client)
        assert [reply.read()[0] for _ in range(1200)] == [404] * 1200
        assert reply.read()[0] == 200


def test_names_with_slashes_and_escapes_reach_the_handler(door: Door) -> None:
    _, _, body = ask(
        door, b"GET /v1.41/items/a%2Fb/c%3A1/json?x=1&x=%20 HTTP/1.1\r\nHost: x\r\n\r\n"
    )
    assert json.loads(body) == {"name": "a/b/c:1", "query": {"x": ["1", " "]}}


@pytest.mark.parametrize(
    ("request_line", "status", "message"),
    [
        (b"GET /nothing", 404, "page not found"),
        (b"DELETE /ping", 405, "method not allowed"),
        (b"GET /v1.99/ping", 400, "client version 1.99 is too new. Maximum supported API version"),
        (b"GET /v1.12/ping", 400, "client version 1.12 is too old. Minimum supported API version"),
        (b"GET /busy", 409, "somebody has it"),
        (b"GET /broken", 500, "a bug"),
        (b"GET /fails", 409, "before the first piece"),
    ],
)
def test_errors_are_json_with_a_message(
    door: Door, request_line: bytes, status: int, message: str
) -> None:
    found, headers, body = ask(door, request_line + b" HTTP/1.1\r\nHost: x\r\n\r\n")
    assert found == status
    assert headers["content-type"] == "application/json"
    assert json.loads(body)["message"].startswith(message)


@pytest.mark.parametrize(
    "data",
    [
        b"NONSENSE\r\n\r\n",
        b"GET /ping HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc",
        b"POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_malformed_requests_are_refused_and_the_connection_ends(door: Door, data: bytes) -> None:
    with door.connect() as client:
        client.sendall(data)
        reply = Reply(client)
        assert reply.read()[0] == 400
        assert reply.file.read() == b""


def test_head_answers_without_a_body(door: Door) -> None:
    with door.connect() as client:
        client.sendall(b"HEAD /ping HTTP/1.1\r\nHost: x\r\n\r\nGET /ping HTTP/1.1\r\n\r\n")
        reply = Reply(client)
        assert reply.head()[0] == 200
        assert reply.read()[2] == b"OK"


def test_a_client_that_expects_100_continue_gets_it(door: Door) -> None:
    with door.connect() as client:
        client.sendall(b"POST /echo HTTP/1.1\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        reply = Reply(client)
        assert reply.head()[0] == 100
        client.sendall(b"hi")
        assert reply.read()[2] == b"hi"


def test_http_1_0_gets_its_stream_without_chunks(door: Door) -> None:
    with door.connect() as client:
        client.sendall(b"GET /stream?n=3 HTTP/1.0\r\n\r\n")
        data = client.makefile("rb").read()
    assert data.endswith(b"\r\n\r\n0\n1\n2\n")


def test_a_streamed_body_is_held_back_until_the_handler_reads(door: Door) -> None:
    piece = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    with door.connect() as client:
        client.sendall(b"POST /count?wait=1 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
        client.settimeout(0.5)
        sent = 0
        with pytest.raises(TimeoutError):
            while sent < 64 << 20:
                sent += client.send(piece[sent % len(piece) :])
        assert sent < 16 << 20
        door.fed.set()
        client.settimeout(DEADLINE)
        if sent % len(piece):
            client.sendall(piece[sent % len(piece) :])
        client.sendall(b"0\r\n\r\n")
        assert json.loads(Reply(client).read()[2]) == -(-sent // len(piece)) * 65536


def test_an_early_refusal_reaches_a_client_that_is_still_sending(door: Door) -> None:
    with door.connect() as client:
        client.sendall(b"POST /refuse HTTP/1.1\r\nContent-Length: 3000000\r\n\r\n")
        sender = threading.Thread(target=client.sendall, args=(b"x" * 3000000,))
        sender.start()
        status, headers, body = Reply(client).read()
        sender.join(DEADLINE)
    assert status == 409
    assert headers["connection"] == "close"
    assert json.loads(body)["code"] == "InUse"


def test_a_slow_reader_holds_the_stream_back_and_leaving_ends_it(door: Door) -> None:
    with door.connect() as client:
        client.sendall(b"GET /stream?endless=1 HTTP/1.1\r\nHost: x\r\n\r\n")
        assert Reply(client).head()[0] == 200
        assert not door.closed_source.is_set()
    assert door.closed_source.wait(DEADLINE)


def test_a_live_answer_sends_its_head_at_once_and_others_go_on(door: Door) -> None:
    with door.connect() as waiting:
        waiting.sendall(b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n")
        reply = Reply(waiting)
        assert reply.head()[0] == 200
        assert ask(door, b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n")[0] == 200
        door.release.set()
        assert list(reply.chunks()) == [b'{"StatusCode":0}\n']


@pytest.mark.parametrize("half_closed", [False, True])
def test_a_live_answer_ends_when_its_client_leaves(door: Door, half_closed: bool) -> None:
    client = door.connect()
    client.sendall(b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n")
    client.recv(1)
    if half_closed:
        client.shutdown(socket.SHUT_WR)
        time.sleep(0.1)
        assert not door.cancelled.is_set()
    client.close()
    assert door.cancelled.wait(DEADLINE)


def test_a_client_that_half_closes_still_gets_its_answer(door: Door) -> None:
    with door.connect() as client:
        client.sendall(b"GET /stream?n=3 HTTP/1.1\r\nHost: x\r\n\r\n")
        client.shutdown(socket.SHUT_WR)
        assert Reply(client).read()[2] == b"0\n1\n2\n"
