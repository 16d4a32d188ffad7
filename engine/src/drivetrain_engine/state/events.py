"""Events: told to listeners at once, to subscribers through a queue, and kept for a while."""

from __future__ import annotations

import collections
import queue
import threading
import time
from collections.abc import Callable, Mapping

from drivetrain.extension import Event

#: What a subscriber that does not read may hold before it is dropped.
BACKLOG = 4096


class Subscription:
    """The events from a moment on, in order."""

    def __init__(self, events: Events) -> None:
        self._events = events
        self._queue: queue.Queue[Event | None] = queue.Queue(BACKLOG)
        self.closed = False

    def get(self, timeout: float | None = None) -> Event | None:
        """Return the next event; ``None`` when none came in time, or the subscription ended.

        Args:
            timeout: seconds; ``None`` waits for ever.
        """
        try:
            return self._queue.get(timeout=timeout)
        except queue.Empty:
            return None

    def close(self) -> None:
        """End it; a waiting ``get`` returns."""
        self.closed = True
        self._events.unsubscribe(self)
        try:
            self._queue.put_nowait(None)
        except queue.Full:
            pass

    def offer(self, event: Event) -> None:
        """Queue an event; a reader that fell too far behind is closed instead."""
        try:
            self._queue.put_nowait(event)
        except queue.Full:
            self.closed = True
            self._events.unsubscribe(self)


class Events:
    """The events of this run.

    Args:
        keep: so many are remembered for ``since``.

    Attributes:
        listeners: called with each event, in order, by the thread that emitted it.
    """

    def __init__(self, keep: int = 1024) -> None:
        self._lock = threading.Lock()
        self._emitting = threading.RLock()
        self._past: collections.deque[Event] = collections.deque(maxlen=keep)
        self._subscriptions: list[Subscription] = []
        self.listeners: list[Callable[[Event], None]] = []

    def emit(
        self, type: str, action: str, id: str, attributes: Mapping[str, str] | None = None
    ) -> None:
        """Tell that something happened."""
        with self._emitting:
            with self._lock:
                event = Event(type, action, id, dict(attributes or {}), time.time_ns())
                self._past.append(event)
                subscriptions = list(self._subscriptions)
            for subscription in subscriptions:
                subscription.offer(event)
            for listener in list(self.listeners):
                listener(event)

    def subscribe(self, since: int | None = None) -> Subscription:
        """Return what happens from now on, after what is remembered from ``since`` on.

        Args:
            since: nanoseconds since 1970; ``None``: only what is to come.
        """
        subscription = Subscription(self)
        with self._lock:
            if since is not None:
                for event in self._past:
                    if event.time >= since:
                        subscription.offer(event)
            self._subscriptions.append(subscription)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """Forget a subscription; unknown ones are fine."""
        with self._lock:
            if subscription in self._subscriptions:
                self._subscriptions.remove(subscription)

    def history(self, since: int = 0, until: int = 0) -> list[Event]:
        """Return what is remembered between two moments, in nanoseconds; 0 is open."""
        with self._lock:
            return [
                event
                for event in self._past
                if event.time >= since and (not until or event.time <= until)
            ]
