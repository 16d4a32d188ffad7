"""The gelf log driver: Graylog's extended log format 1.1 over UDP or TCP.

Source of the format: https://go2docs.graylog.org/current/getting_in_log_data/gelf.html. Over UDP a
message is compressed and, when larger than a datagram should be, cut into at most 128 chunks; over
TCP messages end with a zero byte and are never compressed.
"""

from __future__ import annotations

import json
import os
import socket
import time as clock
import zlib
from collections.abc import Iterator, Sequence
from typing import ClassVar

from drivetrain import hookimpl
from drivetrain.errors import InvalidArgument, Unavailable
from drivetrain.host.receivers import DatagramReceiver, StreamReceiver, parse_address
from drivetrain.log import Batch, LogContext, LogTraits
from drivetrain.options import Option, Options

#: Payload of a chunk: what fits a datagram on an Ethernet without fragments, less the header.
CHUNK = 1420 - 12
CHUNKS = 128
LEVEL = {"stdout": 6, "stderr": 3}
#: ``wbits`` of zlib for the two framings.
WINDOW = {"gzip": 31, "zlib": 15}
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class Gelf:
    """Sends each line as one GELF message."""

    OPTIONS: ClassVar[tuple[Option, ...]] = (
        Option("gelf-address", required=True, help="udp://HOST[:PORT] or tcp://HOST[:PORT]"),
        Option(
            "gelf-compression-type",
            "choice",
            default="gzip",
            choices=("gzip", "zlib", "none"),
            help="for UDP",
        ),
        Option("gelf-compression-level", "integer", default=1, help="for UDP: -1 to 9"),
        Option("gelf-tcp-max-reconnect", "integer", default=3, help="for TCP: tries per message"),
        Option("gelf-tcp-reconnect-delay", "duration", default=1.0, help="for TCP: between tries"),
    )

    @hookimpl
    def log_traits(self) -> LogTraits:
        return LogTraits(remote=True)

    @hookimpl
    def log_options(self) -> Sequence[Option]:
        return self.OPTIONS

    @hookimpl
    def log_validate(self, options: Options) -> bool:
        address = parse_address(
            "gelf-address", options.string("gelf-address"), ("udp", "tcp"), 12201
        )
        level = options.integer("gelf-compression-level")
        if not -1 <= level <= 9:
            raise InvalidArgument(f"option gelf-compression-level={level}: -1 to 9 is needed")
        for name in ("gelf-tcp-max-reconnect", "gelf-tcp-reconnect-delay"):
            if options.number(name) < 0:
                raise InvalidArgument(f"option {name}: it must not be negative")
        wrong = "gelf-compression-" if address.scheme == "tcp" else "gelf-tcp-"
        for name in options.given:
            if name.startswith(wrong):
                raise InvalidArgument(f"option {name}: it has no meaning for {address.scheme}://")
        return True

    @hookimpl
    def log_open(self, context: LogContext, options: Options) -> bool:
        self._address = parse_address(
            "gelf-address", options.string("gelf-address"), ("udp", "tcp"), 12201
        )
        kind = options.string("gelf-compression-type")
        self._window = WINDOW.get(kind)
        self._level = options.integer("gelf-compression-level")
        self._tries = options.integer("gelf-tcp-max-reconnect") + 1
        self._delay = options.number("gelf-tcp-reconnect-delay")
        self._fixed: dict[str, object] = {
            "version": "1.1",
            "host": context.host or socket.gethostname(),
            "_container_id": context.container_id,
            "_container_name": context.container_name,
            "_image_id": context.image_id,
            "_image_name": context.image_name,
            "_command": context.command,
            "_tag": context.tag,
            "_created": context.created,
            **{f"_{key}": value for key, value in context.attributes.items()},
        }
        self._udp = DatagramReceiver(self._address) if self._address.scheme == "udp" else None
        self._tcp = StreamReceiver(self._address) if self._udp is None else None
        return True

    @hookimpl
    def log_connect(self) -> bool:
        for receiver in (self._udp, self._tcp):
            if receiver is not None:
                receiver.connect()
        return True

    def _messages(self, batch: Batch) -> Iterator[bytes]:
        """Yield a message for each line; only the text is encoded anew."""
        message = {**self._fixed, "timestamp": batch.time / 1e9, "level": LEVEL[batch.stream]}
        if batch.partial is not None:
            message["_partial_message"] = "true"
            message["_partial_id"] = batch.partial.id
            message["_partial_ordinal"] = batch.partial.ordinal
            message["_partial_last"] = "true" if batch.partial.last else "false"
        head = _encode(message)[:-1] + ',"short_message":'
        for line in batch.lines:
            # The format requires a text; an empty line is sent as the newline that it was.
            text = line.decode("utf-8", "replace") or "\n"
            yield f"{head}{_encode(text)}}}".encode()

    def _chunks(self, message: bytes) -> Iterator[bytes]:
        if self._window is not None:
            packer = zlib.compressobj(self._level, wbits=self._window)
            message = packer.compress(message) + packer.flush()
        if len(message) <= CHUNK + 12:
            yield message
            return
        count = -(-len(message) // CHUNK)
        if count > CHUNKS:
            # Cannot happen for a piece of a line with fixed fields of any sane size.
            raise InvalidArgument("a GELF message needs more than 128 chunks")
        identifier = os.urandom(8)
        for number in range(count):
            head = b"\x1e\x0f" + identifier + bytes((number, count))
            yield head + message[number * CHUNK : (number + 1) * CHUNK]

    @hookimpl
    def log_write(self, batch: Batch) -> bool:
        if self._tcp is not None:
            self._send_stream(b"\0".join(self._messages(batch)) + b"\0")
            return True
        assert self._udp is not None
        # All at once: sending changes the batch.
        for sent, message in enumerate(list(self._messages(batch))):
            try:
                for chunk in self._chunks(message):
                    self._udp.send(chunk)
            except Unavailable:
                # The engine gives the batch again: it must not hold what went out already.
                del batch.lines[:sent]
                raise
        return True

    def _send_stream(self, data: bytes) -> None:
        assert self._tcp is not None
        for remaining in reversed(range(self._tries)):
            try:
                self._tcp.send(data)
                return
            except Unavailable:
                if not remaining:
                    raise
                clock.sleep(min(self._delay, 1.0))

    @hookimpl
    def log_close(self) -> bool:
        for receiver in (self._udp, self._tcp):
            if receiver is not None:
                receiver.close()
        return True
