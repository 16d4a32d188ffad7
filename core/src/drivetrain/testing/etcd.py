"""An etcd server for tests, from Debian's ``etcd-server``."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from drivetrain.testing.hosts import eventually


class EtcdServer:
    """A cluster of one server with a data directory of its own; it may be stopped and started.

    Args:
        address: to listen on.
        port: 0: a free one.
        inside: the start of a command that runs in another network namespace.
        arguments: further ones of ``etcd``; with ``https`` among them clients speak TLS.
    """

    def __init__(
        self,
        address: str = "127.0.0.1",
        port: int = 0,
        *,
        inside: Sequence[str] = (),
        arguments: Sequence[str] = (),
        scheme: str = "http",
    ) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="dt-etcd-", dir="/tmp"))
        self.port = port or _free_port(address)
        self.url = f"{scheme}://{address}:{self.port}"
        self._peer = f"http://{address}:{_free_port(address) if not inside else self.port + 1}"
        self._inside = list(inside)
        self._arguments = list(arguments)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> EtcdServer:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def start(self) -> None:
        """Start it and wait until it answers."""
        with (self.root / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *self._inside, "etcd", "--name", "default", "--data-dir", self.root / "data",
                    "--listen-client-urls", self.url, "--advertise-client-urls", self.url,
                    "--listen-peer-urls", self._peer, "--initial-advertise-peer-urls", self._peer,
                    "--initial-cluster", f"default={self._peer}",
                    *self._arguments,
                ],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        eventually(self._ready, "etcd answers", 180)

    def _ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.root / "log").read_text()[-2000:]
        return b"ready to serve client requests" in (self.root / "log").read_bytes()

    def stop(self) -> None:
        """End it; the data stays."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(30)
            self._process = None
            (self.root / "log").write_bytes(b"")

    def close(self) -> None:
        """End it and remove its data."""
        self.stop()
        shutil.rmtree(self.root, ignore_errors=True)


def _free_port(address: str) -> int:
    try:
        with socket.socket() as probe:
            probe.bind((address, 0))
            return int(probe.getsockname()[1])
    except OSError:
        return 2379
