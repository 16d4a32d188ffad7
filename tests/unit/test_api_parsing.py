"""What the routes make of paths, queries, times, keys, filters and metrics."""

from __future__ import annotations

import io

import pytest

from drivetrain.errors import InvalidArgument, NotFound
from drivetrain.extension import Event, Metric
from drivetrain_engine.api.answers import chunk, render
from drivetrain_engine.api.framing import BodyDecoder, take_head
from drivetrain_engine.api.hijack import DetachScanner
from drivetrain_engine.api.messages import BodyReader, Request, Response
from drivetrain_engine.api.router import MethodNotAllowed, Router, Routes, negotiate


def request(query: str, body: bytes = b"") -> Request:
    return Request("GET", "/", query, {}, front=None, body=body)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("path", "version", "rest"),
    [
        ("/v1.24/info", (1, 24), "/info"),
        ("/v1.50/containers/v1.2/json", (1, 50), "/containers/v1.2/json"),
        ("/info", (1, 50), "/info"),
        ("/volumes/x", (1, 50), "/volumes/x"),
        ("/v1.41", (1, 41), "/"),
    ],
)
def test_the_version_is_split_off_the_path(path: str, version: tuple[int, int], rest: str) -> None:
    assert negotiate(path) == (version, rest)


@pytest.fixture
def router() -> Router:
    routes = Routes()
    routes.add("GET", "/images/get", lambda: "many")
    routes.add("GET", "/images/{name:path}/get", lambda: "one")
    routes.add("DELETE", "/images/{name:path}", lambda: "remove")
    routes.add("GET", "/containers/{id}/json", lambda: "inspect")
    return Router([routes])


def test_names_may_contain_slashes_where_the_route_says_so(router: Router) -> None:
    route, parameters = router.resolve("GET", "/images/a.b:5000/c/get/d:1/get")
    assert (route.handler(), parameters) == ("one", {"name": "a.b:5000/c/get/d:1"})
    assert router.resolve("GET", "/images/get")[0].handler() == "many"


def test_unknown_paths_and_methods_are_told_apart(router: Router) -> None:
    with pytest.raises(NotFound, match="page not found"):
        router.resolve("GET", "/containers/a/b/json")
    with pytest.raises(MethodNotAllowed) as caught:
        router.resolve("POST", "/containers/a/json")
    assert caught.value.allowed == "GET"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1", True), ("true", True), ("yes", True), ("0", False), ("False", False), ("", False)],
)
def test_booleans_are_read_as_docker_reads_them(text: str, expected: bool) -> None:
    assert request(f"all={text}").flag("all", not expected) is expected
    assert request("").flag("all", expected) is expected


def test_filters_are_read_in_both_forms() -> None:
    new = request("filters=%7B%22label%22%3A%5B%22a%3Db%22%5D%7D")
    old = request("filters=%7B%22label%22%3A%7B%22a%3Db%22%3Atrue%2C%22c%22%3Afalse%7D%7D")
    assert new.filters() == old.filters() == {"label": ["a=b"]}
    assert request("filters=%7B%22before%22%3A%5B%5D%7D").filters() == {"before": []}


@pytest.mark.parametrize("text", ["[]", "x", '{"a":"b"}', "3"])
def test_other_filters_are_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid filters"):
        request(f"filters={text}").filters()


@pytest.mark.parametrize("body", [b"[1]", b"{", b'"x"'])
def test_a_body_has_to_be_an_object(body: bytes) -> None:
    with pytest.raises(InvalidArgument, match="invalid JSON"):
        request("", body).json()


def test_numbers_are_checked_and_named() -> None:
    assert request("t=-1").number("t") == -1
    assert request("t=").number("t", 3) == 3
    with pytest.raises(InvalidArgument, match="invalid value for t"):
        request("t=soon").number("t")


def test_a_body_is_read_in_the_pieces_that_are_asked_for() -> None:
    resumed: list[bool] = []
    body = BodyReader(lambda: resumed.append(True))
    assert body.feed(b"a" * (1 << 20)) is False
    assert body.feed(b"b" * 10) is True
    body.finish()
    assert body.read(3) == b"aaa"
    assert body.read((1 << 20) - 3) == b"a" * ((1 << 20) - 3)
    assert resumed == [True]
    assert (body.read(), body.read(5)) == (b"b" * 10, b"")


@pytest.mark.parametrize("step", [1, 2, 3, 7, 1000])
def test_a_body_ends_where_it_ends_however_it_is_cut(step: int) -> None:
    data = b'5\r\nhello\r\n1;ext="a"\r\n!\r\n0\r\nA: b\r\n\r\n'
    rest = b"GET / HTTP/1.1\r\n"
    buffer, decoder, found = bytearray(), BodyDecoder(-1), b""
    stream = io.BytesIO(data + rest)
    while not decoder.done:
        buffer += stream.read(step)
        found += decoder.take(buffer)
    assert found == b"hello!"
    assert bytes(buffer) + stream.read() == rest


def test_a_head_is_taken_whole_and_nothing_behind_it() -> None:
    buffer = bytearray(
        b"\r\nPOST /v1.41/x%2Fy?a=1&b=%20 HTTP/1.1\r\nX-A: 1\r\nx-a: 2\r\nUpgrade: tcp\r\n"
        b"Connection: Upgrade\r\nContent-Length: 4\r\n\r\nbody"
    )
    head = take_head(buffer)
    assert head is not None
    assert (head.method, head.path, head.raw_query) == ("POST", "/v1.41/x/y", "a=1&b=%20")
    assert (head.length, head.headers["x-a"], bytes(buffer)) == (4, "1, 2", b"body")
    assert take_head(bytearray(b"GET / HTTP/1.1\r\nHost: x\r\n")) is None


def test_answers_that_have_no_body_say_no_length() -> None:
    data = render(Response(status=204), keep_alive=True, head_only=False)
    assert b"Content-Length" not in data and data.endswith(b"\r\n\r\n")
    assert b"Content-Length: 0" in render(Response(), keep_alive=True, head_only=False)
    assert chunk(b"x" * 26) == b"1a\r\n" + b"x" * 26 + b"\r\n"


def test_detach_keys_may_begin_anew_in_the_middle() -> None:
    scanner = DetachScanner(b"aab")
    assert scanner.feed(b"xa") == (b"x", False)
    assert scanner.feed(b"c") == (b"ac", False)
    assert DetachScanner(b"").feed(b"\x10\x11") == (b"\x10\x11", False)
    assert DetachScanner(b"\x10\x11").feed(b"1\x10\x10\x11z") == (b"1\x10", True)


class TestRoutes:
    """Helpers of the routes, which import the services."""

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("", 0),
            ("0", 0),
            ("1700000000", 1700000000 * 10**9),
            ("1700000000.000000007", 1700000000 * 10**9 + 7),
            ("1700000000.5", 1700000000 * 10**9 + 500000000),
            ("2023-11-14T22:13:20Z", 1700000000 * 10**9),
            ("2023-11-14T23:13:20.123456789+01:00", 1700000000 * 10**9 + 123456789),
        ],
    )
    def test_times_are_seconds_or_dates(self, text: str, expected: int) -> None:
        from drivetrain_engine.api.routes.streams import parse_time

        assert parse_time(text) == expected

    def test_other_times_are_refused(self) -> None:
        from drivetrain_engine.api.routes.streams import parse_time

        with pytest.raises(InvalidArgument, match="yesterday"):
            parse_time("yesterday")

    def test_detach_keys_are_read(self) -> None:
        from drivetrain_engine.api.routes.streams import parse_detach_keys

        assert parse_detach_keys("ctrl-p,ctrl-q") == b"\x10\x11"
        assert parse_detach_keys("a,ctrl-@,ctrl-[,ctrl-_") == b"a\x00\x1b\x1f"
        with pytest.raises(InvalidArgument, match="hyper-x"):
            parse_detach_keys("hyper-x")

    def test_output_is_framed_unless_it_is_a_terminals(self) -> None:
        from drivetrain_engine.api.routes.streams import framed

        pieces = [("stdout", b"a"), ("stderr", b"bc"), ("stdout", b"")]
        assert b"".join(framed(iter(pieces), tty=False)) == (
            b"\x01\0\0\0\0\0\0\x01a\x02\0\0\0\0\0\0\x02bc"
        )
        assert b"".join(framed(iter(pieces), tty=True)) == b"abc"

    @pytest.mark.parametrize(
        ("filters", "expected"),
        [
            ({}, True),
            ({"type": ["container"]}, True),
            ({"type": ["image", "network"]}, False),
            ({"event": ["die", "exec_start"]}, True),
            ({"container": ["web"]}, True),
            ({"container": ["0123"]}, True),
            ({"container": ["other"]}, False),
            ({"image": ["busybox"]}, True),
            ({"label": ["zone", "tier=a"]}, True),
            ({"label": ["zone", "tier=b"]}, False),
            ({"scope": ["swarm"]}, False),
            ({"type": ["container"], "event": ["create"]}, False),
        ],
    )
    def test_events_are_filtered(self, filters: dict[str, list[str]], expected: bool) -> None:
        from drivetrain_engine.api.routes.events import matcher

        attributes = {"name": "web", "image": "busybox", "zone": "x", "tier": "a"}
        event = Event("container", "exec_start: sh", "0123" * 16, attributes, 5 * 10**9)
        assert matcher(filters)(event) is expected

    def test_an_unknown_filter_of_events_is_refused(self) -> None:
        from drivetrain_engine.api.routes.events import matcher

        with pytest.raises(InvalidArgument, match="colour"):
            matcher({"colour": ["red"]})

    def test_metrics_are_prometheus_text(self) -> None:
        from drivetrain_engine.api.routes.engine import render_metrics

        text = render_metrics(
            [
                Metric("a_total", 3, "how many", "counter"),
                Metric("b", 0.5, labels={"path": 'x"\\\n'}),
                Metric("a_total", 4, "how many", "counter", {"k": "v"}),
            ]
        ).decode()
        assert text == (
            "# HELP a_total how many\n# TYPE a_total counter\na_total 3\n"
            'a_total{k="v"} 4\n# TYPE b gauge\nb{path="x\\"\\\\\\n"} 0.5\n'
        )
