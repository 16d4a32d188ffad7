"""A process in the container as the shim holds it: its streams, its clients, its end."""

from __future__ import annotations

import fcntl
import os
import select
import socket
import struct
import termios
from collections.abc import Callable
from functools import partial
from pathlib import Path

from drivetrain_engine.containers.shim.logpipe import LogStream
from drivetrain_engine.containers.shim.runtime import receive_terminal
from drivetrain_engine.containers.shim.streams import Client, Input, Loop, Output, wide_pipe


class Process:
    """The container's own process, or one of ``exec``.

    Args:
        loop: the shim's.
        terminal: it has a terminal instead of pipes.
        stdin: clients may write to it.
        stdin_once: its input ends when the first client that wrote has gone.
    """

    def __init__(self, loop: Loop, *, terminal: bool, stdin: bool, stdin_once: bool) -> None:
        self.loop = loop
        self.terminal = terminal
        self.stdin = stdin
        self.stdin_once = stdin_once
        self.pid = 0
        self.clients: list[Client] = []
        self.outputs: list[Output] = []
        self.input: Input | None = None
        self.ended = False
        self.code = 0
        self._master = -1

    def launch(
        self, run: Callable[[list[str], tuple[int, int, int] | None], None], folder: Path,
        logs: tuple[LogStream | None, LogStream | None],
    ) -> None:  # fmt: skip
        """Have the runtime make the process, with its streams connected to us.

        Args:
            run: calls the runtime with further options and the three descriptors.
            folder: where the pid file goes.
            logs: the ways to the log of standard output and error.
        """
        pid_file = folder / f"pid.{os.getpid()}.{id(self)}"
        options = ["--pid-file", str(pid_file)]
        try:
            if self.terminal:
                self._launch_terminal(run, options, folder, logs[0])
            else:
                self._launch_pipes(run, options, logs)
            self.pid = int(pid_file.read_text())
        finally:
            pid_file.unlink(missing_ok=True)

    def _launch_terminal(
        self, run: Callable[[list[str], tuple[int, int, int] | None], None], options: list[str],
        folder: Path, log: LogStream | None,
    ) -> None:  # fmt: skip
        # In the shim's folder, where it is found when the shim is killed meanwhile.
        path = folder / "pty"
        path.unlink(missing_ok=True)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
                listener.bind(str(path))
                listener.listen(1)
                run([*options, "--console-socket", str(path)], None)
                self._master = receive_terminal(listener)
        finally:
            path.unlink(missing_ok=True)
        self.outputs = [Output(self._master, 1, log, self.clients)]
        self.input = Input(self._master, terminal=True)

    def _launch_pipes(
        self, run: Callable[[list[str], tuple[int, int, int] | None], None], options: list[str],
        logs: tuple[LogStream | None, LogStream | None],
    ) -> None:  # fmt: skip
        if self.stdin:
            inner, outer = os.pipe2(os.O_CLOEXEC)
        else:
            inner, outer = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC), -1
        out_read, out_write = wide_pipe()
        error_read, error_write = wide_pipe()
        try:
            run(options, (inner, out_write, error_write))
        except BaseException:
            for descriptor in (out_read, error_read, *([outer] if outer >= 0 else [])):
                os.close(descriptor)
            raise
        finally:
            for descriptor in (inner, out_write, error_write):
                os.close(descriptor)
        self.outputs = [
            Output(out_read, 1, logs[0], self.clients),
            Output(error_read, 2, logs[1], self.clients),
        ]
        if outer >= 0:
            self.input = Input(outer, terminal=False)

    def resize(self, height: int, width: int) -> None:
        """Set the size of the terminal, in characters."""
        if self._master >= 0 and not self.ended:
            size = struct.pack("HHHH", height, width, 0, 0)
            fcntl.ioctl(self._master, termios.TIOCSWINSZ, size)

    def attach(self, client: Client) -> None:
        """Add a client, from now on."""
        if self.ended:
            client.end()
            self._leave(client)
            return
        self.clients.append(client)
        self.watch()

    def watch(self) -> None:
        """Watch the descriptors for what matters now."""
        for output in self.outputs:
            if output.open:
                mask = 0 if output.paused else select.POLLIN
                self.loop.watch(output.descriptor, mask, partial(self._read, output))
        if self.input is not None and self.input.open and not self.input.terminal:
            mask = select.POLLOUT if self.input.buffer else 0
            self.loop.watch(self.input.descriptor, mask, self._fed)
        for client in list(self.clients):
            if client.gone:
                self._leave(client)
            else:
                self._watch_client(client)

    def _watch_client(self, client: Client) -> None:
        mask = select.POLLOUT if client.buffer else 0
        blocked = self.input is not None and self.input.full
        if not blocked and not client.half_closed:
            mask |= select.POLLIN
        self.loop.watch(client.connection.fileno(), mask, partial(self._serve, client))

    def _read(self, output: Output, events: int) -> None:
        descriptor = output.descriptor
        output.read()
        if not output.open:
            self.loop.forget(descriptor)
        if output.paused or any(client.buffer or client.gone for client in self.clients):
            self.watch()

    def _fed(self, events: int) -> None:
        if self.input is None:
            return
        descriptor = self.input.descriptor
        if events & (select.POLLERR | select.POLLHUP):
            # The process closed its input: what waits has no reader any more.
            self.input.buffer.clear()
            self.input.close()
        else:
            self.input.flush()
        if not self.input.open:
            self.loop.forget(descriptor)
        self.watch()

    def _serve(self, client: Client, events: int) -> None:
        if events & select.POLLOUT:
            client.flush()
        if events & (select.POLLIN | select.POLLHUP | select.POLLERR) and not client.gone:
            self._hear(client, events)
        self.watch()

    def _hear(self, client: Client, events: int) -> None:
        try:
            data = client.connection.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            data = b""
            client.gone = True
        if data:
            if client.stdin and self.input is not None:
                self.input.write(data)
            return
        client.half_closed = True
        if events & (select.POLLHUP | select.POLLERR):
            client.gone = True
        if client.stdin and self.stdin_once and self.input is not None and not self.input.terminal:
            # Whoever leaves a terminal has detached: the process is not told.
            descriptor = self.input.descriptor
            self.input.close()
            if not self.input.open:
                self.loop.forget(descriptor)

    def _leave(self, client: Client) -> None:
        if client in self.clients:
            self.clients.remove(client)
        self.loop.forget(client.connection.fileno())
        client.connection.close()

    def close_input(self) -> None:
        """End the standard input."""
        if self.input is not None and self.input.open:
            descriptor = self.input.descriptor
            self.input.close()
            if not self.input.open:
                self.loop.forget(descriptor)

    def finish(self, code: int) -> None:
        """The process has ended: pass on what it wrote, then end the clients' streams."""
        self.ended = True
        self.code = code
        if self.input is not None and self.input.open and not self.input.terminal:
            self.loop.forget(self.input.descriptor)
            os.close(self.input.descriptor)
            self.input.open = False
        for output in self.outputs:
            if output.open:
                self.loop.forget(output.descriptor)
                output.drain()
        self._master = -1
        for client in list(self.clients):
            client.end()
        self.watch()
