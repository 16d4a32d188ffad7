"""Real receivers of log records that can be stopped, started again, and frozen.

Each is a program of its own (rsyslogd, the servers of ``tests/receivers``, systemd-journald, and
two small ones of this module), so that a signal makes it slow. What it understood is read back as
:class:`Received` records, in the order of arrival.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, ClassVar, NamedTuple

from drivetrain.testing import receivers
from drivetrain.testing.hosts import eventually


class Received(NamedTuple):
    """What came of one line, or piece of a line.

    Attributes:
        stream: ``stdout`` or ``stderr``, as the receiver can tell.
        text: the line, with U+FFFD for what is not UTF-8.
        raw: everything, as text, for finding tags and attributes.
    """

    stream: str
    text: str
    raw: str


class Receiver:
    """A receiver on loopback; the base of the others.

    Attributes:
        cuttable: it takes TCP connections at ``port``, and ``options`` name that.

    Args:
        folder: for its files; with a short path.
        inside: the start of a command that runs in the network namespace of whoever sends.
    """

    cuttable: ClassVar[bool] = True

    def __init__(self, folder: Path, inside: Sequence[str] = ()) -> None:
        self.folder = folder
        self.inside = list(inside)
        self.port = receivers.free_port()
        self.output = folder / f"{type(self).__name__}.out"
        self.process: subprocess.Popen[bytes] | None = None
        self._seen = self._count = 0
        #: Whose records are looked for, where a receiver has those of others as well.
        self.container_id = ""

    @property
    def options(self) -> Mapping[str, str]:
        """The options of the driver that send here."""
        raise NotImplementedError

    def command(self) -> list[str]:
        """Return the program and its arguments."""
        raise NotImplementedError

    def ready(self) -> bool:
        """Whether it takes records."""
        probe = "import socket,sys; socket.create_connection(('127.0.0.1', int(sys.argv[1])), 2)"
        command = [*self.inside, sys.executable, "-Sc", probe, str(self.port)]
        return subprocess.run(command, capture_output=True).returncode == 0

    def start(self) -> None:
        """Begin to receive, also after a stop."""
        with self.output.open("ab") as output, (self.folder / "errors").open("ab") as errors:
            self.process = subprocess.Popen(
                [*self.inside, *self.command()], stdout=output, stderr=errors
            )
        process = self.process
        eventually(lambda: process.poll() is not None or self.ready(), "the receiver starts")
        assert process.poll() is None, (self.folder / "errors").read_text()

    def stop(self) -> None:
        """End it; what it has taken stays known."""
        process, self.process = self.process, None
        if process is None:
            return
        process.send_signal(signal.SIGCONT)
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def close(self) -> None:
        """Stop it, and remove what it made outside its folder."""
        self.stop()

    def freeze(self) -> None:
        """Make it take nothing, without closing anything."""
        if self.process is not None:
            self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Undo ``freeze``."""
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)

    def entries(self) -> list[dict[str, object]]:
        """Return the JSON documents that are complete."""
        if not self.output.exists():
            return []
        lines = self.output.read_bytes().split(b"\n")[:-1]
        return [json.loads(line.decode("utf-8", "replace")) for line in lines if line[:1] == b"{"]

    def received(self) -> list[Received]:
        """Return what came so far."""
        return [self.record(entry) for entry in self.entries()]

    def count(self) -> int:
        """Return how many records came so far, quickly."""
        if self.output.exists():
            with self.output.open("rb") as file:
                file.seek(self._seen)
                data = file.read()
            data = data[: data.rfind(b"\n") + 1]
            self._seen += len(data)
            self._count += (b"\n" + data).count(b"\n{")
        return self._count

    def wait(self, count: int, timeout: float = 60) -> list[Received]:
        """Return what came once there are ``count`` records, however many there are then.

        Raises:
            AssertionError: fewer came within ``timeout`` seconds.
        """
        self.arrived(count, timeout)
        return self.received()

    def arrived(self, count: int, timeout: float = 60) -> None:
        """Wait for so many records.

        Raises:
            AssertionError: fewer came within ``timeout`` seconds.
        """
        eventually(lambda: self.count() >= count, f"{count} records at {self.options}", timeout)

    def eventually_has(self, text: str, timeout: float = 60) -> None:
        """Wait for a record with that text.

        Raises:
            AssertionError: it did not come within ``timeout`` seconds.
        """
        eventually(
            lambda: any(record.text == text for record in self.received()[-3:]),
            f"{text!r} at {self.options}",
            timeout,
        )

    def record(self, entry: Mapping[str, object]) -> Received:
        """Return a document as a record."""
        raise NotImplementedError


class Rsyslog(Receiver):
    """rsyslogd, over TCP."""

    options = property(lambda self: {"syslog-address": f"tcp://127.0.0.1:{self.port}"})

    def __init__(self, folder: Path, inside: Sequence[str] = ()) -> None:
        super().__init__(folder, inside)
        self.output = folder / "out"
        (folder / "rsyslog.conf").write_text(self.configuration().replace('"64k"', '"2m"'))

    def configuration(self) -> str:
        """Return rsyslogd's configuration."""
        return receivers.rsyslog_configuration(self.folder, tcp=self.port)

    def command(self) -> list[str]:
        folder = self.folder
        return ["rsyslogd", "-n", "-f", f"{folder}/rsyslog.conf", "-i", f"{folder}/rsyslog.pid"]

    def record(self, entry: Mapping[str, object]) -> Received:
        stream = "stderr" if int(str(entry["priority"])) % 8 == 3 else "stdout"
        return Received(stream, str(entry["message"]).removeprefix(" "), str(entry))


class RsyslogTls(Rsyslog):
    """rsyslogd, over TLS, with a certificate that is its own authority."""

    options = property(
        lambda self: {
            "syslog-address": f"tcp+tls://127.0.0.1:{self.port}",
            "syslog-tls-ca-cert": str(self.folder / "ca.pem"),
        }
    )

    def __init__(self, folder: Path, inside: Sequence[str] = ()) -> None:
        super().__init__(folder, inside)
        receivers.certificates(folder)

    def configuration(self) -> str:
        return receivers.rsyslog_configuration(self.folder, tls=self.port)


class Fluentd(Receiver):
    """The official forward server, asked for acknowledgements."""

    options = property(
        lambda self: {
            "fluentd-address": f"127.0.0.1:{self.port}",
            "fluentd-request-ack": "true",
        }
    )

    def command(self) -> list[str]:
        return ["node", str(receivers.SCRIPTS / "fluentd.js"), str(self.port)]

    def record(self, entry: Mapping[str, object]) -> Received:
        record = entry["record"]
        assert isinstance(record, dict)
        return Received(str(record["source"]), str(record["log"]), str(entry))


class GelfTcp(Receiver):
    """A server of GELF over TCP: documents that end with a zero byte."""

    options = property(lambda self: {"gelf-address": f"tcp://127.0.0.1:{self.port}"})

    def command(self) -> list[str]:
        return [sys.executable, "-m", "drivetrain.testing.logreceivers", "gelf", str(self.port)]

    def record(self, entry: Mapping[str, object]) -> Received:
        text = str(entry["short_message"])
        stream = "stderr" if entry["level"] == 3 else "stdout"
        return Received(stream, "" if text == "\n" else text, str(entry))


class GelfUdp(Receiver):
    """graygelf, over UDP."""

    cuttable = False
    options = property(lambda self: {"gelf-address": f"udp://127.0.0.1:{self.port}"})

    def command(self) -> list[str]:
        return ["node", str(receivers.SCRIPTS / "gelf.js"), str(self.port)]

    def ready(self) -> bool:
        return b"ready" in self.output.read_bytes()

    record = GelfTcp.record


class Collector(Receiver):
    """An HTTP event collector.

    Attributes:
        token: the one that it accepts.
    """

    token: ClassVar[str] = "token"
    options = property(
        lambda self: {"splunk-url": f"http://127.0.0.1:{self.port}", "splunk-token": self.token}
    )

    def command(self) -> list[str]:
        module = "drivetrain.testing.logreceivers"
        return [sys.executable, "-m", module, "splunk", str(self.port), self.token]

    def record(self, entry: Mapping[str, object]) -> Received:
        event = entry["event"]
        assert isinstance(event, dict)
        return Received(str(event["source"]), str(event["line"]), str(entry))


_JOURNALD = """[Journal]
Storage=volatile
RateLimitIntervalSec=0
RateLimitBurst=0
RuntimeMaxUse=1G
RuntimeKeepFree=1M
ForwardToSyslog=no
"""


class Journal(Receiver):
    """systemd-journald, started by hand at its usual socket; one at a time on a machine."""

    cuttable = False
    options = property(lambda self: {})
    _RUN = Path("/run/systemd/journal")
    _SETTINGS = Path("/run/systemd/journald.conf.d/drivetrain-test.conf")

    def __init__(self, folder: Path, inside: Sequence[str] = ()) -> None:
        super().__init__(folder, ())
        self._lock: IO[bytes] | None = None
        self._had_logs = Path("/run/log/journal").exists()

    def command(self) -> list[str]:
        return ["/usr/lib/systemd/systemd-journald"]

    def ready(self) -> bool:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
            return probe.connect_ex(str(self._RUN / "socket")) == 0

    def start(self) -> None:
        if self._lock is None:
            self._lock = open("/run/drivetrain-test-journald.lock", "wb")
            fcntl.flock(self._lock, fcntl.LOCK_EX)
        self._SETTINGS.parent.mkdir(parents=True, exist_ok=True)
        self._SETTINGS.write_text(_JOURNALD)
        self._RUN.mkdir(parents=True, exist_ok=True)
        super().start()

    def stop(self) -> None:
        super().stop()
        (self._RUN / "socket").unlink(missing_ok=True)

    def close(self) -> None:
        self.stop()
        self._SETTINGS.unlink(missing_ok=True)
        shutil.rmtree(self._RUN, ignore_errors=True)
        if not self._had_logs:
            shutil.rmtree("/run/log/journal", ignore_errors=True)
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _read(self) -> bytes:
        command = ["journalctl", "-q", "--all", "--output=json", "--no-pager"]
        return subprocess.run(
            [*command, f"CONTAINER_ID_FULL={self.container_id}"], capture_output=True, check=True
        ).stdout

    def entries(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self._read().splitlines()]

    def count(self) -> int:
        return self._read().count(b"\n")

    def record(self, entry: Mapping[str, object]) -> Received:
        message = entry.get("MESSAGE") or ""
        line = bytes(message) if isinstance(message, list) else str(message).encode()
        stream = "stderr" if entry["PRIORITY"] == "3" else "stdout"
        return Received(stream, line.decode("utf-8", "replace"), str(entry))


# the two small programs


def _serve_gelf(port: int) -> None:
    with socket.create_server(("127.0.0.1", port), reuse_port=False) as server:
        while True:
            connection, _ = server.accept()
            _take_gelf(connection)


def _take_gelf(connection: socket.socket) -> None:
    rest = b""
    with connection:
        while True:
            try:
                data = connection.recv(1 << 16)
            except ConnectionError:
                return
            if not data:
                return
            *documents, rest = (rest + data).split(b"\0")
            _print(json.loads(document) for document in documents)


def _print(documents: Iterator[object]) -> None:
    text = "".join(json.dumps(document) + "\n" for document in documents)
    os.write(1, text.encode())


def _serve_splunk(port: int, token: str) -> None:
    class Events(list[dict[str, object]]):
        def extend(self, items: object) -> None:
            _print(iter(items))  # type: ignore[call-overload]

    with receivers.collector(token, port, Events()):
        while True:
            time.sleep(3600)


if __name__ == "__main__":
    if sys.argv[1] == "gelf":
        _serve_gelf(int(sys.argv[2]))
    else:
        _serve_splunk(int(sys.argv[2]), sys.argv[3])
