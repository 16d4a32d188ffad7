"""Further processes in running containers."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from drivetrain.errors import EngineError, FailedPrecondition, InvalidArgument, NotFound
from drivetrain_engine.containers.container import Container
from drivetrain_engine.containers.exitcodes import exit_code_of_error
from drivetrain_engine.containers.protocol import ExecSpec
from drivetrain_engine.containers.request.config import Api
from drivetrain_engine.containers.rooted import Root
from drivetrain_engine.containers.services import Services
from drivetrain_engine.containers.spec.build import (
    capability_sets,
    environment,
    no_new_privileges,
    oci_user,
    rlimits,
)
from drivetrain_engine.containers.spec.capabilities import effective_capabilities
from drivetrain_engine.containers.spec.security import parse_security
from drivetrain_engine.containers.spec.users import find_user
from drivetrain_engine.state import new_id

if TYPE_CHECKING:
    from drivetrain_engine.containers.shimlink import Shim

Json = dict[str, Any]

#: Seconds that a client waits for an exit code whose process has closed its streams.
_EXIT_KNOWN = 5.0


class Attachment(msgspec.Struct):
    """Where the streams of a container or exec are.

    Attributes:
        socket: frames of output out (raw bytes with a terminal), raw input in; ``None`` without.
        tty: it has a terminal.
        backlog: what was written before, stream (1 or 2) and bytes, to be sent first.
        settled: of an exec: waits for a while until its exit code is known.
    """

    socket: socket.socket | None
    tty: bool
    backlog: Iterator[tuple[int, bytes]] | None = None
    settled: Callable[[], object] | None = None


class ExecRequest(Api):
    """The body of ``POST /containers/{id}/exec``."""

    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    console_size: list[int] | None = None
    detach_keys: str = ""
    tty: bool = False
    env: list[str] | None = None
    cmd: list[str] | None = None
    privileged: bool = False
    user: str = ""
    working_dir: str = ""


class Exec:
    """One exec.

    Attributes:
        id: 64 hexadecimal digits.
        exit_code: ``None`` until it has ended.
        ended: set at its end.
    """

    def __init__(self, container: Container, request: ExecRequest) -> None:
        self.id = new_id()
        self.container = container
        self.request = request
        self.running = False
        self.started = False
        self.pid = 0
        self.exit_code: int | None = None
        self.ended = threading.Event()

    def end(self, code: int) -> None:
        """Take note of its end."""
        self.running = False
        if self.exit_code is None:
            self.exit_code = code
        self.ended.set()

    def container_ended(self) -> None:
        """Take note that its container has ended, and it with it."""
        if self.running:
            self.end(137)


def _told(error: EngineError, terminal: bool) -> Attachment:
    """Return streams that tell an error: clients are attached by then, and see the exit code."""
    text = f"{error}\r\n".encode()
    header = b"" if terminal else b"\1\0\0\0" + len(text).to_bytes(4, "big")
    client, end = socket.socketpair()
    with end:
        end.sendall(header + text)
    return Attachment(client, terminal)


class Execs:
    """Makes and starts execs; they are forgotten with the daemon, as in Docker."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._lock = threading.Lock()
        self._execs: dict[str, Exec] = {}

    def find(self, exec_id: str) -> Exec:
        """Return an exec.

        Raises:
            NotFound: there is none.
        """
        with self._lock:
            found = self._execs.get(exec_id)
        if found is None:
            raise NotFound(f"No such exec instance: {exec_id}")
        return found

    def create(self, container: Container, body: Mapping[str, Any]) -> str:
        """Make an exec and return its id.

        Raises:
            FailedPrecondition: the container does not run, or is paused.
            InvalidArgument: the body is not one.
        """
        try:
            given = {key: value for key, value in body.items() if value is not None}
            request = msgspec.convert(given, ExecRequest)
        except msgspec.ValidationError as error:
            raise InvalidArgument(f"invalid JSON: {error}") from None
        if not request.cmd:
            raise InvalidArgument("No exec command specified")
        if request.working_dir and not request.working_dir.startswith("/"):
            raise InvalidArgument(
                f"the working directory '{request.working_dir}' is invalid, it needs to be an "
                "absolute path"
            )
        self._check_running(container)
        made = Exec(container, request)
        self.add(made)
        command = " ".join(request.cmd)
        self._services.emit(container, f"exec_create: {command}", execID=made.id)
        return made.id

    def add(self, made: Exec) -> None:
        """Remember an exec."""
        with self._lock:
            self._execs[made.id] = made
        made.container.execs[made.id] = made

    def drop(self, run: Exec) -> None:
        """Forget an exec."""
        with self._lock:
            self._execs.pop(run.id, None)
        run.container.execs.pop(run.id, None)

    def forget(self, container: Container) -> None:
        """Forget all execs of a container."""
        for run in list(container.execs.values()):
            self.drop(run)

    @staticmethod
    def _check_running(container: Container) -> Shim:
        record = container.record
        if record.state.paused:
            raise FailedPrecondition(
                f"container {record.id} is paused, unpause the container before exec"
            )
        if record.state.restarting:
            raise FailedPrecondition(
                f"container {record.id} is restarting, wait until the container is running"
            )
        if container.shim is None:
            raise FailedPrecondition(f"container {record.id} is not running")
        return container.shim

    def start(self, exec_id: str, body: Mapping[str, Any]) -> Attachment | None:
        """Start an exec; returns its streams unless ``Detach`` says otherwise.

        What the runtime says against it is told on the streams, as clients of Docker expect.

        Raises:
            NotFound: no such exec.
            FailedPrecondition: it was started already, or the container has ended.
            EngineError: when detached, the runtime's message; the exit code is 126 or 127 then.
        """
        run = self.find(exec_id)
        if body.get("Tty") is not None:
            run.request.tty = bool(body["Tty"]) or run.request.tty
        if body.get("ConsoleSize"):
            run.request.console_size = list(body["ConsoleSize"])
        detach = bool(body.get("Detach"))
        with self._lock:
            if run.started:
                raise FailedPrecondition(f"Error: Exec command {exec_id} is already running")
            run.started = True
        return self.run(run, attach=not detach)

    def run(self, run: Exec, *, attach: bool) -> Attachment | None:
        """Start what :meth:`create` made; see :meth:`start`."""
        request, container = run.request, run.container
        with container.lock:
            shim = self._check_running(container)
            process = self._process(container, request)
        spec = ExecSpec(
            id=run.id,
            process=process,
            terminal=request.tty,
            stdin=request.attach_stdin and attach,
        )
        connection: socket.socket | None = None
        if attach:
            connection = shim.exec_attach(
                run.id,
                stdin=request.attach_stdin,
                stdout=request.attach_stdout or request.tty,
                stderr=request.attach_stderr,
                terminal=request.tty,
            )
        run.running = True
        command = " ".join(request.cmd or ())
        self._services.emit(container, f"exec_start: {command}", execID=run.id)
        try:
            run.pid = shim.exec(spec)
        except EngineError as error:
            run.end(exit_code_of_error(str(error)))
            if connection is None:
                raise
            connection.close()
            return _told(error, request.tty)
        if connection is None:
            return None
        # The end of the streams and the exit code come by different ways.
        return Attachment(connection, request.tty, settled=partial(run.ended.wait, _EXIT_KNOWN))

    def exited(self, container_id: str, exec_id: str, code: int) -> None:
        """Take note of an end; called by the shims."""
        with self._lock:
            run = self._execs.get(exec_id)
        if run is not None:
            run.end(code)
            self._services.emit(run.container, "exec_die", execID=exec_id, exitCode=str(code))

    def _process(self, container: Container, request: ExecRequest) -> Json:
        """Return the OCI process; called with the container's lock held."""
        record = container.record
        host = record.host
        privileged = request.privileged or host.privileged
        capabilities = effective_capabilities(host.cap_add, host.cap_drop, privileged=privileged)
        with self._services.rootfs.mounted(record.id) as rootfs, Root(rootfs) as root:
            groups = host.group_add or ()
            user = find_user(root, request.user or record.config.user, groups)
        names = {one.partition("=")[0] for one in request.env or ()}
        inherited = [one for one in environment(record) if one.partition("=")[0] not in names]
        if (
            request.tty
            and "TERM" not in names
            and not any(one.startswith("TERM=") for one in inherited)
        ):
            inherited.append("TERM=xterm")
        own = [one for one in request.env or () if re.match(r"[^=]+=", one)]
        process: Json = {
            "terminal": request.tty,
            "user": oci_user(user),
            "args": request.cmd,
            "env": [*inherited, *own],
            "cwd": request.working_dir or record.config.working_dir or "/",
            "capabilities": capability_sets(capabilities, user.uid),
            "noNewPrivileges": no_new_privileges(
                parse_security(host.security_opt), self._services.settings
            ),
            "rlimits": rlimits(host, self._services.settings),
        }
        if request.tty and request.console_size and any(request.console_size):
            height, width = request.console_size
            process["consoleSize"] = {"height": height, "width": width}
        return process

    def inspect(self, exec_id: str) -> Json:
        """Return ``ExecInspectResponse`` of the API."""
        run = self.find(exec_id)
        request, command = run.request, run.request.cmd or [""]
        return {
            "ID": run.id,
            "Running": run.running,
            "ExitCode": run.exit_code,
            "ProcessConfig": {
                "tty": request.tty,
                "entrypoint": command[0],
                "arguments": command[1:],
                "privileged": request.privileged,
                **({"user": request.user} if request.user else {}),
            },
            "OpenStdin": request.attach_stdin,
            "OpenStdout": request.attach_stdout,
            "OpenStderr": request.attach_stderr,
            "CanRemove": run.ended.is_set(),
            "ContainerID": run.container.id,
            "DetachKeys": request.detach_keys,
            "Pid": run.pid,
        }

    def resize(self, exec_id: str, height: int, width: int) -> None:
        """Set the size of an exec's terminal.

        Raises:
            FailedPrecondition: it does not run.
        """
        run = self.find(exec_id)
        shim = run.container.shim
        if not run.running or shim is None:
            raise FailedPrecondition(f"exec process {exec_id} is not running")
        shim.exec_resize(exec_id, height, width)
