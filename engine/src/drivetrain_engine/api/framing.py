"""Where an HTTP message ends: heads and bodies, byte for byte.

httptools parses one head at a time; the body is counted here and not by httptools, since what
follows a head may be another protocol (attach, exec), of which no byte may be lost or eaten.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

import httptools

from drivetrain.errors import EngineError, InvalidArgument

MAX_HEAD = 64 << 10
_CHUNK_SIZE = re.compile(rb"^([0-9a-fA-F]{1,15})[ \t]*(?:;.*)?$")


class HeadTooLarge(EngineError):
    """The request's head does not end within :data:`MAX_HEAD` bytes."""

    http_status = 431


class Head:
    """The head of one request.

    Attributes:
        method, path, raw_query: the path is decoded.
        headers: by lower-case name; repeated ones are joined by a comma.
        keep_alive: the client wants the connection to stay.
        length: of the body; -1: chunked.
    """

    __slots__ = (
        "_parser",
        "_url",
        "headers",
        "keep_alive",
        "length",
        "method",
        "minor",
        "path",
        "raw_query",
    )

    def __init__(self, data: bytes) -> None:
        """Parse a head, ended by an empty line.

        Raises:
            InvalidArgument: it is malformed.
        """
        self.headers: dict[str, str] = {}
        self._url = b""
        self._parser = httptools.HttpRequestParser(self)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass
        except httptools.HttpParserError as error:
            raise InvalidArgument(f"malformed HTTP request: {error}") from None
        del self._parser
        try:
            url = httptools.parse_url(self._url)
            self.path = unquote((url.path or b"/").decode("latin-1"))
            self.raw_query = (url.query or b"").decode("latin-1")
        except httptools.HttpParserInvalidURLError:
            raise InvalidArgument("malformed HTTP request: invalid URL") from None
        self.length = self._body_length()

    def on_headers_complete(self) -> None:
        # Asked here, since some versions of the parser forget them at the end of the message.
        self.method: str = self._parser.get_method().decode("ascii")
        self.keep_alive = bool(self._parser.should_keep_alive())
        self.minor = 0 if self._parser.get_http_version() == "1.0" else 1

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        key = name.decode("latin-1").lower()
        text = value.decode("latin-1")
        known = self.headers.get(key)
        self.headers[key] = text if known is None else f"{known}, {text}"

    def _body_length(self) -> int:
        encoding = self.headers.get("transfer-encoding", "").lower()
        if encoding:
            if encoding.split(",")[-1].strip() != "chunked" or "content-length" in self.headers:
                raise InvalidArgument(f"malformed HTTP request: transfer encoding {encoding}")
            return -1
        text = self.headers.get("content-length", "0")
        if not text.isascii() or not text.isdigit():
            raise InvalidArgument(f"malformed HTTP request: content length {text}")
        return int(text)


def take_head(buffer: bytearray) -> Head | None:
    """Take a head off the front of ``buffer``; ``None`` while it is incomplete.

    Raises:
        HeadTooLarge, InvalidArgument: the connection cannot go on.
    """
    while buffer[:2] == b"\r\n":
        del buffer[:2]
    end = buffer.find(b"\r\n\r\n")
    if end < 0:
        if len(buffer) > MAX_HEAD:
            raise HeadTooLarge("the head of the request is too large")
        return None
    if end > MAX_HEAD:
        raise HeadTooLarge("the head of the request is too large")
    data = bytes(buffer[: end + 4])
    del buffer[: end + 4]
    return Head(data)


class BodyDecoder:
    """Takes the body of one message off a buffer.

    Args:
        length: bytes that follow, or -1 for chunks.
    """

    def __init__(self, length: int) -> None:
        self._left = max(length, 0)
        self._chunked = length < 0
        self._stage = "size" if self._chunked else "data"
        self.done = length == 0

    def take(self, buffer: bytearray) -> bytes:
        """Take what is there of the body off ``buffer``; sets :attr:`done` at its end.

        Raises:
            InvalidArgument: malformed chunks.
        """
        pieces: list[bytes] = []
        while not self.done:
            if self._stage == "data":
                piece = bytes(buffer[: self._left])
                del buffer[: len(piece)]
                self._left -= len(piece)
                if piece:
                    pieces.append(piece)
                if self._left:
                    break
                if not self._chunked:
                    self.done = True
                    break
                self._stage = "newline"
            line = self._line(buffer)
            if line is None:
                break
            self._take_line(line)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    @staticmethod
    def _line(buffer: bytearray) -> bytes | None:
        end = buffer.find(b"\r\n")
        if end < 0:
            if len(buffer) > MAX_HEAD:
                raise InvalidArgument("malformed HTTP request: chunk line too long")
            return None
        line = bytes(buffer[:end])
        del buffer[: end + 2]
        return line

    def _take_line(self, line: bytes) -> None:
        if self._stage == "size":
            match = _CHUNK_SIZE.match(line)
            if match is None:
                raise InvalidArgument("malformed HTTP request: invalid chunk size")
            self._left = int(match[1], 16)
            self._stage = "data" if self._left else "trailer"
        elif self._stage == "newline":
            if line:
                raise InvalidArgument("malformed HTTP request: chunk longer than its size")
            self._stage = "size"
        elif not line:
            self.done = True
