"""The log drivers that send: what real receivers understand of them."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from drivetrain.calling import Driver
from drivetrain.errors import InvalidArgument, Unavailable
from drivetrain.log import Batch, LogContext, LogHooks, Partial
from drivetrain.options import parse_options
from drivetrain.registry import Registry
from drivetrain.testing import receivers

TIME = 1_700_000_000_123_456_789
LINES = [b"plain", b"", "gr\u00fc\u00dfe".encode(), b"\xff\xfe bytes", b"x" * 16_000]
TEXTS = [line.decode("utf-8", "replace") for line in LINES]


def opened(name: str, folder: Path, given: dict[str, str]) -> Driver[LogHooks]:
    driver = Registry().log(name)
    options = parse_options(f"log driver {name}", driver.call.log_options(), given)
    driver.call.log_validate(options)
    context = LogContext(
        "ab" * 32,
        "web",
        folder,
        image_name="busybox",
        tag="web/1",
        host="here",
        attributes={"team": "a"},
    )
    driver.call.log_open(context, options)
    return driver


@pytest.fixture
def folder() -> Iterator[Path]:
    with receivers.temporary_folder() as made:
        yield made


@pytest.mark.parametrize("way", ["udp", "tcp", "tls", "unix"])
@pytest.mark.parametrize("style", ["rfc3164", "rfc5424", "rfc5424micro"])
def test_rsyslog_understands_every_transport_and_format(folder: Path, way: str, style: str) -> None:
    receivers.certificates(folder)
    kind = socket.SOCK_DGRAM if way == "udp" else socket.SOCK_STREAM
    place = folder / "socket" if way == "unix" else receivers.free_port(kind)
    address = {
        "udp": f"udp://127.0.0.1:{place}",
        "tcp": f"tcp://127.0.0.1:{place}",
        "tls": f"tcp+tls://127.0.0.1:{place}",
        "unix": f"unixgram://{place}",
    }[way]
    given = {"syslog-address": address, "syslog-format": style, "syslog-facility": "local3"}
    if way == "tls":
        given["syslog-tls-ca-cert"] = str(folder / "ca.pem")
    with receivers.rsyslog(folder, **{way: place}) as output:
        driver = opened("syslog", folder, given)
        sent = [b"first", b"", b"last"]
        driver.call.log_write(Batch("stdout", TIME, list(sent)))
        driver.call.log_write(Batch("stderr", TIME, [b"trouble"]))
        driver.call.log_close()
        records = output.wait(4)
    assert [str(record["message"]).strip() for record in records] == [
        "first",
        "",
        "last",
        "trouble",
    ]
    assert [int(str(record["priority"])) for record in records] == [19 * 8 + 6] * 3 + [19 * 8 + 3]
    assert {record["program"] for record in records} == {"web"} or style != "rfc3164"
    if style.startswith("rfc5424"):
        assert {record["host"] for record in records} == {"here"}
        assert str(records[0]["time"]).startswith("2023-11-14T22:13:20")


def test_octet_counting_is_understood(folder: Path) -> None:
    port = receivers.free_port()
    given = {"syslog-address": f"tcp://127.0.0.1:{port}", "syslog-framing": "octet-counting"}
    with receivers.rsyslog(folder, tcp=port) as output:
        driver = opened("syslog", folder, given)
        driver.call.log_write(Batch("stdout", TIME, [b"one", b"x" * 9000, b"three"]))
        driver.call.log_close()
        records = output.wait(3)
    assert [len(str(record["message"]).strip()) for record in records] == [3, 9000, 5]


def test_fluentds_own_server_understands_events_and_acknowledges(folder: Path) -> None:
    port = receivers.free_port()
    given = {
        "fluentd-address": f"127.0.0.1:{port}",
        "fluentd-request-ack": "true",
        "fluentd-sub-second-precision": "true",
    }
    with receivers.node("fluentd.js", port, folder) as output:
        driver = opened("fluentd", folder, given)
        driver.call.log_write(Batch("stdout", TIME, list(LINES)))
        driver.call.log_write(Batch("stderr", TIME, [b"piece"], Partial("id", 1, False)))
        driver.call.log_close()
        events = output.wait(len(LINES) + 1)
    records = [event["record"] for event in events]
    assert [record["log"] for record in records[:-1]] == TEXTS
    assert {record["container_name"] for record in records} == {"/web"}
    assert records[0]["team"] == "a"
    assert (records[-1]["source"], records[-1]["partial_ordinal"]) == ("stderr", "1")
    assert {event["tag"] for event in events} == {"web/1"}
    assert events[0]["time"] == {"seconds": 1_700_000_000, "nano": 123_456_789}


@pytest.mark.parametrize("compression", ["gzip", "zlib", "none"])
def test_graygelf_understands_messages_and_chunks(folder: Path, compression: str) -> None:
    port = receivers.free_port(socket.SOCK_DGRAM)
    given = {"gelf-address": f"udp://127.0.0.1:{port}", "gelf-compression-type": compression}
    with receivers.node("gelf.js", port, folder) as output:
        driver = opened("gelf", folder, given)
        for number, line in enumerate(LINES):
            driver.call.log_write(Batch("stdout", TIME, [line]))
            output.wait(number + 1)
        driver.call.log_write(Batch("stderr", TIME, [b"piece"], Partial("id", 2, True)))
        driver.call.log_close()
        messages = output.wait(len(LINES) + 1)
    assert [message["short_message"] for message in messages[:-1]] == [t or "\n" for t in TEXTS]
    assert messages[0]["_team"] == "a"
    assert messages[0]["_container_name"] == "web"
    assert messages[0]["level"] == 6
    assert (messages[-1]["level"], messages[-1]["_partial_ordinal"]) == (3, 2)


def test_gelf_over_tcp_ends_messages_with_a_zero_byte(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        driver = opened(
            "gelf", folder, {"gelf-address": f"tcp://127.0.0.1:{server.getsockname()[1]}"}
        )
        driver.call.log_write(Batch("stdout", TIME, list(LINES)))
        driver.call.log_close()
        connection, _ = server.accept()
        with connection, connection.makefile("rb") as file:
            data = file.read()
    assert data.count(b"\0") == len(LINES)
    assert data.endswith(b"\0")


@pytest.mark.parametrize("style", ["inline", "json", "raw"])
def test_an_event_collector_gets_every_event(folder: Path, style: str) -> None:
    with receivers.collector("token") as (url, events):
        given = {
            "splunk-url": url,
            "splunk-token": "token",
            "splunk-format": style,
            "splunk-gzip": "1",
        }
        driver = opened("splunk", folder, given)
        driver.call.log_write(Batch("stdout", TIME, [b'{"a": 1}', b"text"]))
        driver.call.log_close()
    contents = [event["event"] for event in events]
    if style == "raw":
        assert contents == ['web/1 team=a {"a": 1}', "web/1 team=a text"]
    else:
        first = {"a": 1} if style == "json" else '{"a": 1}'
        assert [content["line"] for content in contents] == [first, "text"]  # type: ignore[index]
    assert events[0]["time"] == "1700000000.123457"


def test_a_refused_token_keeps_the_records(folder: Path) -> None:
    with receivers.collector("token") as (url, events):
        driver = opened("splunk", folder, {"splunk-url": url, "splunk-token": "wrong"})
        with pytest.raises(Unavailable, match="Invalid token"):
            driver.call.log_write(Batch("stdout", TIME, [b"text"]))
        driver.call.log_close()
    assert events == []


REMOTE = {
    "syslog": "syslog-address=tcp://127.0.0.1:{port}",
    "gelf": "gelf-address=tcp://127.0.0.1:{port}",
    "fluentd": "fluentd-address=127.0.0.1:{port}",
    "splunk": "splunk-url=http://127.0.0.1:{port}",
}


@pytest.mark.parametrize("name", sorted(REMOTE))
def test_a_receiver_that_is_down_is_unavailable_and_found_again(folder: Path, name: str) -> None:
    port = receivers.free_port()
    key, _, value = REMOTE[name].format(port=port).partition("=")
    given = {key: value}
    if name == "splunk":
        given["splunk-token"] = "x"
    if name == "gelf":
        given |= {"gelf-tcp-max-reconnect": "0"}
    driver = opened(name, folder, given)
    batch = Batch("stdout", TIME, [b"kept"])
    with pytest.raises(Unavailable, match=str(port)):
        driver.call.log_write(batch)
    assert batch.lines == [b"kept"]
    received: list[bytes] = []
    with socket.create_server(("127.0.0.1", port)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                while b"kept" not in b"".join(received):
                    received.append(connection.recv(65536))
                if name == "splunk":
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

        thread = threading.Thread(target=serve)
        thread.start()
        driver.call.log_write(batch)
        thread.join(30)
    driver.call.log_close()
    assert b"kept" in b"".join(received)


@pytest.mark.parametrize(
    ("name", "given", "complaint"),
    [
        ("syslog", {"syslog-address": "ftp://x"}, "syslog-address='ftp://x'"),
        ("syslog", {"syslog-facility": "24"}, "syslog-facility='24'"),
        ("syslog", {"syslog-format": "rfc1"}, "syslog-format='rfc1'"),
        ("syslog", {"syslog-tls-cert": "x"}, "syslog-tls-cert"),
        ("syslog", {"syslog-adress": "x"}, "did you mean syslog-address"),
        ("gelf", {}, "gelf-address is required"),
        ("gelf", {"gelf-address": "udp://x:99999"}, "gelf-address"),
        ("gelf", {"gelf-address": "udp://x", "gelf-compression-level": "10"}, "-1 to 9"),
        ("gelf", {"gelf-address": "tcp://x", "gelf-compression-level": "1"}, "no meaning for tcp"),
        ("fluentd", {"fluentd-address": "unix://relative"}, "fluentd-address"),
        ("fluentd", {"fluentd-request-ack": "perhaps"}, "fluentd-request-ack"),
        ("splunk", {"splunk-url": "http://x"}, "splunk-token is required"),
        ("splunk", {"splunk-url": "x", "splunk-token": "t"}, "splunk-url='x'"),
    ],
)
def test_wrong_options_are_named_without_any_connection(
    name: str, given: dict[str, str], complaint: str
) -> None:
    driver = Registry().log(name)
    with pytest.raises(InvalidArgument, match=complaint):
        options = parse_options(f"log driver {name}", driver.call.log_options(), given)
        driver.call.log_validate(options)
