"""From the services' threads to the loop."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


async def as_coroutine(future: Future[T]) -> T:
    """Wait for a service's future without ever cancelling it: others may share it."""
    return await asyncio.shield(asyncio.wrap_future(future))


class Mailbox(asyncio.Queue[T]):
    """A queue of the loop that any thread may post to; the oldest go when nobody reads.

    Args:
        limit: how many may wait.
    """

    def __init__(self, limit: int = 65536) -> None:
        super().__init__()
        self._limit = limit
        self._home = asyncio.get_running_loop()

    def post(self, item: T) -> None:
        """Add an item, from any thread."""
        try:
            self._home.call_soon_threadsafe(self._keep, item)
        except RuntimeError:  # the loop is closed: the daemon ends
            pass

    def _keep(self, item: T) -> None:
        if self.qsize() >= self._limit:
            self.get_nowait()
        self.put_nowait(item)
