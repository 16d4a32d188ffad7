"""An SSH server for tests."""

from __future__ import annotations

import contextlib
import getpass
import os
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

from drivetrain.testing.hosts import eventually


class Sshd:
    """A real sshd on loopback that accepts one key.

    Args:
        folder: for its keys.
        inside: the start of a command in the network namespace where it is to be.
    """

    def __init__(self, folder: Path, inside: Sequence[str] = ()) -> None:
        self.folder, self.inside = folder, inside
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        for name in ("host", "user"):
            key = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name]
            subprocess.run(key, check=True)
        (folder / "config").write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\n"
            f"AuthorizedKeysFile {folder}/user.pub\nPidFile none\nStrictModes no\n"
            "UsePAM no\nSubsystem sftp internal-sftp\nPermitRootLogin prohibit-password\n"
        )
        self.start()

    def start(self) -> None:
        Path("/run/sshd").mkdir(exist_ok=True)
        self.server = subprocess.Popen(
            [*self.inside, "/usr/sbin/sshd", "-D", "-f", self.folder / "config",
             "-E", self.folder / "log"]
        )  # fmt: skip
        eventually(self._answers, "sshd listens")

    def _answers(self) -> bool:
        assert self.server.poll() is None, (self.folder / "log").read_text()
        listening = [*self.inside, "ss", "-Hltn"]
        return f":{self.port} " in subprocess.run(listening, capture_output=True, text=True).stdout

    def stop(self) -> None:
        """End the server and the connections that it serves."""
        children = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(self.server.pid)], capture_output=True, text=True
        ).stdout.split()
        self.server.kill()
        self.server.wait()
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(child), 9)

    def options(self, path: Path) -> dict[str, str]:
        """Return the options of an sshfs volume of one of its directories."""
        return {
            "sshcmd": f"{getpass.getuser()}@127.0.0.1:{path}",
            "port": str(self.port),
            "IdentityFile": str(self.folder / "user"),
            "StrictHostKeyChecking": "no",
            "UserKnownHostsFile": "/dev/null",
        }
