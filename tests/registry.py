"""A real registry (Debian's docker-registry) in the network of a host, and a server of tokens."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

from drivetrain.testing.hosts import Host, eventually

USER, PASSWORD = "someone", "secret"
SERVICE, ISSUER = "registry.test", "tokens.test"


class Registry:
    """A registry on loopback.

    Args:
        host: in whose network.
        folder: for its files.
        port: of TCP.
        more: further settings, as in its configuration file.
    """

    def __init__(self, host: Host, folder: Path, port: int = 5000, **more: Any) -> None:
        self._host = host
        self.name = f"127.0.0.1:{port}"
        self.blobs = folder / "data/docker/registry/v2/blobs/sha256"
        self._folder = folder
        http = {"addr": f":{port}", **more.pop("http", {})}
        settings = {
            "version": 0.1,
            "log": {"level": "error"},
            "storage": {"filesystem": {"rootdirectory": str(folder / "data")}},
            "http": http,
            **more,
        }
        # JSON is YAML.
        (folder / "registry.yml").write_text(json.dumps(settings))
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Registry:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        command = ["docker-registry", "serve", str(self._folder / "registry.yml")]
        with (self._folder / "registry.log").open("ab") as log:
            self._process = subprocess.Popen([*self._host.inside, *command], stdout=log, stderr=log)
        eventually(lambda: listens(self._host, self.name), "the registry listens")

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


class Tokens:
    """A server that gives tokens to a user; see :mod:`tests.tokens`.

    Args:
        host: in whose network.
        folder: where key, certificate and ``requests`` are.
        port: of TCP.
    """

    def __init__(self, host: Host, folder: Path, port: int = 5001) -> None:
        self._host = host
        self._name = f"127.0.0.1:{port}"
        self.requests = folder / "requests"
        self._command = [sys.executable, "-m", "tests.tokens", str(folder), str(port)]
        certify(folder, ISSUER)
        self.auth = {
            "token": {
                "realm": f"http://{self._name}/token", "service": SERVICE, "issuer": ISSUER,
                "rootcertbundle": str(folder / "cert.pem"),
            }
        }  # fmt: skip

    def __enter__(self) -> Tokens:
        self._process = subprocess.Popen([*self._host.inside, *self._command])
        eventually(lambda: listens(self._host, self._name), "the server of tokens listens")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait()


def certify(folder: Path, name: str, address: str = "127.0.0.1") -> None:
    """Make ``key.pem`` and ``cert.pem``, which nobody else signed."""
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
            "-keyout", folder / "key.pem", "-out", folder / "cert.pem", "-subj", f"/CN={name}",
            "-addext", f"subjectAltName=IP:{address}",
        ],
        check=True, capture_output=True,
    )  # fmt: skip


def listens(host: Host, name: str) -> bool:
    """Whether something listens at ``address:port`` in a host's network."""
    address, _, port = name.rpartition(":")
    script = f"import socket; socket.create_connection(({address!r}, {port}), 5)"
    done = subprocess.run([*host.inside, sys.executable, "-c", script], capture_output=True)
    return done.returncode == 0
