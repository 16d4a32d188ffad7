"""Where the daemon is: ``-H``, ``ENGINE_HOST``, the configuration file, or the default socket."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from typing import NamedTuple, Protocol

from drivetrain_engine.cli.errors import NoDaemon, UsageError

DEFAULT_EXEC_ROOT = "/run/engine"
DEFAULT_DATA_ROOT = "/var/lib/engine"
DEFAULT_CONFIG_FILE = "/etc/engine/daemon.json"
SOCKET_NAME = "engine.sock"
PORT = 2375
TLS_PORT = 2376


class Stream(Protocol):
    """What a connection can do: a socket's methods, of a socket or of TLS over one."""

    def recv(self, size: int, /) -> bytes:
        """Return some bytes; empty at the end."""

    def sendall(self, data: bytes, /) -> None:
        """Send all of it."""

    def shutdown(self, how: int, /) -> None:
        """End one half or both."""

    def close(self) -> None:
        """Close the connection."""


class Tls(NamedTuple):
    """Files for TLS; ``verify`` checks the daemon's certificate against ``ca``."""

    verify: bool
    ca: str = ""
    certificate: str = ""
    key: str = ""


class Address(NamedTuple):
    """A daemon's address: the path of a unix socket, or host and port."""

    scheme: str
    path: str = ""
    host: str = ""
    port: int = 0
    tls: Tls | None = None

    def __str__(self) -> str:
        if self.scheme == "unix":
            return f"unix://{self.path}"
        return f"tcp://{self.host}:{self.port}"

    def connect(self, timeout: float | None = None) -> Stream:
        """Open a connection.

        Raises:
            NoDaemon: nobody answers there.
        """
        try:
            if self.scheme == "unix":
                connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                connection.settimeout(timeout)
                connection.connect(self.path)
                return connection
            connection = socket.create_connection((self.host, self.port), timeout)
            connection.settimeout(timeout)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return _wrapped(connection, self.host, self.tls) if self.tls else connection
        except OSError as error:
            raise NoDaemon(_why(self, error)) from error


def _why(address: Address, error: OSError) -> str:
    if isinstance(error, PermissionError):
        return (
            f"permission denied at {address}: be root, or in the group that owns the socket"
            " (engine daemon option --group)"
        )
    reason = error.strerror or str(error)
    return f"no daemon answers at {address} ({reason}): start one by `engine`, or give -H"


def _wrapped(connection: socket.socket, host: str, tls: Tls) -> Stream:
    import ssl

    context = ssl.create_default_context(cafile=tls.ca or None)
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if tls.certificate:
        context.load_cert_chain(tls.certificate, tls.key or None)
    from drivetrain_engine.cli.tls import TlsSocket

    return TlsSocket(connection, context, host)


def parse_address(text: str, tls: Tls | None = None) -> Address:
    """Read ``unix:///path``, ``tcp://host:port``, ``host:port`` or ``/path``.

    Raises:
        UsageError: it is none of them.
    """
    if text.startswith("/"):
        return Address("unix", path=text)
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = "tcp", text
    if scheme == "unix":
        if not rest.startswith("/"):
            raise UsageError(f"invalid address {text!r}: unix:// needs an absolute path")
        return Address("unix", path=rest)
    if scheme not in ("tcp", "http", "https"):
        raise UsageError(f"invalid address {text!r}: unix:///path or tcp://host:port is needed")
    if scheme == "https" and tls is None:
        tls = Tls(verify=True)
    rest = rest.rstrip("/")
    host, port = _host_and_port(text, rest)
    return Address("tcp", host=host, port=port or (TLS_PORT if tls else PORT), tls=tls)


def _host_and_port(text: str, rest: str) -> tuple[str, int]:
    if rest.startswith("["):
        host, _, port = rest[1:].partition("]")
        port = port.removeprefix(":")
    else:
        host, _, port = rest.partition(":")
    if port and not (port.isdigit() and 0 < int(port) < 65536):
        raise UsageError(f"invalid address {text!r}: {port!r} is not a port")
    return host or "127.0.0.1", int(port or 0)


def choose_hosts(given: Mapping[str, object], config: Mapping[str, object]) -> list[str]:
    """Return the addresses that count, in order: flags, ``ENGINE_HOST``, file, default."""
    hosts = given.get("hosts") or ()
    if hosts:
        return [str(host) for host in hosts] if isinstance(hosts, (list, tuple)) else [str(hosts)]
    environment = os.environ.get("ENGINE_HOST", "")
    if environment:
        return [environment]
    configured = config.get("hosts")
    if isinstance(configured, list) and configured:
        return [str(host) for host in configured]
    exec_root = str(given.get("exec-root") or config.get("exec-root") or DEFAULT_EXEC_ROOT)
    return [f"unix://{exec_root.rstrip('/')}/{SOCKET_NAME}"]
