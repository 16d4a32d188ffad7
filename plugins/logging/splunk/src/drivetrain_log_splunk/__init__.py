"""The splunk log driver: Splunk's HTTP event collector.

Source: https://docs.splunk.com/Documentation/Splunk/latest/Data/FormateventsforHTTPEventCollector.
A batch is one request whose body holds one JSON event after the other.
"""

from __future__ import annotations

import gzip
import http.client
import json
import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import ClassVar
from urllib.parse import urlsplit

from drivetrain import hookimpl
from drivetrain.errors import InvalidArgument, Unavailable
from drivetrain.log import Batch, LogContext, LogTraits
from drivetrain.options import Option, Options

PATH = "/services/collector/event/1.0"
#: Seconds for connecting, and for an answer: asking again would make events arrive twice.
TIMEOUT, ANSWER = 5.0, 60.0
_encode = json.JSONEncoder().encode


class Splunk:
    """Sends each line as one event."""

    OPTIONS: ClassVar[tuple[Option, ...]] = (
        Option("splunk-token", required=True, secret=True, help="of the event collector"),
        Option("splunk-url", required=True, help="http[s]://HOST:PORT"),
        Option("splunk-source", help="event source"),
        Option("splunk-sourcetype", help="event source type"),
        Option("splunk-index", help="event index"),
        Option("splunk-capath", help="file of the authorities to trust"),
        Option("splunk-caname", help="name expected in the server's certificate"),
        Option("splunk-insecureskipverify", "boolean", default=False, help="trust any server"),
        Option(
            "splunk-format",
            "choice",
            default="inline",
            choices=("inline", "json", "raw"),
            help="how a line becomes an event",
        ),
        Option("splunk-verify-connection", "boolean", default=False, help="accepted"),
        Option("splunk-gzip", "boolean", default=False, help="compress requests"),
        Option("splunk-gzip-level", "integer", default=6, help="0 to 9"),
        Option("splunk-index-acknowledgment", "boolean", default=False, help="send a channel id"),
    )

    @hookimpl
    def log_traits(self) -> LogTraits:
        return LogTraits(remote=True)

    @hookimpl
    def log_options(self) -> Sequence[Option]:
        return self.OPTIONS

    @hookimpl
    def log_validate(self, options: Options) -> bool:
        text = options.string("splunk-url")
        url = urlsplit(text)
        try:
            fine = url.scheme in ("http", "https") and url.hostname and (url.port or True)
        except ValueError:
            fine = False
        if not fine or url.path.rstrip("/") or url.query or url.fragment:
            raise InvalidArgument(f"option splunk-url={text!r}: http[s]://HOST:PORT is needed")
        level = options.integer("splunk-gzip-level")
        if not 0 <= level <= 9:
            raise InvalidArgument(f"option splunk-gzip-level={level}: 0 to 9 is needed")
        return True

    @hookimpl
    def log_open(self, context: LogContext, options: Options) -> bool:
        self._options = options
        self._tag = context.tag
        self._attributes = dict(context.attributes)
        self._event = {"host": context.host or socket.gethostname()}
        for key in ("source", "sourcetype", "index"):
            if value := options.string(f"splunk-{key}"):
                self._event[key] = value
        self._headers = {
            "Authorization": f"Splunk {options.string('splunk-token')}",
            "Content-Type": "application/json",
        }
        if options.boolean("splunk-index-acknowledgment"):
            self._headers["X-Splunk-Request-Channel"] = context.container_id[:32]
        if options.boolean("splunk-gzip"):
            self._headers["Content-Encoding"] = "gzip"
        self._connection = self._connect()
        return True

    def _connect(self) -> http.client.HTTPConnection:
        url = urlsplit(self._options.string("splunk-url"))
        host = url.hostname or ""
        if url.scheme == "http":
            return http.client.HTTPConnection(host, url.port, timeout=TIMEOUT)
        context = ssl.create_default_context(cafile=self._options.string("splunk-capath") or None)
        if self._options.boolean("splunk-insecureskipverify"):
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return http.client.HTTPSConnection(host, url.port, timeout=TIMEOUT, context=context)

    @hookimpl
    def log_connect(self) -> bool:
        try:
            self._connection.connect()
        except OSError as error:
            raise self._unreachable(error) from error
        return True

    def _unreachable(self, error: Exception) -> Unavailable:
        self._connection.close()
        url = self._options.string("splunk-url")
        return Unavailable(f"cannot reach the event collector at {url}: {error}")

    def _events(self, batch: Batch) -> Iterator[str]:
        """Yield an event for each line; only the text is encoded anew."""
        style = self._options.string("splunk-format")
        head = _encode({**self._event, "time": f"{batch.time / 1e9:.6f}"})[:-1]
        texts = [line.decode("utf-8", "replace") for line in batch.lines]
        if style == "raw":
            attributes = "".join(f" {key}={value}" for key, value in self._attributes.items())
            prefix = f"{self._tag}{attributes} ".lstrip()
            for text in texts:
                # Splunk refuses a request that holds an event of nothing but white space.
                if text.strip():
                    yield f'{head}, "event": {_encode(prefix + text)}}}'
            return
        about: dict[str, object] = {"source": batch.stream, "tag": self._tag}
        if self._attributes:
            about["attrs"] = self._attributes
        head += f', "event": {_encode(about)[:-1]}, "line": '
        for text in texts:
            content: object = text
            if style == "json":
                with suppress(ValueError):
                    content = json.loads(text)
            yield f"{head}{_encode(content)}}}}}"

    @hookimpl
    def log_write(self, batch: Batch) -> bool:
        body = "".join(self._events(batch)).encode()
        if not body:
            return True
        if self._options.boolean("splunk-gzip"):
            body = gzip.compress(body, self._options.integer("splunk-gzip-level"))
        self._post(body)
        return True

    def _post(self, body: bytes) -> None:
        try:
            if self._connection.sock is None:
                self._connection.connect()
            self._connection.sock.settimeout(ANSWER)
            self._connection.request("POST", PATH, body, self._headers)
            answer = self._connection.getresponse()
            text = answer.read().decode("utf-8", "replace")
        except (OSError, http.client.HTTPException) as error:
            raise self._unreachable(error) from error
        if answer.status != 200:
            raise Unavailable(f"the event collector answered {answer.status}: {text[:200]}")

    @hookimpl
    def log_close(self) -> bool:
        self._connection.close()
        return True
