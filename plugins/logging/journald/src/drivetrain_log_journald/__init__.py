"""The journald log driver: the systemd journal, by its native protocol.

Source: https://systemd.io/JOURNAL_NATIVE_PROTOCOL. Writing needs no library: it is a datagram, or a
sealed memory file when an entry is too large for one. A datagram holds many entries, with an empty
line between them, as journald has taken them from its first version on (``docs/decisions/0016``).
Reading goes through ``journalctl``, which knows every file format of every version.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import struct
import subprocess
import time as clock
from collections.abc import Iterator, Mapping, Sequence
from errno import EMSGSIZE, ENOBUFS
from typing import ClassVar

from drivetrain import hookimpl
from drivetrain.errors import NotSupported, Unavailable
from drivetrain.log import Batch, LogContext, LogQuery, LogTraits, Partial, Record
from drivetrain.options import Option, Options

SOCKET = "/run/systemd/journal/socket"
PRIORITY = {"stdout": b"6", "stderr": b"3"}
#: Seconds and microseconds that a stalled journal is waited for.
_TIMEOUT = struct.pack("ll", 5, 0)
#: Fields that are read back; further ones come from labels and the environment.
_READ = (
    "MESSAGE", "PRIORITY", "SYSLOG_TIMESTAMP", "CONTAINER_PARTIAL_MESSAGE",
    "CONTAINER_PARTIAL_ID", "CONTAINER_PARTIAL_ORDINAL",
)  # fmt: skip
#: Bytes of a datagram with several entries: some of them fit a socket's buffer.
DATAGRAM = 32 << 10
#: F_ADD_SEALS with SEAL, SHRINK, GROW and WRITE: what journald wants of a memory file.
_SEALS = 0x1 | 0x2 | 0x4 | 0x8


def _field(name: str, value: bytes) -> bytes:
    if b"\n" not in value:
        return name.encode() + b"=" + value + b"\n"
    return name.encode() + b"\n" + len(value).to_bytes(8, "little") + value + b"\n"


def _attribute_name(key: str) -> str:
    """Return a field name that journald accepts: A-Z, 0-9 and _, starting with a letter."""
    name = "".join(c if c.isascii() and c.isalnum() else "_" for c in key.upper())
    return name.lstrip("_0123456789") or "ATTRIBUTE"


class Journald:
    """Sends each line as one journal entry, and reads them back."""

    OPTIONS: ClassVar[tuple[Option, ...]] = ()

    @hookimpl
    def log_traits(self) -> LogTraits:
        return LogTraits(readable=True, remote=True)

    @hookimpl
    def log_options(self) -> Sequence[Option]:
        return self.OPTIONS

    @hookimpl
    def log_probe(self) -> bool:
        if not os.path.exists(SOCKET):
            raise NotSupported(
                f"journald does not listen at {SOCKET}: is systemd-journald running?"
            )
        return True

    @hookimpl
    def log_open(self, context: LogContext, options: Options) -> bool:
        fields = {
            "CONTAINER_ID": context.container_id[:12],
            "CONTAINER_ID_FULL": context.container_id,
            "CONTAINER_NAME": context.container_name,
            "CONTAINER_TAG": context.tag,
            "IMAGE_NAME": context.image_name,
            "SYSLOG_IDENTIFIER": context.tag,
            **{_attribute_name(key): value for key, value in context.attributes.items()},
        }
        self._fixed = b"".join(
            _field(name, value.encode("utf-8", "replace")) for name, value in fields.items()
        )
        self._socket: socket.socket | None = None
        return True

    @hookimpl
    def log_connect(self) -> bool:
        try:
            self._connect()
        except OSError as error:
            raise Unavailable(f"cannot reach the journal at {SOCKET}: {error}") from error
        return True

    def _connect(self) -> socket.socket:
        if self._socket is None:
            made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            # Not settimeout: with it Python asks poll before each of the entries.
            made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _TIMEOUT)
            try:
                made.connect(SOCKET)
            except OSError:
                made.close()
                raise
            self._socket = made
        return self._socket

    @hookimpl
    def log_write(self, batch: Batch) -> bool:
        common = self._fixed + _field("PRIORITY", PRIORITY[batch.stream])
        common += _field("SYSLOG_TIMESTAMP", self._timestamp(batch.time))
        if batch.partial is not None:
            common += (
                _field("CONTAINER_PARTIAL_ID", batch.partial.id.encode())
                + _field("CONTAINER_PARTIAL_ORDINAL", str(batch.partial.ordinal).encode())
                + _field("CONTAINER_PARTIAL_LAST", b"true" if batch.partial.last else b"false")
            )
            if not batch.partial.last:
                common += _field("CONTAINER_PARTIAL_MESSAGE", b"true")
        common += b"MESSAGE="  # a line holds no newline
        lines, sent = batch.lines, 0
        count = DATAGRAM // (len(common) + 2 + max(map(len, lines), default=0)) or 1
        try:
            connection = self._connect()
            while sent < len(lines):
                # An empty line ends an entry; common ends in the middle of one.
                entries = (b"\n\n" + common).join(lines[sent : sent + count])
                self._send(connection, common + entries + b"\n")
                sent += count
        except OSError as error:
            # The engine gives the batch again: it must not hold what went out already.
            del lines[:sent]
            self._close()
            raise Unavailable(f"cannot write to the journal at {SOCKET}: {error}") from error
        return True

    @classmethod
    def _send(cls, connection: socket.socket, entries: bytes) -> None:
        try:
            connection.send(entries)
        except OSError as error:
            if error.errno not in (EMSGSIZE, ENOBUFS):  # too large for a datagram
                raise
            cls._send_file(connection, entries)

    @staticmethod
    def _timestamp(nanoseconds: int) -> bytes:
        from datetime import UTC, datetime

        moment = datetime.fromtimestamp(nanoseconds // 1_000_000_000, UTC)
        rest = nanoseconds % 1_000_000_000
        return f"{moment:%Y-%m-%dT%H:%M:%S}.{rest:09}Z".encode()

    @staticmethod
    def _send_file(connection: socket.socket, entries: bytes) -> None:
        memory = os.memfd_create("journal-entry", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            with open(memory, "wb", closefd=False) as file:
                file.write(entries)
            fcntl.fcntl(memory, fcntl.F_ADD_SEALS, _SEALS)
            socket.send_fds(connection, [b""], [memory])
        finally:
            os.close(memory)

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    @hookimpl
    def log_close(self) -> bool:
        self._close()
        return True

    @hookimpl
    def log_read(self, context: LogContext, options: Options, query: LogQuery) -> Iterator[Record]:
        if shutil.which("journalctl") is None:
            raise NotSupported("reading the journal needs journalctl: install systemd")
        return self._read(context, query)

    def _read(self, context: LogContext, query: LogQuery) -> Iterator[Record]:
        # The last cursor of a look is where the next one starts: no gap and no duplicate.
        cursor = ""
        tail = query.tail
        ended = False
        if tail == 0:
            for entry in self._entries(context, "", 1):
                cursor = str(entry["__CURSOR"])
            tail = -1
            if not query.follow:
                return
        while True:
            for entry in self._look(context, query, cursor, tail):
                cursor = str(entry["__CURSOR"])
                record = _record(entry)
                if query.until and record.time > query.until:
                    if query.follow:
                        return
                    continue
                if record.time >= query.since:
                    yield record
            tail = -1
            if not query.follow or ended:
                return
            ended = query.ended() or 0 < query.until < clock.time_ns()
            if not ended:
                query.wait(0.5)

    def _look(
        self, context: LogContext, query: LogQuery, cursor: str, tail: int
    ) -> Iterator[Mapping[str, object]]:
        if tail < 0:
            yield from self._entries(context, cursor, since=query.since)
        elif query.until:
            fitting = (e for e in self._entries(context, "") if _fits(e, query))
            yield from _last(fitting, tail)
        else:
            # A line may have many pieces, each an entry: ask for more until there are enough ends.
            asked, found = tail + 1, list(self._entries(context, "", tail + 1))
            while len(found) == asked and sum(map(_ends, found)) <= tail:
                asked *= 4
                found = list(self._entries(context, "", asked))
            yield from _last(iter(found), tail)

    @staticmethod
    def _entries(
        context: LogContext, cursor: str, count: int = -1, since: int = 0
    ) -> Iterator[Mapping[str, object]]:
        command = ["journalctl", "--quiet", "--all", "--output=json", "--no-pager"]
        command.append(f"CONTAINER_ID_FULL={context.container_id}")
        fields = (*_READ, *map(_attribute_name, context.attributes))
        command.append(f"--output-fields={','.join(fields)}")
        if cursor:
            command.append(f"--after-cursor={cursor}")
        elif since:
            # By when they came, which is not before they were written.
            command.append(f"--since=@{since // 1_000_000_000}")
        if count >= 0:
            command.append(f"--lines={count}")
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as reader:
            try:
                assert reader.stdout is not None
                yield from map(json.loads, reader.stdout)
            finally:
                reader.terminate()


def _fits(entry: Mapping[str, object], query: LogQuery) -> bool:
    time = _time(entry)
    return time >= query.since and (not query.until or time <= query.until)


def _ends(entry: Mapping[str, object]) -> bool:
    """Whether an entry ends a line."""
    return entry.get("CONTAINER_PARTIAL_MESSAGE") != "true"


def _last(entries: Iterator[Mapping[str, object]], count: int) -> list[Mapping[str, object]]:
    """Return the entries of the last ``count`` lines, in order."""
    from collections import deque

    kept: deque[list[tuple[int, Mapping[str, object]]]] = deque(maxlen=count)
    unfinished: dict[object, list[tuple[int, Mapping[str, object]]]] = {}
    for number, entry in enumerate(entries):
        stream = entry.get("PRIORITY")
        line = unfinished.pop(stream, None)
        if line is None:
            line = []
            kept.append(line)
        line.append((number, entry))
        if not _ends(entry):
            unfinished[stream] = line
    found = sorted((each for line in kept for each in line), key=lambda each: each[0])
    return [entry for _, entry in found]


def _time(entry: Mapping[str, object]) -> int:
    stamp = str(entry.get("SYSLOG_TIMESTAMP", ""))
    if stamp.endswith("Z") and "." in stamp:
        from datetime import UTC, datetime

        whole, _, rest = stamp[:-1].partition(".")
        moment = datetime.strptime(whole, "%Y-%m-%dT%H:%M:%S").replace(tzinfo=UTC)
        return int(moment.timestamp()) * 1_000_000_000 + int(rest)
    return int(str(entry["__REALTIME_TIMESTAMP"])) * 1000


def _record(entry: Mapping[str, object]) -> Record:
    message = entry.get("MESSAGE") or ""
    # journalctl writes what is not UTF-8 as a list of numbers.
    line = bytes(message) if isinstance(message, list) else str(message).encode()
    partial = None
    if "CONTAINER_PARTIAL_ID" in entry:
        partial = Partial(
            str(entry["CONTAINER_PARTIAL_ID"]),
            int(str(entry.get("CONTAINER_PARTIAL_ORDINAL", 1))),
            _ends(entry),
        )
    stream = "stderr" if str(entry.get("PRIORITY")) == "3" else "stdout"
    attributes = {
        key: str(value)
        for key, value in entry.items()
        if key not in _READ and not key.startswith("_")
    }
    return Record(stream, _time(entry), line, partial, attributes)  # type: ignore[arg-type]
