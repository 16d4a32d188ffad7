"""Real receivers of log records, run for a test.

rsyslog comes from Debian, the servers of fluentd's forward protocol and of GELF from npm
(``tests/receivers``). Each is a context manager that leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import gzip
import http.server
import json
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

SCRIPTS = Path(__file__).parents[4] / "tests" / "receivers"


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """Return a port of 127.0.0.1 that is free now."""
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Lines:
    """A growing file of JSON lines."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def all(self) -> list[dict[str, object]]:
        """Return what is complete so far."""
        text = self.path.read_bytes() if self.path.exists() else b""
        whole = text[: text.rfind(b"\n") + 1]
        return [json.loads(line) for line in whole.splitlines() if line.startswith(b"{")]

    def wait(self, count: int, timeout: float = 60) -> list[dict[str, object]]:
        """Return the records once there are ``count`` of them.

        Raises:
            AssertionError: fewer came within ``timeout`` seconds.
        """
        deadline = time.monotonic() + timeout
        while len(found := self.all()) < count:
            assert time.monotonic() < deadline, f"{len(found)} of {count} records: {found[-3:]}"
            time.sleep(0.02)
        return found


@contextlib.contextmanager
def node(script: str, port: int, folder: Path) -> Iterator[Lines]:
    """Run a receiver of ``tests/receivers`` on a port of 127.0.0.1."""
    output = folder / f"{script}.{time.monotonic_ns()}"
    with output.open("wb") as file:
        server = subprocess.Popen(["node", SCRIPTS / script, str(port)], stdout=file)
    try:
        _await(lambda: b"ready" in output.read_bytes() or server.poll() is not None)
        assert server.poll() is None, f"{script} did not start"
        yield Lines(output)
    finally:
        server.kill()
        server.wait()


RSYSLOG = """
module(load="imudp") module(load="imtcp") module(load="imuxsock" SysSock.Use="off")
global(workDirectory="{folder}" maxMessageSize="64k" net.enableDNS="off"
       parser.escapeControlCharactersOnReceive="off"
       defaultNetstreamDriverCAFile="{folder}/ca.pem"
       defaultNetstreamDriverCertFile="{folder}/cert.pem"
       defaultNetstreamDriverKeyFile="{folder}/key.pem")
# One worker: with more of them messages change places.
main_queue(queue.type="LinkedList" queue.size="500000" queue.workerThreads="1")
template(name="json" type="list" option.jsonf="on") {{
  property(outname="priority" name="pri" format="jsonf")
  property(outname="host" name="hostname" format="jsonf")
  property(outname="tag" name="syslogtag" format="jsonf")
  property(outname="program" name="app-name" format="jsonf")
  property(outname="process" name="procid" format="jsonf")
  property(outname="id" name="msgid" format="jsonf")
  property(outname="data" name="structured-data" format="jsonf")
  property(outname="time" name="timereported" dateFormat="rfc3339" format="jsonf")
  property(outname="message" name="msg" format="jsonf")
}}
ruleset(name="keep") {{ action(type="omfile" file="{folder}/out" template="json") }}
{inputs}
"""


def _inputs(udp: int, tcp: int, tls: int, unix: Path | None) -> Iterator[str]:
    rules = 'address="127.0.0.1" ruleset="keep"'
    if udp:
        yield f'input(type="imudp" port="{udp}" {rules})'
    if tcp:
        yield f'input(type="imtcp" port="{tcp}" {rules})'
    if tls:
        driver = 'streamDriver.name="ossl" streamDriver.mode="1" streamDriver.authMode="anon"'
        yield f'input(type="imtcp" port="{tls}" {rules} {driver})'
    if unix:
        plain = 'useSysTimeStamp="off" useSpecialParser="off" ignoreTimestamp="off"'
        yield f'input(type="imuxsock" socket="{unix}" parseHostname="on" ruleset="keep" {plain})'


def rsyslog_configuration(
    folder: Path, *, udp: int = 0, tcp: int = 0, tls: int = 0, unix: Path | None = None
) -> str:
    """Return the configuration of an rsyslogd with the inputs asked for."""
    inputs = "\n".join(_inputs(udp, tcp, tls, unix))
    return RSYSLOG.format(folder=folder, inputs=inputs)


@contextlib.contextmanager
def rsyslog(
    folder: Path, *, udp: int = 0, tcp: int = 0, tls: int = 0, unix: Path | None = None
) -> Iterator[Lines]:
    """Run rsyslogd with the inputs asked for; what it understood becomes lines of JSON."""
    text = rsyslog_configuration(folder, udp=udp, tcp=tcp, tls=tls, unix=unix)
    (folder / "rsyslog.conf").write_text(text)
    log = folder / "rsyslog.log"
    with log.open("wb") as file:
        server = subprocess.Popen(
            ["rsyslogd", "-n", "-f", folder / "rsyslog.conf", "-i", folder / "rsyslog.pid"],
            stdout=file,
            stderr=file,
        )

    def ready() -> bool:
        if server.poll() is not None:
            return True
        streams = all(_listens(port) for port in (tcp, tls) if port)
        return streams and (not udp or _bound(udp)) and (unix is None or unix.exists())

    try:
        _await(ready)
        assert server.poll() is None, log.read_text()
        yield Lines(folder / "out")
    finally:
        server.terminate()
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def certificates(folder: Path) -> None:
    """Make a certificate for 127.0.0.1 that is its own authority: ca, cert and key .pem."""
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
            "-keyout", folder / "key.pem", "-out", folder / "cert.pem",
            "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1",
        ],
        check=True,
        capture_output=True,
    )  # fmt: skip
    shutil.copy(folder / "cert.pem", folder / "ca.pem")


@contextlib.contextmanager
def collector(
    token: str, port: int = 0, events: list[dict[str, object]] | None = None
) -> Iterator[tuple[str, list[dict[str, object]]]]:
    """Run an HTTP event collector that checks as Splunk's does; give its URL and the events.

    Args:
        token: the one that it accepts.
        port: of 127.0.0.1; 0: any.
        events: extended by what comes.
    """
    taken: list[dict[str, object]] = [] if events is None else events

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:  # the library's name
            length = int(self.headers["Content-Length"])
            body = self.rfile.read(length)
            if len(body) < length:  # the sender is gone
                self.close_connection = True
                return
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            allowed = self.headers["Authorization"] == f"Splunk {token}"
            if allowed:
                taken.extend(_documents(body.decode()))
            text = '{"text":"Success"}' if allowed else '{"text":"Invalid token"}'
            self.send_response(200 if allowed else 403)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", taken
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _documents(text: str) -> Iterator[dict[str, object]]:
    decoder = json.JSONDecoder()
    position = 0
    while position < len(text):
        document, position = decoder.raw_decode(text, position)
        yield document


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """Give a folder with a short path, for sockets."""
    folder = Path(tempfile.mkdtemp(prefix="rx-", dir="/tmp"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _await(condition: Callable[[], bool], timeout: float = 30) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "a receiver does not start"
        time.sleep(0.02)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _bound(port: int) -> bool:
    wanted = f":{port:04X} "
    return any(wanted in line for line in Path("/proc/net/udp").read_text().splitlines())
