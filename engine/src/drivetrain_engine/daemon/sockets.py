"""The sockets that the daemon listens on."""

from __future__ import annotations

import grp
import logging
import os
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path

from drivetrain.errors import AlreadyExists, InvalidArgument, NotSupported, Unavailable
from drivetrain_engine.daemon.settings import Settings

log = logging.getLogger("engine.daemon")

BACKLOG = 512
_FIRST_ACTIVATED = 3
_PLAIN_PORT, _TLS_PORT = 2375, 2376


@dataclass(frozen=True, slots=True)
class Listener:
    """A listening socket.

    Attributes:
        path: of a unix socket that has to be removed at the end; empty for others.
        tls: what comes in speaks TLS.
    """

    sock: socket.socket
    shown: str
    path: str = ""
    tls: bool = False

    def close(self) -> None:
        """Stop listening, and remove the socket's file."""
        self.sock.close()
        if self.path:
            Path(self.path).unlink(missing_ok=True)


def open_listeners(settings: Settings) -> list[Listener]:
    """Open everything that ``hosts`` names; all or nothing.

    Raises:
        AlreadyExists: another daemon listens there.
        Unavailable: an address cannot be had.
    """
    found: list[Listener] = []
    try:
        for host in settings.hosts:
            found += _open(settings, host)
    except BaseException:
        for listener in found:
            listener.close()
        raise
    return found


def _open(settings: Settings, host: str) -> list[Listener]:
    scheme, _, rest = host.partition("://")
    if scheme == "fd":
        return _activated(settings)
    if scheme == "unix":
        path = rest or f"{settings.exec_root}/engine.sock"
        return [Listener(_unix(path, settings.group), f"unix://{path}", path)]
    return [Listener(_tcp(rest, tls=settings.uses_tls), host, tls=settings.uses_tls)]


def _unix(path: str, group: str) -> socket.socket:
    if len(os.fsencode(path)) > 107:
        raise InvalidArgument(f"the path of a unix socket may have 107 bytes at most: {path}")
    if os.path.exists(path):
        if _answers(path):
            raise AlreadyExists(f"another daemon listens on unix://{path}")
        Path(path).unlink()
    Path(path).parent.mkdir(mode=0o711, parents=True, exist_ok=True)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o117)
    try:
        sock.bind(path)
    except OSError as error:
        sock.close()
        raise Unavailable(f"cannot listen on unix://{path}: {error.strerror}") from None
    finally:
        os.umask(mask)
    os.chown(path, 0, _group_id(group))
    sock.listen(BACKLOG)
    return sock


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(path)
        except OSError:
            return False
        return True


def _group_id(name: str) -> int:
    if not name:
        return 0
    if name.isdigit():
        return int(name)
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        if name != "engine":
            raise InvalidArgument(f"group {name} does not exist: groupadd {name}") from None
        log.debug("there is no group engine: only root may use the socket")
        return 0


def _tcp(address: str, *, tls: bool) -> socket.socket:
    host, separator, port_text = address.rpartition(":")
    if not separator:
        host, port_text = address, ""
    host = host.strip("[]") or "127.0.0.1"
    try:
        port = int(port_text) if port_text else (_TLS_PORT if tls else _PLAIN_PORT)
        family, kind, protocol, _, target = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (ValueError, OSError) as error:
        raise InvalidArgument(f"invalid host tcp://{address}: {error}") from None
    sock = socket.socket(family, kind, protocol)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind(target)
    except OSError as error:
        sock.close()
        raise Unavailable(f"cannot listen on tcp://{address}: {error.strerror}") from None
    sock.listen(BACKLOG)
    return sock


def _activated(settings: Settings) -> list[Listener]:
    """Take over the sockets that systemd hands to the process."""
    count = int(os.environ.get("LISTEN_FDS", "0") or 0)
    if not count or os.environ.get("LISTEN_PID") != str(os.getpid()):
        raise NotSupported(
            "no sockets found for fd://: it works only where systemd starts the daemon for a socket"
        )
    found = []
    for fd in range(_FIRST_ACTIVATED, _FIRST_ACTIVATED + count):
        os.set_inheritable(fd, False)
        sock = socket.socket(fileno=fd)
        tcp = sock.family != socket.AF_UNIX
        if tcp and not settings.uses_tls and "tls" not in settings.given:
            raise InvalidArgument(
                "fd:// has a TCP socket: use --tlsverify, or say --tls=false if you mean it"
            )
        found.append(Listener(sock, f"fd://{fd}", tls=tcp and settings.uses_tls))
    for name in ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"):
        os.environ.pop(name, None)
    return found


def tls_context(settings: Settings) -> ssl.SSLContext:
    """Return what TCP clients are met with.

    Raises:
        InvalidArgument: a file is missing or no certificate; names it.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(settings.tlscert, settings.tlskey)
    except (OSError, ssl.SSLError) as error:
        raise InvalidArgument(
            f"could not load the certificate {settings.tlscert} with the key "
            f"{settings.tlskey}: {error}"
        ) from None
    if settings.tlsverify:
        try:
            context.load_verify_locations(settings.tlscacert)
        except (OSError, ssl.SSLError) as error:
            raise InvalidArgument(
                f"could not read the CA certificates {settings.tlscacert}: {error}"
            ) from None
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def notify(state: str) -> None:
    """Tell systemd, if it asked to be told."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        try:
            sock.sendto(state.encode(), address)
        except OSError as error:
            log.warning("cannot notify %s: %s", address, error)
