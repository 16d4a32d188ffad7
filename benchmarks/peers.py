"""The engines that are compared: ours, dockerd and podman, each with roots of its own."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.measuring import command
from drivetrain.testing.hosts import Host, eventually
from drivetrain.testing.rootfs import busybox_tar

IMAGE = "busybox"


class Missing(Exception):
    """A peer is not there; the text says what is missing."""


def _need(program: str) -> None:
    if shutil.which(program) is None:
        raise Missing(f"no {program} on this host")


class Engine:
    """Ours, with a busybox image.

    Args:
        flags: further ones of the daemon.
    """

    name = "engine"

    def __init__(self, *flags: str) -> None:
        self.host = Host()
        try:
            self.host.start(*flags)
            self.host.load_busybox()
        except BaseException:
            self.host.close(check=False)
            raise
        self.socket = self.host.socket
        self.pid = self.host.pid

    @property
    def inside(self) -> list[str]:
        """The start of a command in its network namespace."""
        return self.host.inside

    def processes(self) -> Sequence[int]:
        """Return its own processes: the daemon and the shims."""
        return [pid for pid, _ in self.host.processes()]

    def docker(self, *arguments: str) -> list[str]:
        """Return a command of docker's client for this engine."""
        return [*self.host.docker_command, *arguments]

    def engine(self, *arguments: str) -> list[str]:
        """Return a command of our own client, as a user has it."""
        program = str(Path(sys.executable).with_name("engine"))
        return [program, "-H", f"unix://{self.socket}", *arguments]

    def close(self) -> None:
        """Remove everything."""
        self.host.close()


class Dockerd:
    """A dockerd with a containerd and a network namespace of its own, and a busybox image.

    Args:
        flags: further ones of the daemon; the last of several counts.

    Raises:
        Missing: it is not installed, or does not start here.
    """

    name = "dockerd"

    def __init__(self, *flags: str) -> None:
        _need("dockerd")
        _need("docker")
        # Short: paths of sockets are limited.
        self.root = Path(tempfile.mkdtemp(prefix="dtb", dir="/tmp"))
        self.socket = self.root / "s"
        self._netns = self.root.name
        command(["ip", "netns", "add", self._netns])
        command(["ip", "-n", self._netns, "link", "set", "lo", "up"])
        (self.root / "daemon.json").write_text("{}")
        with (self.root / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    "nsenter", f"--net=/run/netns/{self._netns}", "dockerd",
                    "--data-root", str(self.root / "data"), "--exec-root", str(self.root / "x"),
                    "--pidfile", str(self.root / "pid"),
                    "--config-file", str(self.root / "daemon.json"),
                    "--host", f"unix://{self.socket}", "--storage-driver", "overlay2", *flags,
                ],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        try:
            eventually(self._answers, "dockerd answers")
            command(self.docker("import", "-c", 'CMD ["sh"]', "-", IMAGE), busybox_tar())
        except (AssertionError, RuntimeError) as error:
            said = (self.root / "log").read_text(errors="replace").splitlines()
            self.close()
            raise Missing(f"dockerd: {error} {said[-1] if said else ''}") from error

    def _answers(self) -> bool:
        if self._process.poll() is not None:
            raise AssertionError(f"ended with {self._process.returncode}:")
        probe = subprocess.run(self.docker("version"), capture_output=True)
        return probe.returncode == 0

    @property
    def inside(self) -> list[str]:
        """The start of a command in its network namespace."""
        return ["nsenter", f"--net=/run/netns/{self._netns}"]

    def processes(self) -> Sequence[int]:
        """Return its own processes: dockerd, containerd and the shims."""
        return _processes(f"{self.root}/".encode())

    def docker(self, *arguments: str) -> list[str]:
        """Return a command of docker's client for this dockerd."""
        return ["docker", "-H", f"unix://{self.socket}", *arguments]

    def close(self) -> None:
        """Remove everything."""
        if self._process.poll() is None and self._answers():
            listed = command(self.docker("ps", "-aq")).split()
            if listed:
                command(self.docker("rm", "-fv", *listed))
        _end(self._process)
        _sweep(self.root, self._netns)


class Podman:
    """podman with a storage of its own, and a busybox image. Containers have no network.

    Raises:
        Missing: it is not installed, or does not work here.
    """

    name = "podman"

    def __init__(self) -> None:
        _need("podman")
        _need("runc")
        self.root = Path(tempfile.mkdtemp(prefix="dtb", dir="/tmp"))
        self._netns = self.root.name
        self._service: subprocess.Popen[bytes] | None = None
        self.socket = self.root / "s"
        command(["ip", "netns", "add", self._netns])
        command(["ip", "-n", self._netns, "link", "set", "lo", "up"])
        try:
            command(self.podman("import", "-", IMAGE), busybox_tar())
        except RuntimeError as error:
            self.close()
            raise Missing(f"podman: {error}") from error

    def podman(self, *arguments: str) -> list[str]:
        """Return a command of podman."""
        return [
            "nsenter", f"--net=/run/netns/{self._netns}", "podman",
            "--root", str(self.root / "data"), "--runroot", str(self.root / "run"),
            "--tmpdir", str(self.root / "tmp"), "--network-config-dir", str(self.root / "nets"),
            "--cgroup-manager", "cgroupfs", "--events-backend", "file",
            # crun, podman's own choice, refuses hosts with hybrid cgroups.
            "--runtime", "runc", *arguments,
        ]  # fmt: skip

    def serve(self) -> None:
        """Have its API at ``socket``."""
        self._service = subprocess.Popen(
            self.podman("system", "service", "--time", "0", f"unix://{self.socket}"),
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        eventually(self.socket.exists, "podman serves its API")

    def close(self) -> None:
        """Remove everything."""
        if self._service is not None:
            _end(self._service)
        subprocess.run(self.podman("rm", "-af", "-t", "0"), capture_output=True)
        _sweep(self.root, self._netns)


class Peers:
    """Engines for one family, started when they are first asked for."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._made: dict[type, Any] = {}
        self._missing: dict[type, Missing] = {}

    def __enter__(self) -> Peers:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _get(self, kind: type) -> Any:
        if kind in self._missing:
            raise self._missing[kind]
        if kind not in self._made:
            try:
                self._made[kind] = kind()
            except Missing as error:
                self._missing[kind] = error
                raise
            self._stack.callback(self._made[kind].close)
        return self._made[kind]

    @property
    def engine(self) -> Engine:
        """Ours."""
        return self._get(Engine)  # type: ignore[no-any-return]

    @property
    def dockerd(self) -> Dockerd | None:
        """Docker's; ``None``: it is missing."""
        return self._or_none(Dockerd)  # type: ignore[no-any-return]

    @property
    def podman(self) -> Podman | None:
        """Podman; ``None``: it is missing."""
        return self._or_none(Podman)  # type: ignore[no-any-return]

    def _or_none(self, kind: type) -> Any:
        try:
            return self._get(kind)
        except Missing:
            return None

    @property
    def note(self) -> str:
        """Which of the peers asked for are missing, and why."""
        return "; ".join(map(str, self._missing.values()))


class Api:
    """A kept connection to an engine's HTTP API, for what a process per call would take too long.

    Args:
        path: of its unix socket.
        prefix: of paths, such as ``/v1.40``.
    """

    def __init__(self, path: Path, prefix: str = "/v1.40") -> None:
        self._prefix = prefix
        self._connection = http.client.HTTPConnection("engine")
        self._connection.sock = socket.socket(socket.AF_UNIX)
        self._connection.sock.connect(str(path))

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """Send a body and return the answer's; see ``request``."""
        return json.loads(self.request("POST", path, json.dumps(body).encode()) or b"null")

    def request(self, method: str, path: str, body: bytes = b"") -> bytes:
        """Send a request and return the body of the answer.

        Raises:
            RuntimeError: with what the engine said.
        """
        headers = {"Content-Type": "application/json"} if body[:1] == b"{" else {}
        self._connection.request(method, self._prefix + path, body, headers)
        answer = self._connection.getresponse()
        text = answer.read()
        if answer.status >= 300:
            raise RuntimeError(f"{path}: {answer.status} {text!r}")
        return text

    def get(self, path: str) -> bytes:
        """Return the body of an answer.

        Raises:
            RuntimeError: with what the engine said.
        """
        self._connection.request("GET", self._prefix + path)
        answer = self._connection.getresponse()
        data = answer.read()
        if answer.status >= 300:
            raise RuntimeError(f"{path}: {answer.status} {data!r}")
        return data

    def close(self) -> None:
        """Hang up."""
        self._connection.close()


def children(pid: int) -> list[int]:
    """Return the processes below one."""
    found: list[int] = []
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        for text in file.read_text().split():
            found += [int(text), *children(int(text))]
    return found


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _processes(needle: bytes) -> Sequence[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if needle in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def _sweep(root: Path, netns: str) -> None:
    """Free what a peer left: processes and mounts that name its root."""
    for pid in _processes(f"{root}/".encode()):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    places = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for place in reversed([place for place in places if place.startswith(f"{root}/")]):
        subprocess.run(["umount", "-l", place], capture_output=True)
    subprocess.run(["ip", "netns", "delete", netns], capture_output=True)
    shutil.rmtree(root, ignore_errors=True)
