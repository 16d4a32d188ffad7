"""A volume service for the tests of volumes."""

from __future__ import annotations

from pathlib import Path

from drivetrain.host import mounts
from drivetrain.registry import Registry
from drivetrain_engine.state import Events, State
from drivetrain_engine.volumes import Volumes

TMPFS = {"type": "tmpfs", "device": "tmpfs", "o": "size=1m"}


class Service:
    """A volume service that can be started anew."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.events = Events()
        self.told: list[str] = []
        self.events.listeners.append(lambda event: self.told.append(event.action))
        self.state = State(root / "state.db")
        self.start()

    def start(self) -> Volumes:
        """Start as after the end, or the death, of the engine."""
        self.volumes = Volumes(
            root=self.root / "volumes", state=self.state, registry=Registry(), events=self.events
        )
        return self.volumes

    def mounted(self) -> list[str]:
        return [
            entry.target
            for entry in mounts.mount_table()
            if entry.target.startswith(f"{self.root}/")
        ]

    def clear(self) -> None:
        """Unmount what a test left mounted."""
        for target in self.mounted():
            mounts.unmount(Path(target))
