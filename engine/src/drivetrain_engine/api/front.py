"""The front door: HTTP/1.1 over unix sockets and TCP, as a bare asyncio protocol.

Handlers run as their route says (see :data:`drivetrain_engine.api.router.Mode`); nothing that may
block runs in the loop.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from drivetrain_engine.api.connection import Connection
from drivetrain_engine.api.hijack import HangupWatch
from drivetrain_engine.api.router import Router

POOL_THREADS = 64


class Front:
    """What all connections share: the routes, the threads, the bookkeeping.

    Args:
        router: the routes.
        backend: handed to every handler as its first argument.

    Attributes:
        last_activity: the loop's time when the last request ended, for a daemon that leaves when
            nobody calls.
    """

    def __init__(self, router: Router, backend: object) -> None:
        self.router = router
        self.backend = backend
        self.pool = ThreadPoolExecutor(POOL_THREADS, thread_name_prefix="api")
        self.loop = asyncio.get_running_loop()
        self.hangups = HangupWatch(self.loop)
        self.connections: set[Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.requests = 0
        self.open_requests = 0
        self.last_activity = self.loop.time()

    def protocol(self) -> Connection:
        """Return the protocol of a new connection, for ``loop.create_server``."""
        return Connection(self)

    def in_thread(self, work: Callable[[], Any]) -> asyncio.Future[Any]:
        """Run work that may take long in a thread of its own."""
        future: asyncio.Future[Any] = self.loop.create_future()

        def settle(result: object, error: BaseException | None) -> None:
            if future.cancelled():
                return
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)

        def body() -> None:
            result, error = None, None
            try:
                result = work()
            except Exception as raised:
                error = raised
            try:
                self.loop.call_soon_threadsafe(settle, result, error)
            except RuntimeError:  # the loop is closed: the daemon ends
                pass

        threading.Thread(target=body, name="api-long", daemon=True).start()
        return future

    def keep(self, task: asyncio.Task[None]) -> None:
        """Hold a reference to a task until it ends; the loop itself does not."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self, timeout: float = 5.0) -> None:
        """Give requests that are under way ``timeout`` seconds, then cut all connections."""
        deadline = self.loop.time() + timeout
        while any(each.finishing for each in self.connections) and self.loop.time() < deadline:
            await asyncio.sleep(0.02)
        for each in list(self.connections):
            each.abort()
        await asyncio.sleep(0)
        self.hangups.close()
        self.pool.shutdown(wait=False, cancel_futures=True)
