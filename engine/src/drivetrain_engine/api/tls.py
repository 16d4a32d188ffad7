"""TLS on a connection whose halves close one by one.

asyncio's own TLS closes a connection when the client ends its half, which the docker CLI does on
every ``run``: the output would be lost. This layer keeps the sending half open. To the protocol
above it looks like a transport.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Any

_READ = 256 << 10
HANDSHAKE_SECONDS = 30.0


class TlsTransport(asyncio.Transport):
    """What the protocol above sees; everything is done by the :class:`TlsLayer` below."""

    def __init__(self, layer: TlsLayer) -> None:
        super().__init__()
        self._layer = layer

    def write(self, data: Any) -> None:
        self._layer.write(bytes(data))

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self._layer.end_writing()

    def pause_reading(self) -> None:
        self._layer.pause(True)

    def resume_reading(self) -> None:
        self._layer.pause(False)

    def is_closing(self) -> bool:
        return self._layer.lower.is_closing()

    def close(self) -> None:
        self._layer.end_writing()
        self._layer.lower.close()

    def abort(self) -> None:
        self._layer.lower.abort()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._layer.lower.get_extra_info(name, default)


class TlsLayer(asyncio.Protocol):
    """The protocol below: speaks TLS on a plain transport.

    Args:
        context: the server's certificate, and whom it trusts.
        make_upper: the protocol above, made when the handshake is done.
    """

    def __init__(self, context: ssl.SSLContext, make_upper: Callable[[], asyncio.Protocol]) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._make_upper = make_upper
        self._upper: asyncio.Protocol | None = None
        self._paused = False
        self._ended = False
        self._write_ended = False
        self._timer: asyncio.TimerHandle | None = None
        self.lower: asyncio.Transport = None  # type: ignore[assignment]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.lower = transport
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(HANDSHAKE_SECONDS, self._give_up)

    def _give_up(self) -> None:
        if self._upper is None:
            self.lower.abort()

    def data_received(self, data: bytes) -> None:
        self._incoming.write(data)
        self._proceed()

    def eof_received(self) -> bool:
        if self._upper is None:
            return False
        self._incoming.write_eof()
        self._proceed()
        return True

    def connection_lost(self, error: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._upper is not None:
            self._upper.connection_lost(error)

    def pause_writing(self) -> None:
        if self._upper is not None:
            self._upper.pause_writing()

    def resume_writing(self) -> None:
        if self._upper is not None:
            self._upper.resume_writing()

    def write(self, data: bytes) -> None:
        """Encrypt and send."""
        if data and not self._write_ended:
            self._tls.write(data)
            self._flush()

    def end_writing(self) -> None:
        """Send the note that nothing more comes; reading goes on."""
        if self._write_ended or self.lower.is_closing():
            return
        self._write_ended = True
        try:
            self._tls.unwrap()
        except ssl.SSLError:  # the other side has not said the same yet
            pass
        self._flush()

    def pause(self, paused: bool) -> None:
        """Stop or go on reading, what is decrypted already included."""
        self._paused = paused
        if self.lower.is_closing():
            return
        if paused:
            self.lower.pause_reading()
        else:
            self.lower.resume_reading()
            asyncio.get_running_loop().call_soon(self._proceed)

    def _flush(self) -> None:
        data = self._outgoing.read()
        if data and not self.lower.is_closing():
            self.lower.write(data)

    def _proceed(self) -> None:
        try:
            if self._upper is None and not self._handshake():
                return
            self._read()
        except ssl.SSLError:
            self._flush()  # the alert that says what was wrong
            self.lower.close()

    def _handshake(self) -> bool:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return False
        self._flush()
        self._upper = self._make_upper()
        self._upper.connection_made(TlsTransport(self))
        return True

    def _read(self) -> None:
        assert self._upper is not None
        while not self._paused and not self._ended and not self.lower.is_closing():
            try:
                data = self._tls.read(_READ)
            except ssl.SSLWantReadError:
                break
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                data = b""
            if data:
                self._upper.data_received(data)
                continue
            self._ended = True
            if not self._upper.eof_received():
                self.lower.close()
        self._flush()
