"""The daemon's side of the shims: making them, finding them again, hearing them."""

from __future__ import annotations

import contextlib
import json
import select
import shutil
import socket
import threading
import time
from collections.abc import Callable, Collection
from pathlib import Path

import msgspec

from drivetrain.errors import EngineError
from drivetrain_engine.containers import remains, runtimes
from drivetrain_engine.containers.protocol import (
    ExitStatus,
    LogSetup,
    LogStatus,
    Message,
    ShimSpec,
    decode,
)
from drivetrain_engine.containers.shim.main import EXIT_FILE
from drivetrain_engine.containers.shimlink import PATIENCE, Shim, failure
from drivetrain_engine.containers.zygote import Zygote

#: Exit code of a container whose end nobody saw: as if by SIGKILL.
UNSEEN = 137


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
            raise failure(answer)
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
