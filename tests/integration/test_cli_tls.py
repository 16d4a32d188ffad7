"""The command line's TLS against the daemon's: halves that close one by one, certificates."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from drivetrain_engine.api.tls import TlsLayer
from drivetrain_engine.cli.address import Address, Tls, parse_address
from drivetrain_engine.cli.errors import NoDaemon


def certificates(folder: Path) -> None:
    """Make ca.pem and a certificate with its key for the server and one for the client."""

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    openssl("req", "-x509", *new, "-keyout", "ca-key.pem", "-out", "ca.pem", "-subj", "/CN=ca")
    for name in ("server", "client"):
        openssl("req", *new, "-keyout", f"{name}-key.pem", "-out", f"{name}.csr",
                "-subj", f"/CN={name}")  # fmt: skip
        (folder / "ext").write_text("subjectAltName=IP:127.0.0.1\n")
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca-key.pem",
                "-CAcreateserial", "-out", f"{name}.pem", "-extfile", "ext")  # fmt: skip


class _EchoAtTheEnd(asyncio.Protocol):
    """Answers when the client's half has ended, with all it has got."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.got = b""

    def data_received(self, data: bytes) -> None:
        self.got += data

    def eof_received(self) -> bool:
        assert isinstance(self.transport, asyncio.WriteTransport)
        self.transport.write(b"got:" + self.got)
        self.transport.write_eof()
        return True


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("tls")
    certificates(made)
    return made


@pytest.fixture
def server(folder: Path) -> Iterator[int]:
    """The port of a server with the daemon's TLS layer, which wants a client's certificate."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(folder / "ca.pem"))
    context.load_cert_chain(folder / "server.pem", folder / "server-key.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    listener = socket.create_server(("127.0.0.1", 0))
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        await loop.create_server(lambda: TlsLayer(context, _EchoAtTheEnd), sock=listener)

    loop.run_until_complete(serve())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield listener.getsockname()[1]
    loop.call_soon_threadsafe(loop.stop)
    thread.join(30)
    loop.close()
    listener.close()


def address(port: int, folder: Path, **changes: object) -> Address:
    tls = Tls(True, str(folder / "ca.pem"), str(folder / "client.pem"),
              str(folder / "client-key.pem"))  # fmt: skip
    return parse_address(f"tcp://127.0.0.1:{port}", tls._replace(**changes))


def test_our_half_ends_and_the_answer_still_comes(server: int, folder: Path) -> None:
    data = os.urandom(1 << 20)
    stream = address(server, folder).connect(30)
    stream.sendall(data)
    stream.shutdown(socket.SHUT_WR)
    answer = b""
    while piece := stream.recv(1 << 16):
        answer += piece
    stream.close()
    assert answer == b"got:" + data


def test_a_server_that_nobody_vouches_for_is_refused(server: int, folder: Path) -> None:
    with pytest.raises(NoDaemon, match="certificate verify failed"):
        address(server, folder, ca=str(folder / "client.pem")).connect(30)
    address(server, folder, ca="", verify=False).connect(30).close()
