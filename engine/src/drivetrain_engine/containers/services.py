"""What the parts of the containers service share."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from drivetrain_engine.containers.container import Container
from drivetrain_engine.containers.mountpoints import MountPoints
from drivetrain_engine.containers.rootfs import Rootfs
from drivetrain_engine.containers.settings import ContainerSettings
from drivetrain_engine.containers.store import Store

if TYPE_CHECKING:
    from drivetrain.registry import Registry
    from drivetrain_engine.containers.execs import Execs
    from drivetrain_engine.containers.logservice import LogService
    from drivetrain_engine.containers.shims import Shims
    from drivetrain_engine.content import Images
    from drivetrain_engine.layers import Layers
    from drivetrain_engine.networks import Networks
    from drivetrain_engine.state import Events
    from drivetrain_engine.volumes import Volumes


@dataclass(slots=True)
class Services:
    """The services below, the containers, and places.

    Attributes:
        root: of the containers' directories, one by id, kept as long as the container.
        exec_root: for what a reboot may take away.
        pool: runs what nobody waits for: exits, restarts.
    """

    root: Path
    exec_root: Path
    events: Events
    images: Images
    layers: Layers
    networks: Networks
    volumes: Volumes
    shims: Shims
    registry: Registry
    settings: ContainerSettings
    store: Store
    mounts: MountPoints
    rootfs: Rootfs
    pool: ThreadPoolExecutor
    execs: Execs = field(init=False)
    logs: LogService = field(init=False)

    def directory(self, container_id: str) -> Path:
        """Return a container's own directory."""
        return self.root / container_id

    def bundle(self, container_id: str) -> Path:
        """Return the directory with a container's OCI spec."""
        return self.exec_root / "bundles" / container_id

    def shm(self, container_id: str) -> Path:
        """Return where the shared memory that others may join is mounted."""
        return self.exec_root / "shm" / container_id

    def emit(self, container: Container, action: str, **attributes: str) -> None:
        """Tell about a container, with name, image and labels as Docker does."""
        record = container.record
        self.events.emit(
            "container",
            action,
            record.id,
            {**record.labels, "image": record.image, "name": record.name, **attributes},
        )
