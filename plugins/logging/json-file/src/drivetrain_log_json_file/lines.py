r"""One line of the file: ``{"log":"text\n","stream":"stdout","time":"2026-01-02T03:04:05.6Z"}``.

The text ends with a newline unless it is a piece of a longer line and not its last. What is not
UTF-8 becomes U+FFFD, as docker writes it.
"""

from __future__ import annotations

import calendar
import time as clock
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress

import msgspec

from drivetrain.log import Batch, Partial, Record

_encode = msgspec.json.Encoder().encode


class _Line(msgspec.Struct, gc=False):
    log: str = ""
    stream: str = "stdout"
    time: str = ""
    attrs: dict[str, str] | None = None


_decoder = msgspec.json.Decoder(_Line)
_new = tuple.__new__
_PIECE = Partial("", 1, False)
_decode, _decode_lines = _decoder.decode, _decoder.decode_lines


def format_time(nanoseconds: int) -> str:
    """Return a time as RFC 3339 with nine digits of a second, UTC."""
    whole, rest = divmod(nanoseconds, 1_000_000_000)
    return f"{clock.strftime('%Y-%m-%dT%H:%M:%S', clock.gmtime(whole))}.{rest:09}Z"


_moment = ("", 0)


def parse_time(text: str) -> int:
    """Return nanoseconds since 1970 for RFC 3339 in UTC with up to nine digits of a second."""
    global _moment
    second = text[:19]
    if second != _moment[0]:
        whole = calendar.timegm(clock.strptime(second, "%Y-%m-%dT%H:%M:%S"))
        _moment = (second, whole * 1_000_000_000)
    digits = text[20:-1] if text[19:20] == "." else ""
    return _moment[1] + int(digits.ljust(9, "0") or 0)


class Encoder:
    """Turns batches into lines of the file.

    Args:
        attributes: written with each line when there are any.
    """

    def __init__(self, attributes: Mapping[str, str]) -> None:
        self._attributes = b',"attrs":' + _encode(dict(attributes)) if attributes else b""

    def encode(self, batch: Batch) -> bytes:
        """Return all lines of a batch, to be written at once."""
        piece = batch.partial is not None and not batch.partial.last
        tail = b'"' if piece else b'\\n"'
        tail += b'%b,"stream":"%b","time":"%b"}\n' % (
            self._attributes,
            batch.stream.encode(),
            format_time(batch.time).encode(),
        )
        try:
            texts = [line.decode() for line in batch.lines]
        except UnicodeDecodeError:
            texts = [line.decode("utf-8", "replace") for line in batch.lines]
        # The encoder quotes each text: what stands between two of them is constant.
        return b"".join([b'{"log":' + _encode(text)[:-1] + tail for text in texts])


def _records(entries: Iterable[_Line]) -> Iterator[Record]:
    seen, time = "", 0
    for entry in entries:
        if entry.time != seen:  # what was read at once was written with one time
            time = parse_time(entry.time)
            seen = entry.time
        text = entry.log.encode("utf-8", "surrogatepass")
        stream = "stderr" if entry.stream == "stderr" else "stdout"
        if text[-1:] == b"\n":
            # Without the names of the fields: half of the time that a million lines take.
            yield _new(Record, (stream, time, text[:-1], None, entry.attrs))
        else:
            yield _new(Record, (stream, time, text, _PIECE, entry.attrs))


def decode(lines: bytes) -> list[Record]:
    """Read lines of the file; those that a crash cut are left out."""
    try:
        return list(_records(_decode_lines(lines)))
    except (msgspec.MsgspecError, ValueError):
        found: list[Record] = []
        for line in lines.split(b"\n"):
            with suppress(msgspec.MsgspecError, ValueError):
                found += _records([_decode(line)])
        return found
