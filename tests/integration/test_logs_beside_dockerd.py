"""One container's output through dockerd's log drivers and ours, at the same receivers.

What differs is in a table of ``docs/guides/logs.md``, with the reason; nothing else may.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.dockerd import Dockerd

from drivetrain.testing.hosts import Host, eventually
from drivetrain.testing.logreceivers import (
    Collector,
    Fluentd,
    GelfTcp,
    GelfUdp,
    Journal,
    Receiver,
    Rsyslog,
    RsyslogTls,
)

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "logs.md"
SCRIPT = r"""
printf 'plain\n\n'
printf 'gr\303\274\303\237e \377\376 bytes \001 end\n'
printf '{"json": true}\n\ttab \\ "quoted" <b>&\r\n'
head -c 40000 /dev/zero | tr '\000' p; echo
printf 'no newline'
printf 'trouble\n  \nlast' >&2
exit 3
"""
#: Tells the lines apart, however a receiver shows them; those on standard error, in order.
MARK = re.compile(r"plain|bytes|json|quoted|p\*\d+|no newline|trouble|last")
STDERR = ("trouble", "blank", "last")
#: What every driver brings, also those that leave out empty lines.
NEEDED = {"plain", "bytes", "json", "quoted", "p*16384", "p*7232", "no newline", "trouble", "last"}
#: Fields that hold the line.
TEXTS = ("log", "record.log", "message", "MESSAGE", "short_message", "event.line", "event", "text")


class Case(NamedTuple):
    """A driver with options, and the receiver of both."""

    driver: str
    receiver: type[Receiver] | None = None
    options: Mapping[str, str] = {}
    #: graygelf unpacks datagrams at once, and changes their places.
    ordered: bool = True


CASES = {
    "json-file": Case("json-file"),
    "local": Case("local"),
    "syslog": Case("syslog", Rsyslog),
    "syslog rfc3164": Case("syslog", Rsyslog, {"syslog-format": "rfc3164"}),
    "syslog rfc5424": Case(
        "syslog", Rsyslog, {"syslog-format": "rfc5424", "syslog-facility": "local3"}
    ),
    "syslog rfc5424micro": Case("syslog", Rsyslog, {"syslog-format": "rfc5424micro"}),
    "syslog rfc5424 tls": Case("syslog", RsyslogTls, {"syslog-format": "rfc5424"}),
    "journald": Case("journald", Journal),
    "gelf tcp": Case("gelf", GelfTcp),
    "gelf udp": Case("gelf", GelfUdp, ordered=False),
    # dockerd's sends again what was acknowledged, at times.
    "fluentd": Case("fluentd", Fluentd, {"fluentd-request-ack": "false"}),
    "fluentd sub-second": Case(
        "fluentd",
        Fluentd,
        {"fluentd-request-ack": "false", "fluentd-sub-second-precision": "true"},
    ),
    "splunk inline": Case("splunk", Collector),
    "splunk json": Case("splunk", Collector, {"splunk-format": "json", "splunk-gzip": "true"}),
    "splunk raw": Case("splunk", Collector, {"splunk-format": "raw", "splunk-source": "here"}),
}


class Difference(NamedTuple):
    """A field that is not the same; ``-``: it is not there."""

    driver: str
    field: str
    dockerd: str
    ours: str


class Pair:
    """Ours and dockerd, in one network, with the same image and the same receivers."""

    def __init__(self, host: Host, dockerd: Dockerd, folder: Path) -> None:
        self._host = host
        self._folder = folder
        self._receivers: dict[type[Receiver], Receiver] = {}
        self._clients = {
            "dockerd": ["docker", "-H", dockerd.socket],
            "ours": host.docker_command,
        }
        (folder / "say.sh").write_text(SCRIPT)

    def client(self, whose: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        command = [*self._clients[whose], *arguments]
        return subprocess.run(command, capture_output=True, timeout=120)

    def receiver(self, kind: type[Receiver]) -> Receiver:
        if kind not in self._receivers:
            folder = self._folder / kind.__name__
            folder.mkdir()
            receiver = kind(folder, self._host.inside)
            self._receivers[kind] = receiver
            receiver.start()
        return self._receivers[kind]

    def close(self) -> None:
        for receiver in self._receivers.values():
            receiver.close()

    def run(self, whose: str, case: Case, options: Mapping[str, str]) -> str:
        """Have the container say it all, and return its ID."""
        chosen = [f"--log-opt={key}={value}" for key, value in options.items()]
        done = self.client(
            whose, "run", "--network=none", "--name", "web", "--hostname", "inner",
            "--label", "team=blue", "--env", "COLOR=red", "--env", "X_Y=1",
            "-v", f"{self._folder}/say.sh:/say.sh", f"--log-driver={case.driver}", *chosen,
            "busybox", "sh", "/say.sh",
        )  # fmt: skip
        assert done.returncode == 3, done.stderr.decode()
        return self.client(whose, "inspect", "-f", "{{.Id}}", "web").stdout.decode().strip()

    def records(self, whose: str, case: Case, options: Mapping[str, str]) -> list[Record]:
        """Return what came of the container, as the receiver or the log's reader has it."""
        identifier = self.run(whose, case, options)
        try:
            if case.receiver is not None:
                documents = self._received(self.receiver(case.receiver), identifier)
            elif case.driver == "json-file":
                path = self.client(whose, "inspect", "-f", "{{.LogPath}}", "web").stdout
                lines = Path(path.decode().strip()).read_text().splitlines()
                documents = [json.loads(line) for line in lines]
            else:
                documents = []
            self._check_reading(whose, case.driver)
            if case.driver == "json-file":
                documents += self._details(whose)
            return [Record(document, identifier) for document in documents]
        finally:
            assert self.client(whose, "rm", "web").returncode == 0

    def _received(self, receiver: Receiver, identifier: str) -> list[dict[str, object]]:
        receiver.container_id = identifier

        def found() -> list[dict[str, object]]:
            return [e for e in receiver.entries() if identifier[:12] in json.dumps(e)]

        def complete() -> bool:
            return {Record(entry, identifier).name for entry in found()} >= NEEDED

        eventually(complete, f"all of {identifier[:12]} at {receiver.options}")
        return found()

    def _check_reading(self, whose: str, driver: str) -> None:
        """What ``logs`` says is what the container said, to the byte; json-file is UTF-8."""
        if whose == "dockerd" and driver not in ("json-file", "local"):
            return  # its read cache is `local`; its journald leaves out empty lines
        logs = self.client(whose, "logs", "web")
        said = subprocess.run(["sh", self._folder / "say.sh"], capture_output=True)
        for output, expected in ((logs.stdout, said.stdout), (logs.stderr, said.stderr)):
            if whose == "dockerd" and driver == "local":  # forgets the ends of long lines
                expected = expected.replace(b"p\nno", b"pno")
            assert output in (expected, expected.decode("utf-8", "replace").encode())

    def _details(self, whose: str) -> list[dict[str, object]]:
        done = self.client(whose, "logs", "--details", "web")
        return [
            {"logs": stream, "text": line.decode("utf-8", "replace")}
            for stream, output in (("stdout", done.stdout), ("stderr", done.stderr))
            for line in output.split(b"\n")
            if b"ppp" not in line  # dockerd puts them before every piece of a line
        ]


class Record:
    """A document that can be compared: without identifiers, and with the shapes of times."""

    def __init__(self, document: dict[str, object], identifier: str) -> None:
        self._identifier = identifier
        # What journald adds about the process that sends it begins with an underscore.
        skip = "_" if "MESSAGE" in document else "\0"
        self.fields = {key: self._plain(v) for key, v in _flat(document) if key[0] != skip}
        if "time.nano" in self.fields:
            self.fields["time.nano"] = str(self.fields["time.nano"] != "0")
        text = next(self.fields[key] for key in TEXTS if key in self.fields).rstrip("\n")
        found = MARK.search(text)
        # A read-back line is preceded by its attributes and a blank.
        blank = text.endswith("   " if "logs" in document else "  ")
        self.name = found[0] if found else "blank" if blank else "empty"

    def _plain(self, value: object) -> str:
        if isinstance(value, list):
            value = bytes(value).decode("utf-8", "replace")
        text = value if isinstance(value, str) else json.dumps(value)
        text = text.replace(self._identifier, "FULL-ID").replace(self._identifier[:12], "ID")
        text = text.replace("\x01", "^A")
        text = re.sub(r"\b[0-9a-f]{64}\b", "HASH", text)
        text = re.sub(r"p{100,}", lambda run: f"p*{len(run[0])}", text)
        text = re.sub(r"\[\d+\]|^\d{3,7}$", "[PROCESS]", text)
        # dockerd's attributes have no order.
        text = re.sub(r"(\w+=\w+ )+", lambda run: " ".join(sorted(run[0].split())) + " ", text)
        text = re.sub(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d", "TIME", text)
        text = re.sub(r"\b1[789]\d{8}\b", "SECONDS", text)
        return re.sub(r"(TIME|SECONDS)\.\d+", r"\1.FRACTION", text)


def _flat(document: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in document.items():
        if isinstance(value, dict) and key != "line":
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def numbered(records: list[Record]) -> dict[tuple[str, int], Record]:
    """Records by name, and by number where there are several of that name, in order."""
    found: dict[tuple[str, int], Record] = {}
    for record in records:
        place = sum(name == record.name for name, _ in found)
        found[record.name, place] = record
    return found


def differences(driver: str, dockerd: list[Record], ours: list[Record]) -> set[Difference]:
    """Compare two lists of records field by field."""
    theirs, mine = numbered(dockerd), numbered(ours)
    found: set[Difference] = set()
    for name, place in theirs.keys() ^ mine.keys():
        there, here = ((name, place) in each for each in (theirs, mine))
        found.add(Difference(driver, f"{name} line", "x" if there else "-", "x" if here else "-"))
    for key in theirs.keys() & mine.keys():
        one, other = theirs[key].fields, mine[key].fields
        for field in one.keys() | other.keys():
            if field not in one or field not in other:
                values = ("x", "-") if field in one else ("-", "x")
                found.add(Difference(driver, field, *values))
            elif one[field] != other[field]:
                found.add(Difference(driver, field, one[field], other[field]))
    return found


def order(records: list[Record], among: list[Record], *, errors: bool) -> list[str]:
    """Names of those of one stream that both have, in order."""
    both = {record.name for record in records} & {record.name for record in among}
    names = (record.name for record in records if record.name in both)
    return [name for name in names if (name in STDERR) is errors]


def listed() -> set[Difference]:
    """The table of the guide."""
    text = GUIDE.read_text().partition("## Beside dockerd's drivers")[2].partition("\n## ")[0]
    rows = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip().replace("`", "") for cell in row] for row in rows[2:]]
    return {Difference(*row[:4]) for row in cells if all(row[4])}


@pytest.fixture(scope="module")
def pair(engine_host: Host) -> Iterator[Pair]:
    root = Path(tempfile.mkdtemp(prefix="bd-", dir="/tmp"))
    dockerd = Dockerd(root, engine_host.inside)
    both = None
    try:
        dockerd.wait()
        dockerd("load", stdin=engine_host_image(engine_host))
        both = Pair(engine_host, dockerd, root)
        yield both
    finally:
        if both is not None:
            both.close()
        dockerd.stop()
        shutil.rmtree(root)


def engine_host_image(host: Host) -> bytes:
    """The image with the same ID, for dockerd."""
    command = [*host.docker_command, "save", "busybox:latest"]
    return subprocess.run(command, capture_output=True, check=True).stdout


@pytest.mark.parametrize("name", CASES)
def test_records_agree_field_by_field(pair: Pair, name: str) -> None:
    case = CASES[name]
    options = {**(pair.receiver(case.receiver).options if case.receiver else {}), **case.options}
    if case.driver != "local":  # dockerd's has none of these
        options |= {"labels": "team", "env": "COLOR", "env-regex": "^X_"}
        options["tag"] = "{{.Name}}/{{.ID}}"
    theirs = {"splunk-verify-connection": "false"} if case.driver == "splunk" else {}
    dockerd = pair.records("dockerd", case, {**options, **theirs})
    ours = pair.records("ours", case, options)
    for errors in (False, True) if case.ordered else ():
        assert order(dockerd, ours, errors=errors) == order(ours, dockerd, errors=errors)
    found = differences(case.driver, dockerd, ours)
    assert found == {each for each in listed() if each.driver == case.driver}
