"""The daemon's side of the shims: making them, finding them again, talking to them."""

from __future__ import annotations

import contextlib
import json
import select
import shutil
import socket
import threading
import time
from collections.abc import Callable, Collection
from concurrent.futures import Future
from pathlib import Path

import msgspec

from drivetrain.errors import EngineError, FailedPrecondition, Internal, Unavailable
from drivetrain_engine.containers import remains, runtimes
from drivetrain_engine.containers.protocol import (
    ExecSpec,
    ExitStatus,
    LogSetup,
    LogStatus,
    Message,
    ShimSpec,
    decode,
    encode,
)
from drivetrain_engine.containers.shim.main import EXIT_FILE
from drivetrain_engine.containers.shim.runtime import CommandNotExecutable, CommandNotFound
from drivetrain_engine.containers.zygote import Zygote

__all__ = ["ExecSpec", "ExitStatus", "LogSetup", "LogStatus", "Shim", "ShimSpec", "Shims"]

#: Seconds that a shim has for an answer; making a container may wait for a loaded machine.
PATIENCE = 120.0
#: Exit code of a container whose end nobody saw: as if by SIGKILL.
UNSEEN = 137


def _failure(message: Message) -> EngineError:
    kind = {126: CommandNotExecutable, 127: CommandNotFound}.get(message.exit_code, Internal)
    return kind(message.error)


class Shim:
    """A container's shim, as the daemon talks to it.

    Attributes:
        container_id: whose it is.
        pid: of the container's first process, on the host.
        state: ``created``, ``running`` or ``paused`` when it was found; it is not kept current.
        folder: what it keeps below the exec root.
        ended: the container's end was told, or nobody is to be told; changed under end_lock.
    """

    def __init__(
        self, container_id: str, folder: Path, connection: socket.socket, runtime_root: Path
    ) -> None:
        self.container_id = container_id
        self._runtime_root = runtime_root
        self.pid = 0
        self.state = "created"
        self.folder = folder
        self.connection = connection
        self.buffer = b""
        self._lock = threading.Lock()
        self._number = 0
        self._replies: dict[int, Future[Message]] = {}
        self.created: Future[Message] = Future()
        self.ended = False
        self.end_lock = threading.Lock()
        self._gone = False

    def start(self) -> None:
        """Let the container's process begin.

        Raises:
            EngineError: what the runtime said.
        """
        self._ask(Message(op="start"))

    def signal(self, number: int) -> None:
        """Send a signal to the container's first process; one that has ended is fine."""
        with contextlib.suppress(ProcessLookupError):
            self._ask(Message(op="signal", signal=number))

    def resize(self, height: int, width: int) -> None:
        """Set the size of the terminal, in characters."""
        self._ask(Message(op="resize", height=height, width=width))

    def pause(self) -> None:
        """Freeze all its processes."""
        self._ask(Message(op="pause"))

    def resume(self) -> None:
        """Undo ``pause``."""
        self._ask(Message(op="resume"))

    def close_stdin(self) -> None:
        """End its standard input."""
        self._ask(Message(op="close_stdin"))

    def logs(self) -> list[LogStatus]:
        """Return how the log drivers are doing."""
        return self._ask(Message(op="logs")).logs

    def attach(self, *, stdin: bool, stdout: bool, stderr: bool) -> socket.socket:
        """Return a connection that carries the streams, from now on.

        Out come stdcopy frames, or raw bytes from a terminal; in goes raw input, and a half-close
        ends it.
        """
        return self._stream(Message(op="attach", streams=(stdin, stdout, stderr)))

    def exec(self, spec: ExecSpec) -> int:
        """Start a further process and return its pid on the host.

        Raises:
            EngineError: what the runtime said; exit codes 126 and 127 as docker has them.
        """
        return self._ask(Message(op="exec", exec_spec=spec)).pid

    def exec_attach(
        self, exec_id: str, *, stdin: bool, stdout: bool, stderr: bool, terminal: bool
    ) -> socket.socket:
        """Return a connection to a process that ``exec`` will start, or has started."""
        streams = (stdin, stdout, stderr)
        return self._stream(
            Message(op="exec_attach", exec_id=exec_id, streams=streams, terminal=terminal)
        )

    def exec_signal(self, exec_id: str, number: int) -> None:
        """Send a signal to a process of ``exec``."""
        self._ask(Message(op="signal", exec_id=exec_id, signal=number))

    def exec_resize(self, exec_id: str, height: int, width: int) -> None:
        """Set the size of the terminal of a process of ``exec``."""
        self._ask(Message(op="resize", exec_id=exec_id, height=height, width=width))

    def remove(self) -> None:
        """Remove what the shim kept below the exec root, once the container has ended."""
        deadline = time.monotonic() + 5
        while not self._gone and (self.folder / "note.json").exists():
            if time.monotonic() > deadline:
                break
            time.sleep(0.005)
        if self._gone and (self.folder / "note.json").exists():
            # It was killed after it told the end, perhaps before the runtime had forgotten.
            remains.clear(self.container_id, self.folder, self._runtime_root)
        shutil.rmtree(self.folder, ignore_errors=True)

    def hello(self) -> Message:
        """Ask how the container is."""
        return self._ask(Message(op="hello"))

    def _stream(self, message: Message) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(PATIENCE)
            connection.connect(str(self.folder / "s"))
            connection.sendall(encode(message))
            line = b""
            while not line.endswith(b"\n"):
                byte = connection.recv(1)
                if not byte:
                    raise FailedPrecondition(f"container {self.container_id[:12]} has just ended")
                line += byte
            connection.settimeout(None)
        except OSError as error:
            connection.close()
            name = self.container_id[:12]
            raise FailedPrecondition(f"container {name} is not running: {error}") from error
        except BaseException:
            connection.close()
            raise
        return connection

    def _ask(self, message: Message) -> Message:
        answer: Future[Message] = Future()
        with self._lock:
            if self._gone:
                raise FailedPrecondition(f"container {self.container_id[:12]} is not running")
            self._number += 1
            message.number = self._number
            self._replies[self._number] = answer
            try:
                self.connection.sendall(encode(message))
            except OSError as error:
                self._replies.pop(self._number)
                name = self.container_id[:12]
                raise FailedPrecondition(f"container {name} is not running") from error
        try:
            reply = answer.result(PATIENCE)
        except TimeoutError:
            name = self.container_id[:12]
            raise Unavailable(f"the shim of container {name} does not answer") from None
        if reply.error:
            raise _failure(reply)
        return reply

    def take_reply(self, message: Message) -> None:
        """Give a reply to whoever asked."""
        with self._lock:
            waiting = self._replies.pop(message.reply, None)
        if waiting is not None:
            waiting.set_result(message)

    def lost(self) -> None:
        """The connection has ended: nobody gets an answer any more."""
        with self._lock:
            self._gone = True
            waiting = list(self._replies.values())
            self._replies.clear()
        error = Message(error=f"container {self.container_id[:12]} is not running", exit_code=1)
        for future in [*waiting, self.created]:
            if not future.done():
                future.set_result(error)


class Shims:
    """All shims of this daemon.

    Args:
        exec_root: a short path: sockets live below it.
        on_exit: called once for each shim whose container ends, from a thread of its own.
        on_exec_exit: the same for processes of ``exec``.
        on_log: called, likewise, when a log driver's receiver is down or back, or lines were lost.
    """

    def __init__(
        self,
        *,
        exec_root: Path,
        on_exit: Callable[[Shim, ExitStatus], None],
        on_exec_exit: Callable[[str, str, int], None],
        on_log: Callable[[str, list[LogStatus]], None] = lambda container_id, statuses: None,
    ) -> None:
        self._zygote = Zygote(exec_root)
        self._root = exec_root / "c"
        self._runtime_root = exec_root / "runtime"
        for folder in (self._root, self._runtime_root):
            folder.mkdir(parents=True, exist_ok=True, mode=0o711)
        self._on_exit = on_exit
        self._on_exec_exit = on_exec_exit
        self._on_log = on_log
        self._shims: dict[int, Shim] = {}
        self._lock = threading.Lock()
        self._poll = select.epoll()
        self._closed = False
        self._thread: threading.Thread | None = None

    def _folder(self, container_id: str) -> Path:
        return self._root / container_id[:20]

    def create(self, spec: ShimSpec) -> Shim:
        """Fork a shim that makes the container; its process waits for ``start``.

        Raises:
            EngineError: what the runtime said; nothing is left.
        """
        spec = msgspec.structs.replace(
            spec,
            runtime_root=str(self._runtime_root),
            private_cgroups=runtimes.needs_private_cgroups(spec.runtime),
        )
        folder = self._folder(spec.container_id)
        folder.mkdir(mode=0o700, exist_ok=True)
        Path(spec.directory, EXIT_FILE).unlink(missing_ok=True)
        with self._lock:
            connection = self._zygote.spawn(spec, folder)
        shim = Shim(spec.container_id, folder, connection, self._runtime_root)
        self._watch(shim)
        answer = shim.created.result(PATIENCE)
        if answer.error:
            if answer.event != "failed":
                # It did not say so itself: it was killed, perhaps in a call of the runtime.
                remains.clear(spec.container_id, folder, self._runtime_root)
            shutil.rmtree(folder, ignore_errors=True)
            raise _failure(answer)
        shim.pid = answer.pid
        return shim

    def destroy(self, shim: Shim) -> None:
        """End a container at once, with its shim; nobody is told. Called before there is another.

        Its output may be cut short: it is for containers whose start came to nothing.
        """
        with shim.end_lock:
            shim.ended = True
            remains.clear(shim.container_id, shim.folder, self._runtime_root)

    def clear(self, container_id: str) -> None:
        """Remove what is left of a container that has no shim."""
        remains.clear(container_id, self._folder(container_id), self._runtime_root)

    def clear_others(self, known: Collection[str]) -> None:
        """Remove what is left of all containers but those known by these ids."""
        for entry in self._runtime_root.iterdir():
            if entry.name not in known:
                self.clear(entry.name)
        folders = {self._folder(name) for name in known}
        for folder in self._root.iterdir():
            if folder not in folders:
                remains.clear(folder.name, folder, self._runtime_root)

    def deliver(self, container_id: str, directory: Path, logs: list[LogSetup]) -> socket.socket:
        """Fork a courier for what a container's log spools have; it leaves with the connection."""
        spec = ShimSpec(
            container_id, "", "", False, False, False, logs, str(directory), delivering=True
        )
        with self._lock:
            return self._zygote.spawn(spec, directory)

    def adopt(self, container_id: str, directory: Path) -> Shim | ExitStatus | None:
        """Find a container again after the daemon was restarted.

        Returns:
            its shim when it lives; how it ended, when it ended unseen; ``None`` when nothing of
            it was ever started.
        """
        folder = self._folder(container_id)
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(str(folder / "s"))
        except OSError:
            connection.close()
            return self._ended(container_id, Path(directory))
        shim = Shim(container_id, folder, connection, self._runtime_root)
        self._watch(shim)
        try:
            answer = shim.hello()
        except EngineError:
            return self._ended(container_id, Path(directory))
        if answer.status is not None:
            shim.ended = True
            return answer.status
        shim.pid = answer.pid
        shim.state = answer.event
        return shim

    def _ended(self, container_id: str, directory: Path) -> ExitStatus | None:
        """Tell how a container without a shim ended, after removing what is left of it."""
        unseen = remains.clear(container_id, self._folder(container_id), self._runtime_root)
        file = directory / EXIT_FILE
        with contextlib.suppress(OSError, msgspec.DecodeError):
            return msgspec.json.decode(file.read_bytes(), type=ExitStatus)
        return ExitStatus(UNSEEN, time.time_ns()) if unseen else None

    def close(self) -> None:
        """Leave; the shims stay."""
        self._closed = True
        with self._lock:
            shims = list(self._shims.values())
        for shim in shims:
            with contextlib.suppress(OSError):
                shim.connection.shutdown(socket.SHUT_RDWR)
        if self._thread is not None:
            self._thread.join(5)
        self._zygote.close()

    # Listening

    def _watch(self, shim: Shim) -> None:
        with self._lock:
            self._shims[shim.connection.fileno()] = shim
            self._poll.register(shim.connection.fileno(), select.EPOLLIN)
            if self._thread is None:
                self._thread = threading.Thread(target=self._listen, name="shims", daemon=True)
                self._thread.start()

    def _listen(self) -> None:
        while not self._closed or self._shims:
            for descriptor, _ in self._poll.poll(1.0):
                shim = self._shims.get(descriptor)
                if shim is not None:
                    self._hear(shim, descriptor)

    def _hear(self, shim: Shim, descriptor: int) -> None:
        try:
            data = shim.connection.recv(65536)
        except OSError:
            data = b""
        if not data:
            with self._lock:
                self._poll.unregister(descriptor)
                del self._shims[descriptor]
            shim.lost()
            shim.connection.close()
            if not self._closed and shim.pid:
                # It may have told before; then this does nothing.
                self._later(self._lost, shim)
            return
        shim.buffer += data
        *lines, shim.buffer = shim.buffer.split(b"\n")
        for line in lines:
            self._take(shim, decode(line))

    def _take(self, shim: Shim, message: Message) -> None:
        if message.reply:
            shim.take_reply(message)
        elif message.event in ("created", "failed"):
            if not shim.created.done():
                shim.created.set_result(message)
        elif message.event == "exit" and message.status is not None:
            self._tell(shim, message.status)
        elif message.event == "exec_exit":
            self._later(self._on_exec_exit, shim.container_id, message.exec_id, message.exit_code)
        elif message.event == "log":
            self._later(self._on_log, shim.container_id, message.logs)

    def _tell(self, shim: Shim, status: ExitStatus) -> None:
        with shim.end_lock:
            if shim.ended:
                return
            shim.ended = True
        self._later(self._on_exit, shim, status)

    def _lost(self, shim: Shim) -> None:
        """The connection ended: the shim left in peace, or was killed and takes all with it."""
        with shim.end_lock:
            if shim.ended:
                return
            shim.ended = True
            directory = ""
            with contextlib.suppress(OSError, ValueError, KeyError):
                directory = json.loads((shim.folder / "note.json").read_text())["directory"]
            status = self._ended(shim.container_id, Path(directory or "/nonexistent"))
        self._later(self._on_exit, shim, status or ExitStatus(UNSEEN, time.time_ns()))

    @staticmethod
    def _later(call: Callable[..., None], *arguments: object) -> None:
        threading.Thread(target=call, args=arguments, daemon=True).start()
