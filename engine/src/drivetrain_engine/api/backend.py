"""What the routes work with: the services, and what the daemon knows about itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from drivetrain.calling import Driver
    from drivetrain.extension import ExtensionHooks
    from drivetrain.registry import Registry
    from drivetrain_engine.containers.service import Containers
    from drivetrain_engine.content import Images
    from drivetrain_engine.layers import Layers
    from drivetrain_engine.networks import Networks
    from drivetrain_engine.state import Events
    from drivetrain_engine.volumes import Volumes


@dataclass(frozen=True, slots=True)
class Facts:
    """What the daemon says about itself in ``info``; made anew for each request.

    Attributes:
        id: of this data root.
        root: the data root.
        name: the host's.
        labels: of the daemon.
        runtimes: path by name.
        pools: base and prefix length of the address pools.
        settings: all settings of the daemon by key.
    """

    id: str
    root: str
    name: str
    debug: bool
    labels: Sequence[str]
    storage_driver: str
    log_driver: str
    default_runtime: str
    runtimes: Mapping[str, str]
    init_binary: str
    live_restore: bool
    pools: Sequence[tuple[str, int]]
    seccomp_profile: str
    started: str
    exec_root: str
    settings: Mapping[str, object]
    warnings: Sequence[str] = ()


@dataclass(slots=True)
class Backend:
    """The services of one daemon."""

    registry: Registry
    events: Events
    images: Images
    layers: Layers
    networks: Networks
    volumes: Volumes
    containers: Containers
    facts: Callable[[], Facts]
    extensions: Sequence[Driver[ExtensionHooks]] = field(default_factory=tuple)
