"""TLS for the client, with halves that close one by one.

``SSLSocket`` cannot end its own half and go on reading, which ``engine run -i`` needs at the end of
stdin: its ``shutdown`` drops the TLS state, and its ``unwrap`` waits for the other side's end.
"""

from __future__ import annotations

import socket
import ssl
import threading

CHUNK = 1 << 16


class TlsSocket:
    """The part of a socket's methods that the command line uses, over TLS.

    One thread may read while another writes.

    Args:
        lower: a connected socket.
        context: whom we trust, and who we are.
        host: the name that the certificate has to have.

    Raises:
        OSError: the handshake failed.
    """

    def __init__(self, lower: socket.socket, context: ssl.SSLContext, host: str) -> None:
        self._lower = lower
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        self._state = threading.RLock()  # of the TLS state
        self._sending = threading.Lock()  # what is encrypted first is sent first
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._flush()
                if not self._receive():
                    raise ConnectionResetError("the other side ended the TLS handshake") from None
            else:
                self._flush()
                return

    def _flush(self) -> None:
        with self._sending:
            with self._state:
                data = self._outgoing.read()
            if data:
                self._lower.sendall(data)

    def _receive(self) -> bool:
        data = self._lower.recv(CHUNK)
        with self._state:
            if data:
                self._incoming.write(data)
            else:
                self._incoming.write_eof()
        return bool(data)

    def recv(self, size: int) -> bytes:
        """Return some bytes; empty at the end of the other side's half."""
        while True:
            try:
                with self._state:
                    return self._tls.read(size)
            except ssl.SSLWantReadError:
                self._flush()
                self._receive()
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return b""

    def sendall(self, data: bytes) -> None:
        """Send all of it."""
        view = memoryview(data)
        while view:
            with self._state:
                written = self._tls.write(view[:CHUNK])
            view = view[written:]
            self._flush()

    def shutdown(self, how: int) -> None:
        """End our half (``SHUT_WR``), or break the connection off (``SHUT_RDWR``)."""
        if how != socket.SHUT_WR:
            self._lower.shutdown(how)
            return
        try:
            with self._state:
                self._tls.unwrap()
        except ssl.SSLError:
            pass  # it wants the other side's end, for which recv waits; ours is written by now
        self._flush()

    def settimeout(self, timeout: float | None) -> None:
        """Set the time that each operation below may take, in seconds."""
        self._lower.settimeout(timeout)

    def close(self) -> None:
        """Close the socket."""
        self._lower.close()
