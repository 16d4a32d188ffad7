"""The syslog log driver: RFC 3164 and RFC 5424 over UDP, TCP, TLS and unix sockets.

Options carry the names that Docker's users know. Over streams a message ends with a newline, or,
with ``syslog-framing=octet-counting``, which is the default for RFC 5424 over TLS, is preceded by
its length (RFC 6587); newlines inside a message cannot occur, since the engine splits at them.
"""

from __future__ import annotations

import os
import socket
import time as clock
from collections.abc import Sequence
from typing import ClassVar

from drivetrain import hookimpl
from drivetrain.errors import InvalidArgument, Unavailable
from drivetrain.host.receivers import (
    DatagramReceiver,
    ReceiverAddress,
    StreamReceiver,
    TlsFiles,
    parse_address,
)
from drivetrain.log import Batch, LogContext, LogTraits
from drivetrain.options import Option, Options

SCHEMES = ("udp", "tcp", "tcp+tls", "unix", "unixgram")
FACILITIES = (
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv",
    "ftp", "ntp", "security", "console", "solaris-cron", "local0", "local1", "local2", "local3",
    "local4", "local5", "local6", "local7",
)  # fmt: skip
LOCAL_SOCKETS = ("/dev/log", "/var/run/syslog", "/var/run/log")
#: Severities of RFC 5424 section 6.2.1 for the two streams: informational and error.
SEVERITY = {"stdout": 6, "stderr": 3}


def _facility(text: str) -> int:
    if text.isdigit() and int(text) <= 23:
        return int(text)
    if text in FACILITIES:
        return FACILITIES.index(text)
    raise InvalidArgument(
        f"option syslog-facility={text!r}: a number from 0 to 23 or one of "
        f"{', '.join(FACILITIES)} is needed"
    )


def _address(options: Options) -> ReceiverAddress | None:
    text = options.string("syslog-address")
    if not text:
        return None
    port = 6514 if text.startswith("tcp+tls://") else 514
    return parse_address("syslog-address", text, SCHEMES, port)


class Syslog:
    """Sends each line as one syslog message."""

    OPTIONS: ClassVar[tuple[Option, ...]] = (
        Option("syslog-address", help="SCHEME://HOST[:PORT] or unix[gram]://PATH; empty: local"),
        Option("syslog-facility", default="daemon", help="name, or number from 0 to 23"),
        Option(
            "syslog-format",
            "choice",
            default="local",
            choices=("rfc3164", "rfc5424", "rfc5424micro", "local"),
            help="the header; local is that of the local daemon, without a host name",
        ),
        Option(
            "syslog-framing",
            "choice",
            default="newline",
            choices=("newline", "octet-counting"),
            help="how messages are told apart in a stream (RFC 6587); RFC 5424 over TLS: counted",
        ),
        Option("syslog-tls-ca-cert", help="file of the authorities to trust"),
        Option("syslog-tls-cert", help="file of the client's certificate"),
        Option("syslog-tls-key", help="file of the client's key"),
        Option("syslog-tls-skip-verify", "boolean", default=False, help="trust any server"),
    )

    @hookimpl
    def log_traits(self) -> LogTraits:
        return LogTraits(remote=True)

    @hookimpl
    def log_options(self) -> Sequence[Option]:
        return self.OPTIONS

    @hookimpl
    def log_validate(self, options: Options) -> bool:
        address = _address(options)
        _facility(options.string("syslog-facility"))
        if options.string("syslog-tls-key") and not options.string("syslog-tls-cert"):
            raise InvalidArgument("option syslog-tls-key: it needs syslog-tls-cert as well")
        tls = [name for name in options.given if name.startswith("syslog-tls-")]
        if tls and (address is None or address.scheme != "tcp+tls"):
            raise InvalidArgument(f"option {tls[0]}: it needs a syslog-address of tcp+tls://")
        return True

    @hookimpl
    def log_open(self, context: LogContext, options: Options) -> bool:
        self._priority = {
            stream: _facility(options.string("syslog-facility")) * 8 + severity
            for stream, severity in SEVERITY.items()
        }
        self._tag = (context.tag or context.container_id[:12]).replace(" ", "_")
        self._host = context.host or socket.gethostname()
        self._process = os.getpid()
        self._format = options.string("syslog-format")
        self._counted = options.string("syslog-framing") == "octet-counting"
        if "syslog-framing" not in options.given:
            # RFC 5425 section 4.3; docker does the same.
            tls = options.string("syslog-address").startswith("tcp+tls")
            self._counted = tls and self._format.startswith("rfc5424")
        self._receiver = self._connect(options)
        return True

    @hookimpl
    def log_connect(self) -> bool:
        self._receiver.connect()
        return True

    def _connect(self, options: Options) -> StreamReceiver | DatagramReceiver:
        address = _address(options)
        if address is None:
            path = next((path for path in LOCAL_SOCKETS if os.path.exists(path)), LOCAL_SOCKETS[0])
            return DatagramReceiver(ReceiverAddress("unixgram", "", 0, path))
        if address.scheme in ("udp", "unixgram"):
            return DatagramReceiver(address)
        tls = TlsFiles(
            options.string("syslog-tls-ca-cert"),
            options.string("syslog-tls-cert"),
            options.string("syslog-tls-key"),
            options.boolean("syslog-tls-skip-verify"),
        )
        return StreamReceiver(address, tls)

    def _header(self, batch: Batch) -> bytes:
        priority = self._priority[batch.stream]
        whole, nanoseconds = divmod(batch.time, 1_000_000_000)
        if self._format.startswith("rfc5424"):
            moment = clock.strftime("%Y-%m-%dT%H:%M:%S", clock.gmtime(whole))
            if self._format == "rfc5424micro":
                moment += f".{nanoseconds // 1000:06}"
            tag = self._tag[:48]  # APP-NAME, RFC 5424 section 6.2.5
            head = f"<{priority}>1 {moment}Z {self._host} {tag} {self._process} {tag} - "
        else:
            local = clock.localtime(whole)
            moment = clock.strftime(f"%b {local.tm_mday:2} %H:%M:%S", local)
            host = f" {self._host}" if self._format == "rfc3164" else ""
            head = f"<{priority}>{moment}{host} {self._tag}[{self._process}]: "
        return head.encode()

    @hookimpl
    def log_write(self, batch: Batch) -> bool:
        head = self._header(batch)
        if isinstance(self._receiver, DatagramReceiver):
            self._send_datagrams(head, batch)
        elif self._counted:
            self._receiver.send(
                b"".join(b"%d %b%b" % (len(head) + len(line), head, line) for line in batch.lines)
            )
        else:
            self._receiver.send(b"".join(head + line + b"\n" for line in batch.lines))
        return True

    def _send_datagrams(self, head: bytes, batch: Batch) -> None:
        assert isinstance(self._receiver, DatagramReceiver)
        for sent, line in enumerate(batch.lines):
            try:
                self._receiver.send(head + line)
            except Unavailable:
                # The engine gives the batch again: it must not hold what went out already.
                del batch.lines[:sent]
                raise

    @hookimpl
    def log_close(self) -> bool:
        self._receiver.close()
        return True
