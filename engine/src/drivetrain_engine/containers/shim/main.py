"""The shim's life: make the container, serve the daemon, reap, tell the end, leave."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import shutil
import signal
import socket
import sys
import time
from pathlib import Path

import msgspec

from drivetrain.errors import EngineError
from drivetrain.registry import Registry
from drivetrain_engine.containers.protocol import (
    ExecSpec,
    ExitStatus,
    Message,
    ShimSpec,
    decode,
    encode,
)
from drivetrain_engine.containers.shim.courier import deliver
from drivetrain_engine.containers.shim.logset import Logs
from drivetrain_engine.containers.shim.processes import Process
from drivetrain_engine.containers.shim.runtime import Runtime, make_subreaper, name_process
from drivetrain_engine.containers.shim.streams import Client, Loop

#: Seconds that clients have for reading the end of the output, and the daemon for the exit.
FAREWELL = 30.0
EXIT_FILE = "exit.json"


class Conversation:
    """A connection of the daemon."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.buffer = b""

    def send(self, message: Message) -> None:
        """Send one line; a daemon that is gone does not matter."""
        with contextlib.suppress(OSError):
            self.connection.sendall(encode(message))


class Shim:
    """One container's shim.

    Args:
        spec: the container.
        folder: the shim's own directory below the exec root.
        control: the connection to the daemon that asked for the container.
        registry: where log drivers come from.
    """

    def __init__(
        self, spec: ShimSpec, folder: Path, control: socket.socket, registry: Registry
    ) -> None:
        self.spec = spec
        self.folder = folder
        self.loop = Loop()
        self.conversations: list[Conversation] = []
        self.execs: dict[str, Process] = {}
        self.waiting: dict[str, list[Client]] = {}
        self.exited: ExitStatus | None = None
        self.started = False
        self.paused = False
        self._cgroup = ""
        self._leave_at = 0.0
        self.runtime = Runtime(
            spec.runtime, spec.runtime_root, folder / "runtime.log", spec.private_cgroups
        )
        self.init = Process(
            self.loop, terminal=spec.terminal, stdin=spec.stdin, stdin_once=spec.stdin_once
        )
        self._logs: Logs | None = None
        self._log_news = False
        self._log_told = 0.0
        self._control = control
        self._registry = registry

    # Beginning

    def run(self) -> None:
        """Make the container and serve until it has ended and been told."""
        conversation = self._converse(self._control)
        try:
            self._prepare()
        except (EngineError, OSError) as error:
            if self._logs is not None:
                self._logs.end()
            self._clean()
            code = error.exit_code if isinstance(error, EngineError) else 1
            conversation.send(Message(event="failed", error=str(error), exit_code=code))
            return
        conversation.send(Message(event="created", pid=self.init.pid))
        while not self._finished():
            self.loop.once(self._longest_wait())
        self._clean()
        # After the note, by which the daemon tells a shim that was killed from one that left.
        self._control.close()
        if self._logs is not None:
            self._logs.linger()

    def _longest_wait(self) -> float | None:
        if self.exited:
            return 0.2
        uneasy = self._logs is not None and self._logs.tick()
        now = time.monotonic()
        if self._log_news and self._logs is not None and now >= self._log_told + 1:
            self._log_news = False
            self._log_told = now
            self._tell(Message(event="log", logs=self._logs.statuses()))
        return 1.0 if uneasy or self._log_news else None

    def _prepare(self) -> None:
        make_subreaper()
        self._listen()
        self._watch_children()
        logs = Logs(self.spec.logs, Path(self.spec.directory), self._registry)
        logs.open()
        self._logs = logs
        logs.watch(self.loop, self._log_changed)

        def run(options: list[str], stdio: tuple[int, int, int] | None) -> None:
            spec = self.spec
            self.runtime.run(
                "create", "--bundle", spec.bundle, *options, spec.container_id, stdio=stdio
            )

        self.init.launch(run, self.folder, logs.streams())
        self._remember()
        self.init.watch()

    def _listen(self) -> None:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        path = self.folder / "s"
        path.unlink(missing_ok=True)
        listener.bind(str(path))
        listener.listen(64)
        self._listener = listener
        self.loop.watch(listener.fileno(), select.POLLIN, self._accept)

    def _watch_children(self) -> None:
        reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)

        def reap(events: int) -> None:
            with contextlib.suppress(BlockingIOError):
                os.read(reading, 4096)
            self._reap()

        self.loop.watch(reading, select.POLLIN, reap)

    def _log_changed(self) -> None:
        """A receiver went away or came back, lines were dropped, or there is room again."""
        self._log_news = True
        self.init.watch()

    def _remember(self) -> None:
        """Write what a daemon needs that finds the container but not us."""
        stat = Path(f"/proc/{self.init.pid}/stat").read_text()
        birth = int(stat.rpartition(")")[2].split()[19])
        note = {"pid": self.init.pid, "birth": birth, **msgspec.to_builtins(self.spec)}
        temporary = self.folder / "note.tmp"
        temporary.write_text(json.dumps(note))
        temporary.rename(self.folder / "note.json")
        with contextlib.suppress(OSError):
            self._cgroup = Path(f"/proc/{self.init.pid}/cgroup").read_text()

    # Serving

    def _accept(self, events: int) -> None:
        connection, _ = self._listener.accept()
        self._converse(connection)

    def _converse(self, connection: socket.socket) -> Conversation:
        conversation = Conversation(connection)
        self.conversations.append(conversation)
        self.loop.watch(connection.fileno(), select.POLLIN, lambda events: self._hear(conversation))
        return conversation

    def _hear(self, conversation: Conversation) -> None:
        try:
            data = conversation.connection.recv(65536)
        except OSError:
            data = b""
        if not data:
            self._hang_up(conversation)
            return
        conversation.buffer += data
        while b"\n" in conversation.buffer:
            line, _, conversation.buffer = conversation.buffer.partition(b"\n")
            message = decode(line)
            if message.op in ("attach", "exec_attach"):
                self._attach(conversation, message)
                return
            self._answer(conversation, message)

    def _hang_up(self, conversation: Conversation) -> None:
        self.loop.forget(conversation.connection.fileno())
        if conversation in self.conversations:
            self.conversations.remove(conversation)
        conversation.connection.close()

    def _attach(self, conversation: Conversation, message: Message) -> None:
        self.loop.forget(conversation.connection.fileno())
        self.conversations.remove(conversation)
        process = self.execs.get(message.exec_id) if message.exec_id else self.init
        terminal = process.terminal if process else message.terminal
        conversation.send(Message(reply=message.number))
        client = Client(conversation.connection, *message.streams, raw=terminal)
        if process is None:
            self.waiting.setdefault(message.exec_id, []).append(client)
        else:
            process.attach(client)
        if conversation.buffer and process is not None and process.input is not None:
            process.input.write(conversation.buffer)

    def _answer(self, conversation: Conversation, message: Message) -> None:
        reply = Message(reply=message.number)
        try:
            self._perform(message, reply)
        except (EngineError, OSError) as error:
            reply.error = str(error) or type(error).__name__
            reply.exit_code = error.exit_code if isinstance(error, EngineError) else 1
        conversation.send(reply)

    def _perform(self, message: Message, reply: Message) -> None:
        match message.op:
            case "hello":
                reply.pid = self.init.pid
                reply.status = self.exited
                reply.event = "paused" if self.paused else "running" if self.started else "created"
            case "start":
                self.runtime.run("start", self.spec.container_id)
                self.started = True
            case "signal":
                self._signal(message)
            case "resize":
                self._process(message).resize(message.height, message.width)
            case "pause" | "resume":
                self.runtime.run(message.op, self.spec.container_id)
                self.paused = message.op == "pause"
            case "close_stdin":
                self._process(message).close_input()
            case "exec" if message.exec_spec is not None:
                reply.pid = self._exec(message.exec_spec)
            case "logs":
                reply.logs = self._logs.statuses() if self._logs else []
            case _:
                raise OSError(f"unknown request {message.op}")

    def _process(self, message: Message) -> Process:
        if not message.exec_id:
            return self.init
        if message.exec_id not in self.execs:
            raise OSError("this exec is not running")
        return self.execs[message.exec_id]

    def _signal(self, message: Message) -> None:
        process = self._process(message)
        if not process.ended and process.pid:
            os.kill(process.pid, message.signal)

    def _exec(self, spec: ExecSpec) -> int:
        process = Process(self.loop, terminal=spec.terminal, stdin=spec.stdin, stdin_once=True)
        file = self.folder / f"exec.{spec.id[:16]}.json"
        file.write_text(json.dumps(spec.process))

        def run(options: list[str], stdio: tuple[int, int, int] | None) -> None:
            name = self.spec.container_id
            self.runtime.run(
                "exec", "--detach", "--process", str(file), *options, name, stdio=stdio
            )

        clients = self.waiting.pop(spec.id, [])
        try:
            process.launch(run, self.folder, (None, None))
        except BaseException:
            for client in clients:
                client.connection.close()
            raise
        finally:
            file.unlink(missing_ok=True)
        self.execs[spec.id] = process
        for client in clients:
            process.attach(client)
        process.watch()
        return process.pid

    # Ending

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._ended(pid, os.waitstatus_to_exitcode(status))

    def _ended(self, pid: int, code: int) -> None:
        code = 128 - code if code < 0 else code
        if pid == self.init.pid:
            self._end_container(code)
            return
        for name, process in self.execs.items():
            if process.pid == pid and not process.ended:
                process.finish(code)
                self._tell(Message(event="exec_exit", exec_id=name, exit_code=code))
                return

    def _end_container(self, code: int) -> None:
        if self.exited is not None:
            return
        moment = time.time_ns()
        oom = self._out_of_memory()
        self.init.finish(code)
        if self._logs is not None:
            self._logs.end()
        for name, process in self.execs.items():
            # Without its first process the namespace is gone, and so are the others.
            if not process.ended:
                process.finish(137)
                self._tell(Message(event="exec_exit", exec_id=name, exit_code=137))
        status = ExitStatus(code, moment, oom)
        directory = Path(self.spec.directory)
        temporary = directory / f"{EXIT_FILE}.tmp"
        with contextlib.suppress(OSError):
            temporary.write_bytes(msgspec.json.encode(status))
            temporary.rename(directory / EXIT_FILE)
        self.exited = status
        self._leave_at = time.monotonic() + FAREWELL
        self._tell(Message(event="exit", status=status))
        # Last: the runtime takes its time, and nobody waits for what it does.
        self._delete()

    def _delete(self) -> None:
        """Have the runtime forget the container; what it cannot remove is removed here."""
        try:
            self.runtime.run("delete", "--force", self.spec.container_id)
        except EngineError as error:
            with contextlib.suppress(OSError):
                print(f"container {self.spec.container_id[:12]}: {error}", file=sys.stderr)
        shutil.rmtree(Path(self.spec.runtime_root, self.spec.container_id), ignore_errors=True)

    def _out_of_memory(self) -> bool:
        for line in self._cgroup.splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers == "memory":
                file = f"/sys/fs/cgroup/memory{path}/memory.oom_control"
            elif not controllers:
                file = f"/sys/fs/cgroup{path}/memory.events"
            else:
                continue
            with contextlib.suppress(OSError):
                found = re.search(r"^oom_kill (\d+)", Path(file).read_text(), re.M)
                if found and int(found[1]):
                    return True
        return False

    def _tell(self, message: Message) -> None:
        for conversation in list(self.conversations):
            conversation.send(message)

    def _finished(self) -> bool:
        if self.exited is None:
            return False
        processes = [self.init, *self.execs.values()]
        for process in processes:
            for client in process.clients:
                client.flush()
            process.watch()
        reading = any(process.clients for process in processes)
        return not reading or time.monotonic() > self._leave_at

    def _clean(self) -> None:
        # The folder is left to the daemon: it may be the next run's as soon as the note is gone.
        for name in ("s", "runtime.log", "note.json"):
            with contextlib.suppress(OSError):
                (self.folder / name).unlink(missing_ok=True)


def main(spec: ShimSpec, folder: Path, control: socket.socket, registry: Registry) -> None:
    """Be the shim of one container, or its courier; called in a process of its own."""
    if spec.delivering:
        name_process(f"logs:{spec.container_id[:10]}")
        deliver(spec, control, registry)
        return
    name_process(f"shim:{spec.container_id[:10]}")
    Shim(spec, folder, control, registry).run()
