"""The fluentd log driver: the forward protocol, version 1, over TCP, TLS or a unix socket.

Source: https://github.com/fluent/fluentd/wiki/Forward-Protocol-Specification-v1. A batch is one
``Forward`` message, ``[tag, [[time, record], …], option]``; with ``fluentd-request-ack`` its option
holds a chunk id that the receiver answers with. fluent-logger is not used here: its sender drops
what it cannot deliver from a thread of its own, and knows neither TLS nor acknowledgements.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from typing import ClassVar

import msgpack

from drivetrain import hookimpl
from drivetrain.errors import InvalidArgument, Unavailable
from drivetrain.host.receivers import StreamReceiver, parse_address
from drivetrain.log import Batch, LogContext, LogTraits
from drivetrain.options import Option, Options

SCHEMES = ("tcp", "tls", "unix")
#: Acknowledgements are tiny maps.
ANSWER = 4096


def _event_time(nanoseconds: int) -> msgpack.ExtType:
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return msgpack.ExtType(0, seconds.to_bytes(4, "big") + rest.to_bytes(4, "big"))


class Fluentd:
    """Sends each line as one event, in batches."""

    OPTIONS: ClassVar[tuple[Option, ...]] = (
        Option(
            "fluentd-address",
            default="tcp://127.0.0.1:24224",
            help="[tcp://|tls://]HOST[:PORT] or unix://PATH",
        ),
        Option("fluentd-async", "boolean", default=False, help="accepted: starts never wait here"),
        Option("fluentd-async-reconnect-interval", "duration", help="accepted; see fluentd-async"),
        Option("fluentd-buffer-limit", "size", default=1 << 20, help="bytes per message"),
        Option("fluentd-max-retries", "integer", help="accepted: records wait in the spool"),
        Option("fluentd-retry-wait", "duration", default=1.0, help="accepted"),
        Option("fluentd-request-ack", "boolean", default=False, help="wait for an answer"),
        Option("fluentd-sub-second-precision", "boolean", default=False, help="nanosecond times"),
        Option("fluentd-write-timeout", "duration", default=5.0, help="for a stalled receiver"),
        Option(
            "fluentd-async-connect",
            "boolean",
            retired="use fluentd-async",
            help="the old name of fluentd-async",
        ),
    )

    @hookimpl
    def log_traits(self) -> LogTraits:
        return LogTraits(remote=True)

    @hookimpl
    def log_options(self) -> Sequence[Option]:
        return self.OPTIONS

    @hookimpl
    def log_validate(self, options: Options) -> bool:
        self._parse(options)
        interval = options.number("fluentd-async-reconnect-interval")
        if interval and not 0.1 <= interval <= 10:
            raise InvalidArgument("option fluentd-async-reconnect-interval: 100ms to 10s is needed")
        return True

    @staticmethod
    def _parse(options: Options):  # type: ignore[no-untyped-def]
        text = options.string("fluentd-address")
        return parse_address("fluentd-address", text, SCHEMES, 24224, default_scheme="tcp")

    @hookimpl
    def log_open(self, context: LogContext, options: Options) -> bool:
        self._tag = context.tag or context.container_id[:12]
        self._fixed = {
            "container_id": context.container_id,
            "container_name": f"/{context.container_name}",
            **context.attributes,
        }
        self._precise = options.boolean("fluentd-sub-second-precision")
        self._acknowledged = options.boolean("fluentd-request-ack")
        timeout = options.number("fluentd-write-timeout") or 5.0
        self._receiver = StreamReceiver(self._parse(options), timeout=timeout)
        #: A batch that is not delivered yet: it, its message and chunk, where that was sent.
        self._tried: tuple[Batch, bytes, str] | None = None
        self._sent_on: object = None
        return True

    @hookimpl
    def log_connect(self) -> bool:
        self._receiver.connect()
        return True

    def _message(self, batch: Batch, chunk: str) -> bytes:
        time = _event_time(batch.time) if self._precise else batch.time // 1_000_000_000
        partial: dict[str, str] = {}
        if batch.partial is not None:
            partial = {
                "partial_message": "true",
                "partial_id": batch.partial.id,
                "partial_ordinal": str(batch.partial.ordinal),
                "partial_last": "true" if batch.partial.last else "false",
            }
        fixed = {**self._fixed, "source": batch.stream, **partial}
        entries = [
            (time, {**fixed, "log": line.decode("utf-8", "replace")}) for line in batch.lines
        ]
        option: dict[str, object] = {"size": len(entries)}
        if chunk:
            option["chunk"] = chunk
        packed: bytes = msgpack.packb((self._tag, entries, option))
        return packed

    @hookimpl
    def log_write(self, batch: Batch) -> bool:
        if self._tried is None or self._tried[0] is not batch:
            chunk = base64.b64encode(os.urandom(16)).decode() if self._acknowledged else ""
            self._tried = (batch, self._message(batch, chunk), chunk)
            self._sent_on = None
        # The same message again, so that a receiver that stalled does not get it twice.
        _, message, chunk = self._tried
        if self._sent_on is None or self._sent_on is not self._receiver.connect():
            self._receiver.send(message)
            # Not a new one: it may have been cut by now, with the message.
            self._sent_on = self._receiver.connection
        if chunk:
            self._await(chunk)
        self._tried = None
        return True

    def _await(self, chunk: str) -> None:
        unpacker = msgpack.Unpacker()
        while True:
            unpacker.feed(self._receiver.receive(ANSWER))
            for answer in unpacker:
                if isinstance(answer, dict) and answer.get("ack") == chunk:
                    return
                self._receiver.close()
                raise Unavailable("the fluentd receiver acknowledged something else")

    @hookimpl
    def log_close(self) -> bool:
        self._receiver.close()
        return True
