"""Docker's daemon beside ours: the oracle, and the peer to exchange things with."""

import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

DEADLINE = 60


class Dockerd:
    """A dockerd of its own below one directory, with neither bridge nor firewall rules.

    Args:
        root: the directory; with a short path.
        inside: the start of a command, where it should run in a network of somebody else's.
    """

    def __init__(self, root: Path, inside: Sequence[str] = ()) -> None:
        self.socket = f"unix://{root}/docker.sock"
        self.log = root / "log"
        self.pidfile = root / "pid"
        self.root = root
        command = [
            *inside, "dockerd", "--data-root", root / "data", "--exec-root", root / "exec",
            "--pidfile", self.pidfile, "--host", self.socket, "--bridge", "none",
            "--iptables=false", "--ip6tables=false", "--storage-driver", "vfs",
        ]  # fmt: skip
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)

    def wait(self) -> None:
        deadline = time.monotonic() + DEADLINE
        while subprocess.run(
            ["docker", "--host", self.socket, "version"], capture_output=True
        ).returncode:
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.1)

    def __call__(self, *arguments: str, stdin: bytes = b"") -> bytes:
        command = ["docker", "--host", self.socket, *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(DEADLINE)
