"""Handing events to extensions: in order, from one thread, and never in the way of anybody."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Mapping, Sequence

from drivetrain.calling import Driver
from drivetrain.extension import Event, ExtensionHooks

log = logging.getLogger("engine.extensions")


class Watchers:
    """The installed extensions, opened.

    Args:
        extensions: in the order of their names.
        settings: for ``extension_open``.
    """

    def __init__(
        self, extensions: Sequence[Driver[ExtensionHooks]], settings: Mapping[str, object]
    ) -> None:
        self.extensions: list[Driver[ExtensionHooks]] = []
        for extension in extensions:
            try:
                extension.call.extension_open(settings)
            except Exception as error:
                log.error("extension %s is left out: %s", extension.name, error)
                continue
            self.extensions.append(extension)
        self._queue: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        if any(extension.implements("event_emitted") for extension in self.extensions):
            self._thread = threading.Thread(target=self._run, name="extensions", daemon=True)
            self._thread.start()

    def emitted(self, event: Event) -> None:
        """Take an event, from any thread."""
        if self._thread is not None:
            self._queue.put(event)

    def _run(self) -> None:
        while (event := self._queue.get()) is not None:
            for extension in self.extensions:
                try:
                    extension.call.event_emitted(event)
                except Exception as error:
                    log.warning("extension %s, in event_emitted: %s", extension.name, error)

    def close(self) -> None:
        """Hand over what waits, and close the extensions."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join(10)
            self._thread = None
        for extension in self.extensions:
            try:
                extension.call.extension_close()
            except Exception as error:
                log.warning("extension %s, in extension_close: %s", extension.name, error)
        self.extensions = []
