"""The daemon's life: from its settings to its end."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from drivetrain.errors import EngineError
from drivetrain_engine.api.answers import message_of
from drivetrain_engine.api.front import Front
from drivetrain_engine.api.router import Router
from drivetrain_engine.api.routes import all_routes
from drivetrain_engine.api.tls import TlsLayer
from drivetrain_engine.daemon.assembly import Assembly
from drivetrain_engine.daemon.foreign import refuse_foreign
from drivetrain_engine.daemon.locks import Lock
from drivetrain_engine.daemon.settings import Settings, parse
from drivetrain_engine.daemon.sockets import Listener, notify, open_listeners, tls_context

log = logging.getLogger("engine.daemon")

_LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "error": logging.ERROR,
    "fatal": logging.CRITICAL,
}


def run(given: Mapping[str, object] | Settings) -> int:
    """Run the daemon in the foreground until a signal, or idleness, ends it.

    Args:
        given: the flags of the command line, by name or daemon.json key (see
            :func:`drivetrain_engine.daemon.settings.parse`), or settings ready made.

    Returns:
        The exit code; errors are told on standard error.
    """
    debug = isinstance(given, Settings) and given.debug
    try:
        settings = given if isinstance(given, Settings) else parse(given)
        debug = settings.debug
        configure_logging(settings)
        return Daemon(settings).run()
    except EngineError as error:
        if debug:
            log.exception("the daemon ends")
        print(f"engine: {message_of(error)}", file=sys.stderr, flush=True)
        return 1


def configure_logging(settings: Settings) -> None:
    """Send the daemon's own log to standard error."""
    level = logging.DEBUG if settings.debug else _LEVELS[settings.log_level]
    logging.basicConfig(
        stream=sys.stderr,
        level=level,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        force=True,
    )
    logging.getLogger("asyncio").setLevel(max(level, logging.WARNING))
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # its failures are told to who asked


class Daemon:
    """One daemon: locks, services, sockets, and the loop."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._stop: asyncio.Event = asyncio.Event()
        self._signals = 0
        self._locks: list[Lock] = []

    def run(self) -> int:
        """Do it all; returns the exit code."""
        self._prepare()
        try:
            assembly = Assembly(self.settings)
            try:
                asyncio.run(self._main(assembly))
            finally:
                assembly.close()
        finally:
            for lock in reversed(self._locks):
                lock.release()
        return 0

    def _prepare(self) -> None:
        settings = self.settings
        os.umask(0o022)
        data_root, exec_root = Path(settings.data_root), Path(settings.exec_root)
        refuse_foreign(data_root)
        for root in (data_root, exec_root):
            root.mkdir(mode=0o711, parents=True, exist_ok=True)
        self._locks.append(Lock(data_root / "engine.lock", f"the data root {data_root}"))
        self._locks.append(Lock(exec_root / "engine.lock", f"the exec root {exec_root}"))
        pidfile = Path(settings.pidfile or exec_root / "engine.pid")
        self._locks.append(Lock(pidfile, f"the pidfile {pidfile}", remove=True))
        if settings.oom_score_adjust:
            Path("/proc/self/oom_score_adj").write_text(str(settings.oom_score_adjust))

    async def _main(self, assembly: Assembly) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end)
        await asyncio.to_thread(assembly.open)
        front = Front(Router(all_routes()), assembly.backend)
        listeners = open_listeners(self.settings)
        try:
            servers = await self._listen(front, listeners)
            loop.add_signal_handler(signal.SIGHUP, self._reload, assembly)
            log.info("listening on %s", ", ".join(listener.shown for listener in listeners))
            notify(f"READY=1\nMAINPID={os.getpid()}")
            idle = loop.create_task(self._watch_idleness(front, assembly))
            await self._stop.wait()
            idle.cancel()
            notify("STOPPING=1")
            log.info("the daemon ends")
            for server in servers:
                server.close()
        finally:
            for listener in listeners:
                listener.close()
        if not self.settings.live_restore:
            await asyncio.to_thread(assembly.stop_containers, self.settings.shutdown_timeout)
        await front.close()

    async def _listen(
        self, front: Front, listeners: list[Listener]
    ) -> list[asyncio.AbstractServer]:
        loop = asyncio.get_running_loop()
        context = tls_context(self.settings) if any(each.tls for each in listeners) else None
        servers: list[asyncio.AbstractServer] = []
        for listener in listeners:
            factory: Callable[[], asyncio.Protocol] = front.protocol
            if listener.tls and context is not None:
                factory = partial(TlsLayer, context, front.protocol)
            if listener.path:
                servers.append(await loop.create_unix_server(factory, sock=listener.sock))
            else:
                servers.append(await loop.create_server(factory, sock=listener.sock))
        return servers

    def _end(self) -> None:
        self._signals += 1
        if self._signals >= 3:
            log.warning("three signals to end: leaving at once")
            os._exit(1)
        self._stop.set()

    def _reload(self, assembly: Assembly) -> None:
        """SIGHUP: take over what may change while the daemon runs."""
        try:
            fresh = parse(self.settings.flags)
        except EngineError as error:
            log.error("the configuration is not reloaded: %s", error)
            return
        changed = self.settings.take_over(fresh)
        configure_logging(self.settings)
        assembly.reload(changed)
        log.info("configuration reloaded: %s", ", ".join(changed) or "nothing changed")

    async def _watch_idleness(self, front: Front, assembly: Assembly) -> None:
        timeout = self.settings.idle_timeout
        if not timeout:
            return
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(min(1.0, timeout / 4))
            if front.open_requests or loop.time() - front.last_activity < timeout:
                continue
            if await asyncio.to_thread(assembly.busy):
                front.last_activity = loop.time()
            elif not front.open_requests:
                log.info("idle for %.0f s: the daemon leaves", timeout)
                self._stop.set()
                return
