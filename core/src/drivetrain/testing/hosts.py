r"""Hosts for tests: an engine of one's own, in a network namespace, with roots of its own.

::

    with Host() as host:
        host.start("--storage-driver", "vfs")
        host.load_busybox()
        assert host.docker("run", "--rm", "busybox", "echo", "hi").stdout == "hi\n"

Leaving the context removes every container, ends the daemon, and raises ``AssertionError`` when a
mount, a process or a cgroup of the host is still there.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType

from drivetrain.testing.rootfs import busybox_tar

#: Seconds that a client's command may take.
PATIENCE = 120.0
#: Seconds that a daemon may take to start: on an emulated machine its imports alone take a minute.
START = 240.0


def eventually(condition: Callable[[], object], what: str, timeout: float = 60.0) -> None:
    """Wait until ``condition`` holds.

    Raises:
        AssertionError: it did not within ``timeout`` seconds; says ``what`` was waited for.
    """
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"still not after {timeout:.0f} s: {what}")
        time.sleep(0.05)


class Host:
    """One engine with everything it needs, apart from whatever else runs on the machine.

    Attributes:
        root: a temporary folder; ``root/data`` is the data root.
        exec_root: a short folder below /run, since paths of sockets are limited.
        socket: where the API is served.
        netns: the name of its network namespace, for ``ip netns exec``.
    """

    def __init__(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="dt-", dir="/tmp"))
        token = self.root.name.removeprefix("dt-").replace("_", "x")
        self.root.chmod(0o711)
        self.exec_root = Path(f"/run/dt-{token}")
        self.exec_root.mkdir(mode=0o711)
        self.data_root = self.root / "data"
        self.socket = self.exec_root / "engine.sock"
        self.config_file = self.root / "daemon.json"
        self.config_file.write_text("{}")
        self.log = self.root / "daemon.log"
        self.netns = f"dt-{token}"
        self._daemon: subprocess.Popen[bytes] | None = None
        self._seen: set[str] = set()
        _run("ip", "netns", "add", self.netns)
        _run("ip", "-n", self.netns, "link", "set", "lo", "up")

    def __enter__(self) -> Host:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close(check=kind is None)

    @property
    def inside(self) -> list[str]:
        """The start of a command that runs in the host's network (and no other namespace)."""
        return ["nsenter", f"--net=/run/netns/{self.netns}"]

    @property
    def roots(self) -> list[str]:
        """The options that name this host's places."""
        return [
            "--data-root", str(self.data_root),
            "--exec-root", str(self.exec_root),
            "--config-file", str(self.config_file),
            "-H", f"unix://{self.socket}",
        ]  # fmt: skip

    @property
    def engine_command(self) -> list[str]:
        """Our command line for this host; without a subcommand, the daemon."""
        return [*self.inside, sys.executable, "-m", "drivetrain_engine.cli.main", *self.roots]

    @property
    def docker_command(self) -> list[str]:
        """Docker's command line for this host."""
        return ["docker", "-H", f"unix://{self.socket}"]

    @property
    def pid(self) -> int:
        """The daemon's process id."""
        assert self._daemon is not None, "the daemon was not started"
        return self._daemon.pid

    def start(self, *flags: str, environment: dict[str, str] | None = None) -> None:
        """Start the daemon and wait until it answers.

        Raises:
            AssertionError: it ended, or does not answer; with the end of its log.
        """
        with self.log.open("ab") as log:
            daemon = subprocess.Popen(
                [*self.engine_command, *flags],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **(environment or {})},
            )
        self._daemon = daemon
        eventually(lambda: self.answers() or daemon.poll() is not None, "the daemon answers", START)
        if daemon.poll() is not None:
            self._daemon = None
            raise AssertionError(f"the daemon ended with {daemon.returncode}: {self.log_tail()}")

    def run_in_network(self, *command: str) -> str:
        """Run a command of the system in the host's network and return what it prints."""
        done = subprocess.run([*self.inside, *command], capture_output=True, timeout=PATIENCE)
        assert done.returncode == 0, done.stderr.decode(errors="replace")
        return done.stdout.decode(errors="replace")

    def answers(self) -> bool:
        """Whether the daemon answers a ping."""
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(10)
                connection.connect(str(self.socket))
                connection.sendall(b"GET /_ping HTTP/1.1\r\nHost: e\r\nConnection: close\r\n\r\n")
                return connection.recv(64).startswith(b"HTTP/1.1 200")
        except OSError:
            return False

    def log_tail(self, lines: int = 40) -> str:
        """Return the end of what the daemon wrote."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def kill(self) -> None:
        """SIGKILL the daemon; shims and containers go on."""
        if self._daemon is not None:
            self._daemon.kill()
            self._daemon.wait()
            self._daemon = None

    def stop(self) -> int:
        """SIGTERM the daemon and return its exit code."""
        if self._daemon is None:
            return 0
        self._daemon.terminate()
        try:
            code = self._daemon.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"the daemon does not end: {self.log_tail()}") from None
        self._daemon = None
        return code

    def docker(
        self, *arguments: str, check: bool = True, data: bytes | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command of the docker client; an unexpected failure is an assertion error."""
        return self._client(self.docker_command, arguments, check, data)

    def engine(
        self, *arguments: str, check: bool = True, data: bytes | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command of ours; an unexpected failure is an assertion error."""
        return self._client(self.engine_command, arguments, check, data)

    def _client(
        self, client: list[str], arguments: tuple[str, ...], check: bool, data: bytes | None
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*client, *arguments],
            input=data if data is not None else b"",
            capture_output=True,
            timeout=PATIENCE,
        )
        result = subprocess.CompletedProcess(
            list(arguments),
            done.returncode,
            done.stdout.decode(errors="replace"),
            done.stderr.decode(errors="replace"),
        )
        if check and result.returncode != 0:
            raise AssertionError(
                f"{' '.join(arguments)}: exit code {result.returncode}\n{result.stdout}"
                f"{result.stderr}\nthe daemon's log:\n{self.log_tail()}"
            )
        return result

    def load_busybox(self, name: str = "busybox:latest") -> None:
        """Import a root file system made from the host's busybox."""
        self.docker("import", "-c", 'CMD ["sh"]', "-", name, data=busybox_tar())

    def clear(self) -> None:
        """Remove all containers with their anonymous volumes."""
        containers = self.docker("ps", "-aq", "--no-trunc").stdout.split()
        self._seen.update(containers)
        if containers:
            self.docker("rm", "-fv", *containers)

    def close(self, check: bool = True) -> None:
        """Remove the containers, end the daemon, and look whether anything is left."""
        left: list[str] = []
        try:
            if self._daemon is not None:
                if self.answers():
                    self.clear()
                    self.stop()
                else:
                    self.kill()
            if check:
                left = self.leftovers()
        finally:
            self._sweep()
        if left:
            raise AssertionError("left behind: " + "; ".join(left))

    def leftovers(self) -> list[str]:
        """Name what of removed containers is still there, after ten seconds of patience."""
        deadline = time.monotonic() + 10
        while found := self._leftovers():
            if time.monotonic() > deadline:
                break
            time.sleep(0.1)
        return found

    def _leftovers(self) -> list[str]:
        found = [f"mount {path}" for path in self.mounts()]
        found += [f"cgroup {path}" for path in self.cgroups(self._seen)]
        found += [
            f"process {pid} {command}"
            for pid, command in self.processes()
            if self._daemon is None or self._daemon.pid not in (pid, _parent(pid))
        ]
        return found

    def mounts(self) -> list[str]:
        """The mount points below the host's roots."""
        table = Path("/proc/self/mountinfo").read_text(errors="replace").splitlines()
        roots = (f"{self.root}/", f"{self.exec_root}/")
        return [line.split()[4] for line in table if line.split()[4].startswith(roots)]

    @staticmethod
    def cgroups(containers: Iterable[str]) -> list[str]:
        """The cgroups that are named after containers."""
        base = Path("/sys/fs/cgroup")
        found: list[str] = []
        for name in containers:
            for pattern in (f"*/engine/{name}", f"engine/{name}"):
                found += map(str, base.glob(pattern))
        return found

    def processes(self) -> list[tuple[int, str]]:
        """Processes whose command line names the host's roots: the daemon, its shims, runtimes."""
        needles = (str(self.exec_root).encode(), str(self.root).encode() + b"/")
        found: list[tuple[int, str]] = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            try:
                command = (entry / "cmdline").read_bytes()
                state = re.search(rb"\) (\S)", (entry / "stat").read_bytes())
            except OSError:
                continue
            if any(needle in command for needle in needles) and state and state[1] != b"Z":
                text = command.replace(b"\0", b" ").decode(errors="replace")
                found.append((int(entry.name), text))
        return found

    def _sweep(self) -> None:
        """Free whatever is left, so that a failed test does not spoil the next."""
        for pid, _ in self.processes():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        for _ in range(3):
            for path in reversed(self.mounts()):
                subprocess.run(["umount", "-l", path], capture_output=True, check=False)
        subprocess.run(["ip", "netns", "delete", self.netns], capture_output=True, check=False)
        shutil.rmtree(self.exec_root, ignore_errors=True)
        shutil.rmtree(self.root, ignore_errors=True)


def _parent(pid: int) -> int:
    """The parent of a process; 0: it is gone. The daemon's only child is its zygote."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return 0
    return int(stat.rpartition(")")[2].split()[1])


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
