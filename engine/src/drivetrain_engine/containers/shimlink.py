"""One shim, as the daemon talks to it."""

from __future__ import annotations

import contextlib
import shutil
import socket
import threading
import time
from concurrent.futures import Future
from pathlib import Path

from drivetrain.errors import EngineError, FailedPrecondition, Internal, Unavailable
from drivetrain_engine.containers import remains
from drivetrain_engine.containers.protocol import ExecSpec, LogStatus, Message, decode, encode
from drivetrain_engine.containers.shim.runtime import CommandNotExecutable, CommandNotFound

#: Seconds that a shim has for an answer; making a container may wait for a loaded machine.
PATIENCE = 120.0
#: Seconds for what is only to be shown.
SHORT_PATIENCE = 5.0


def failure(message: Message) -> EngineError:
    """Return the error that a shim's answer tells of, with the exit code docker's users know."""
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
        return self._ask(Message(op="logs"), SHORT_PATIENCE).logs

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
            message.number = 1
            connection.sendall(encode(message))
            # What happened before the shim read that is told to all who are connected.
            while not self._line(connection).reply:
                pass
            connection.settimeout(None)
        except OSError as error:
            connection.close()
            name = self.container_id[:12]
            raise FailedPrecondition(f"container {name} is not running: {error}") from error
        except BaseException:
            connection.close()
            raise
        return connection

    def _line(self, connection: socket.socket) -> Message:
        """Read one message and nothing of what follows: that is the stream's."""
        line = b""
        while not line.endswith(b"\n"):
            byte = connection.recv(1)
            if not byte:
                raise FailedPrecondition(f"container {self.container_id[:12]} has just ended")
            line += byte
        return decode(line)

    def _ask(self, message: Message, patience: float = PATIENCE) -> Message:
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
            reply = answer.result(patience)
        except TimeoutError:
            name = self.container_id[:12]
            raise Unavailable(f"the shim of container {name} does not answer") from None
        if reply.error:
            raise failure(reply)
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
