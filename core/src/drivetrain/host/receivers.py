"""Sockets of log drivers: one connection to a receiver, made anew when it breaks.

Kept free of imports that cost memory, since it runs in every container's shim; ``ssl`` is only
imported for addresses that ask for it.
"""

from __future__ import annotations

import select
import socket
from typing import NamedTuple

from drivetrain.errors import InvalidArgument, Unavailable

#: Seconds that connecting and a write to a stalled receiver may take before it counts as down.
TIMEOUT = 5.0


class ReceiverAddress(NamedTuple):
    """Where a receiver listens: ``tcp://host:port`` or ``unix:///path``."""

    scheme: str
    host: str
    port: int
    path: str

    def __str__(self) -> str:
        if self.path:
            return f"{self.scheme}://{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


class TlsFiles(NamedTuple):
    """What a TLS connection needs; empty strings mean the system's defaults or none."""

    authority: str = ""
    certificate: str = ""
    key: str = ""
    skip_verify: bool = False


def parse_address(
    option: str, text: str, schemes: tuple[str, ...], port: int, default_scheme: str = ""
) -> ReceiverAddress:
    """Read an address as users write it. No I/O.

    Args:
        option: the option's name, for messages.
        text: ``SCHEME://HOST[:PORT]``, ``SCHEME:///PATH`` for unix sockets, or ``HOST[:PORT]``
            where there is a default scheme.
        schemes: the accepted ones.
        port: the default port.
        default_scheme: taken when the text has none; empty: a scheme is required.

    Raises:
        InvalidArgument: names the option and the value.
    """
    wanted = " or ".join(f"{scheme}://" for scheme in schemes)
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = default_scheme, text
    if scheme not in schemes:
        raise InvalidArgument(
            f"option {option}={text!r}: an address that starts with {wanted} is needed"
        )
    if scheme.startswith("unix"):
        if not rest.startswith("/"):
            raise InvalidArgument(
                f"option {option}={text!r}: the absolute path of a socket is needed"
            )
        return ReceiverAddress(scheme, "", 0, rest)
    host, number = _host_and_port(rest)
    if "/" in host or not host or (number and not (number.isdigit() and 0 < int(number) < 65536)):
        raise InvalidArgument(
            f"option {option}={text!r}: a host and a port from 1 to 65535 are needed"
        )
    return ReceiverAddress(scheme, host, int(number or port), "")


def _host_and_port(text: str) -> tuple[str, str]:
    text = text.rstrip("/")
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        return host, rest.removeprefix(":")
    if text.count(":") > 1:
        return text, ""
    host, _, number = text.partition(":")
    return host, number


class StreamReceiver:
    """A connection over TCP, TLS or a unix stream socket.

    Args:
        address: whose scheme ends in ``tls`` for TLS, starts with ``unix`` for a unix socket.
        tls: for TLS addresses.
        timeout: seconds for connecting and for each write.
    """

    def __init__(
        self, address: ReceiverAddress, tls: TlsFiles | None = None, timeout: float = TIMEOUT
    ) -> None:
        self._address = address
        self._tls = tls or TlsFiles()
        self._timeout = timeout
        self._socket: socket.socket | None = None
        #: What a stalled receiver was being sent, and how much of it went out.
        self._stalled: tuple[bytes, int] = (b"", 0)

    @property
    def connection(self) -> socket.socket | None:
        """The connection that was used last, whether or not it still lives."""
        return self._socket

    def connect(self) -> socket.socket:
        """Return the connection, making it when there is none.

        Raises:
            Unavailable: nobody answers.
        """
        if self._socket is not None and self._closed_by_peer(self._socket):
            self.close()
        if self._socket is None:
            try:
                self._socket = self._open()
            except OSError as error:
                raise Unavailable(f"cannot connect to {self._address}: {error}") from error
        return self._socket

    def send(self, data: bytes) -> None:
        """Send all of ``data``; after an error the connection is dropped.

        A receiver that takes nothing for a while is left connected: when the same data is sent
        again, it goes on where it stopped, so that nothing arrives twice.

        Raises:
            Unavailable: the receiver is down or stalled.
        """
        connection = self.connect()
        stalled, start = self._stalled
        if start and stalled != data:
            # Half a message is on its way, which only a new connection can end.
            self.close()
            connection, start = self.connect(), 0
        view = memoryview(data)
        try:
            while start < len(data):
                start += connection.send(view[start:])
        except TimeoutError as error:
            self._stalled = (data, start)
            raise Unavailable(f"{self._address} takes no records: {error}") from error
        except OSError as error:
            self.close()
            raise Unavailable(f"cannot write to {self._address}: {error}") from error
        self._stalled = (b"", 0)

    def receive(self, size: int) -> bytes:
        """Read up to ``size`` bytes of an answer, from the connection that was written to.

        Raises:
            Unavailable: it does not come, or the connection ended.
        """
        connection = self._socket
        if connection is None:
            raise Unavailable(f"no connection to {self._address}")
        try:
            data = connection.recv(size)
        except TimeoutError as error:
            raise Unavailable(f"no answer from {self._address}: {error}") from error
        except OSError as error:
            self.close()
            raise Unavailable(f"no answer from {self._address}: {error}") from error
        if not data:
            self.close()
            raise Unavailable(f"{self._address} closed the connection")
        return data

    def close(self) -> None:
        """Close the connection, if there is one."""
        self._stalled = (b"", 0)
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _open(self) -> socket.socket:
        if self._address.path:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                connection.settimeout(self._timeout)
                connection.connect(self._address.path)
            except OSError:
                connection.close()
                raise
            return connection
        connection = socket.create_connection(
            (self._address.host, self._address.port), timeout=self._timeout
        )
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if not self._address.scheme.endswith("tls"):
            return connection
        try:
            return self._wrap(connection)
        except OSError:
            connection.close()
            raise

    def _wrap(self, connection: socket.socket) -> socket.socket:
        import ssl

        context = ssl.create_default_context(cafile=self._tls.authority or None)
        if self._tls.skip_verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self._tls.certificate:
            context.load_cert_chain(self._tls.certificate, self._tls.key or None)
        return context.wrap_socket(connection, server_hostname=self._address.host)

    @staticmethod
    def _closed_by_peer(connection: socket.socket) -> bool:
        """Whether the peer has ended: a write then would be lost without an error."""
        # Not by a look into the socket: with a timeout set, Python would wait for data.
        poll = select.poll()
        poll.register(connection, select.POLLRDHUP)
        return bool(poll.poll(0))


class DatagramReceiver:
    """A socket for datagrams over UDP or a unix datagram socket."""

    def __init__(self, address: ReceiverAddress) -> None:
        self._address = address
        self._socket: socket.socket | None = None

    def connect(self) -> None:
        """Make sure that the name resolves, or that the unix socket is there.

        Raises:
            Unavailable: it does not.
        """
        try:
            self._socket = self._socket or self._open()
        except OSError as error:
            raise Unavailable(f"cannot send to {self._address}: {error}") from error

    def send(self, data: bytes) -> None:
        """Send one datagram.

        Raises:
            Unavailable: the name does not resolve, or the unix socket has no reader.
        """
        try:
            if self._socket is None:
                self._socket = self._open()
            try:
                self._socket.send(data)
            except ConnectionRefusedError:
                # UDP: an ICMP answer to an earlier datagram. Sent again, this one goes out.
                if self._address.path:
                    raise
                self._socket.send(data)
        except OSError as error:
            if error.errno == 90:  # EMSGSIZE: the datagram will never fit, whoever listens
                return
            self.close()
            if self._address.path or not isinstance(error, ConnectionRefusedError):
                raise Unavailable(f"cannot send to {self._address}: {error}") from error

    def close(self) -> None:
        """Close the socket, if there is one."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _open(self) -> socket.socket:
        if self._address.path:
            made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            made.settimeout(TIMEOUT)
            made.connect(self._address.path)
            return made
        family, kind, protocol, _, target = socket.getaddrinfo(
            self._address.host, self._address.port, type=socket.SOCK_DGRAM
        )[0]
        made = socket.socket(family, kind, protocol)
        made.connect(target)
        return made
