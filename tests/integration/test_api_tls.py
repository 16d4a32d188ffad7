"""TCP with TLS: who may come in, and connections whose halves close one by one."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.certificates import make_certificates
from tests.integration.test_api_front_connections import DEADLINE, Door, Reply

from drivetrain.errors import InvalidArgument
from drivetrain_engine.api.tls import TlsLayer
from drivetrain_engine.daemon.settings import Settings
from drivetrain_engine.daemon.sockets import tls_context


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tls")
    make_certificates(directory)
    return directory


def _settings(certificates: Path, **changes: object) -> Settings:
    return Settings(
        {
            "tlsverify": True,
            "tlscacert": str(certificates / "ca.pem"),
            "tlscert": str(certificates / "server.pem"),
            "tlskey": str(certificates / "server.key"),
            **changes,
        }
    )


class SecureDoor(Door):
    """A front door that is reached over TLS, at a port of its own choice."""

    def __init__(self, path: Path, context: ssl.SSLContext) -> None:
        self.context = context
        self.port = 0
        super().__init__(path)
        listening = threading.Event()

        async def listen() -> None:
            self._server = await asyncio.get_running_loop().create_server(
                lambda: TlsLayer(context, self.front.protocol), "127.0.0.1", 0
            )
            self.port = self._server.sockets[0].getsockname()[1]
            listening.set()

        asyncio.run_coroutine_threadsafe(listen(), self._loop)
        assert listening.wait(DEADLINE)

    def connect_tls(self, certificates: Path, name: str) -> ssl.SSLSocket:
        context = ssl.create_default_context(cafile=certificates / "ca.pem")
        if name:
            context.load_cert_chain(certificates / f"{name}.pem", certificates / f"{name}.key")
        plain = socket.create_connection(("127.0.0.1", self.port), DEADLINE)
        return context.wrap_socket(plain, server_hostname="127.0.0.1", suppress_ragged_eofs=False)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._server.close)
        super().close()


@pytest.fixture
def door(tmp_path: Path, certificates: Path) -> Iterator[SecureDoor]:
    opened = SecureDoor(tmp_path / "s", tls_context(_settings(certificates)))
    yield opened
    opened.close()


def test_a_client_with_a_certificate_is_served(door: SecureDoor, certificates: Path) -> None:
    with door.connect_tls(certificates, "client") as client:
        reply = Reply(client)
        for _ in range(20):
            client.sendall(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n")
            assert reply.read()[2] == b"OK"


@pytest.mark.parametrize("name", ["", "intruder"])
def test_others_are_not(door: SecureDoor, certificates: Path, name: str) -> None:
    with pytest.raises((ssl.SSLError, ConnectionError)):
        with door.connect_tls(certificates, name) as client:
            client.sendall(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n")
            assert client.recv(100) == b"", "TLS 1.3 tells a refused client at its first read"
            raise ConnectionError("closed")


def test_plain_http_at_the_tls_port_is_refused(door: SecureDoor) -> None:
    with socket.create_connection(("127.0.0.1", door.port), DEADLINE) as client:
        client.sendall(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n")
        assert not client.recv(100).startswith(b"HTTP")


def test_the_input_ends_and_the_output_goes_on(door: SecureDoor, certificates: Path) -> None:
    with door.connect_tls(certificates, "client") as client:
        client.sendall(b"POST /attach HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\nin")
        reply = Reply(client)
        assert reply.head()[0] == 101
        peer = door.peers[0]
        assert peer.recv(10) == b"in"
        closer = threading.Thread(target=_close_half, args=(client,), daemon=True)
        closer.start()
        assert peer.recv(10) == b""
        peer.sendall(b"the output")
        peer.close()
        closer.join(DEADLINE)
        assert not closer.is_alive()


def _close_half(client: ssl.SSLSocket) -> None:
    """Send close_notify; OpenSSL's SSL_shutdown then waits for the server's, dropping data."""
    try:
        client.unwrap()
    except (ssl.SSLError, OSError):
        pass


def test_megabytes_come_through(door: SecureDoor, certificates: Path) -> None:
    body = bytes(range(256)) * 16384
    with door.connect_tls(certificates, "client") as client:
        head = b"POST /echo HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body)
        client.sendall(head + body)  # one thread: an SSL object is not made for two
        assert Reply(client).read()[2] == body


@pytest.mark.parametrize("key", ["tlscert", "tlskey", "tlscacert"])
def test_a_missing_file_is_named(certificates: Path, key: str) -> None:
    with pytest.raises(InvalidArgument, match="nowhere"):
        tls_context(_settings(certificates, **{key: "/nowhere.pem"}))
