"""Docker's plugin protocol: JSON by POST, over a unix socket or TCP with or without TLS."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from drivetrain.errors import EngineError, Unavailable

if TYPE_CHECKING:
    from drivetrain_volume_docker_plugins.places import Address

_MEDIA = "application/vnd.docker.plugins.v1.2+json"
#: Seconds for which a plugin that does not take connections is tried again.
PATIENCE = 4.0
_LIMIT = 16 << 20


class Finding(Protocol):
    """Returns the address of a plugin as it is now, or ``None``."""

    def __call__(self) -> Address | None: ...


class PluginError(EngineError):
    """What a plugin said went wrong."""


class _Connection(http.client.HTTPConnection):
    """A connection to a plugin, whatever its address is.

    Args:
        address: of the plugin.
        deadline: ``time.monotonic()`` by which everything is to be done.
    """

    def __init__(self, address: Address, deadline: float) -> None:
        super().__init__("plugin", timeout=_left(deadline))
        self._address = address

    def connect(self) -> None:
        """Connect, with TLS where the address has it."""
        parts = urlsplit(self._address.url)
        if parts.scheme == "unix":
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(self.timeout)
            self.sock.connect(self._address.url.removeprefix("unix://"))
            return
        port = parts.port or (443 if self._address.tls else 80)
        plain = socket.create_connection((parts.hostname or "", port), self.timeout)
        self.sock = _encrypted(self._address, plain, parts.hostname) if self._address.tls else plain


def _encrypted(address: Address, plain: socket.socket, host: str | None) -> socket.socket:
    context = ssl.create_default_context(cafile=address.ca or None)
    if not address.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if address.certificate:
        context.load_cert_chain(address.certificate, address.key or None)
    return context.wrap_socket(plain, server_hostname=host)


def _left(deadline: float) -> float:
    return max(deadline - time.monotonic(), 0.01)


class Client:
    """Calls one plugin. Thread-safe; each call has a connection of its own.

    Args:
        name: of the plugin, for messages.
        finding: where it is.
    """

    def __init__(self, name: str, finding: Finding) -> None:
        self._name = name
        self._finding = finding

    def call(
        self,
        method: str,
        body: Mapping[str, object],
        timeout: float,
        *,
        patience: float = PATIENCE,
    ) -> dict[str, object] | None:
        """Call a method and return its answer, or ``None`` when the plugin does not have it.

        Args:
            method: ``VolumeDriver.Mount``.
            body: the arguments.
            timeout: seconds for all of it.
            patience: seconds for which a plugin that takes no connections is tried again.

        Raises:
            Unavailable: the plugin does not answer in time, or not in its protocol.
            PluginError: it answers that the operation failed.
        """
        deadline = time.monotonic() + timeout
        give_up = min(deadline, time.monotonic() + patience)
        wait = 0.1
        while True:
            try:
                return self._once(method, body, deadline)
            except (ConnectionRefusedError, FileNotFoundError) as error:
                # nothing was sent, so trying again does nothing twice
                if time.monotonic() + wait > give_up:
                    raise self._unavailable(method, error) from error
                time.sleep(wait)
                wait *= 2
            except (OSError, http.client.HTTPException) as error:
                raise self._unavailable(method, error) from error

    def _unavailable(self, method: str, error: Exception) -> Unavailable:
        reason = "no answer in time" if isinstance(error, TimeoutError) else str(error) or "no HTTP"
        return Unavailable(
            f"the Docker plugin {self._name} does not answer ({method}): {reason}; is it running?"
        )

    def _once(
        self, method: str, body: Mapping[str, object], deadline: float
    ) -> dict[str, object] | None:
        address = self._finding()
        if address is None:
            raise FileNotFoundError("it is no longer announced")
        connection = _Connection(address, deadline)
        try:
            headers = {"Accept": _MEDIA, "Content-Type": _MEDIA}
            connection.request("POST", f"/{method}", json.dumps(body), headers)
            answer = connection.getresponse()
            data = _read(connection, answer, deadline)
        finally:
            connection.close()
        if answer.status == 404:
            return None
        return self._understood(method, answer.status, data)

    def _understood(self, method: str, status: int, data: bytes) -> dict[str, object]:
        try:
            found = json.loads(data) if data.strip() else {}
            if not isinstance(found, dict):
                raise ValueError("no object")
        except ValueError:
            if status == 200:
                raise Unavailable(
                    f"the Docker plugin {self._name} answers {method} with no JSON object"
                ) from None
            found = {"Err": data.decode(errors="replace").strip()[:1000]}
        if fault := found.get("Err"):
            raise PluginError(f"the Docker plugin {self._name}: {fault}")
        if status != 200:
            raise PluginError(f"the Docker plugin {self._name}: {method} answered {status}")
        return found


def _read(
    connection: http.client.HTTPConnection, answer: http.client.HTTPResponse, deadline: float
) -> bytes:
    """Read an answer in bounded time and space, however slowly it trickles in."""
    pieces: list[bytes] = []
    size = 0
    while size <= _LIMIT:
        if time.monotonic() > deadline:
            raise TimeoutError
        if connection.sock is not None:
            connection.sock.settimeout(_left(deadline))
        piece = answer.read1(1 << 16)
        if not piece:
            return b"".join(pieces)
        pieces.append(piece)
        size += len(piece)
    raise http.client.HTTPException("an answer of more than 16 MiB")
