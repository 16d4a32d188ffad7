"""What is remembered of a container: one JSON document each, written before any effect."""

from __future__ import annotations

import datetime
from typing import Any, Literal

import msgspec

from drivetrain_engine.containers.request.config import Config
from drivetrain_engine.containers.request.hostconfig import HostConfig

Json = dict[str, Any]
NEVER = "0001-01-01T00:00:00Z"

#: What was going on when the record was written. ``creating``, ``starting`` and ``removing`` mean
#: that effects of it may exist in part; start-up finishes or undoes them.
Phase = Literal["creating", "ready", "starting", "removing"]


def timestamp(nanoseconds: int) -> str:
    """Return RFC 3339 with nanoseconds, UTC, as Docker writes times."""
    seconds, fraction = divmod(nanoseconds, 10**9)
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    text = f"{fraction:09d}".rstrip("0")
    return moment.strftime("%Y-%m-%dT%H:%M:%S") + (f".{text}Z" if text else "Z")


def parse_timestamp(text: str) -> float:
    """Return the seconds since 1970 of what :func:`timestamp` wrote; 0.0 for never."""
    if text.startswith("0001"):
        return 0.0
    return datetime.datetime.fromisoformat(text).timestamp()


class MountPoint(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Something mounted into a container.

    Attributes:
        type: ``bind``, ``volume``, ``tmpfs`` or ``image``.
        source: path on the host for binds; name of the image; else empty.
        destination: absolute path in the container.
        name: of the volume.
        driver: of the volume.
        mode: as the user wrote it.
        writable: the container may write.
        propagation: of a bind; empty: the default.
        no_copy: leave an empty volume empty.
        populated: image content was copied in, or need not be.
        anonymous: the volume was made for this container.
        subpath: below the volume or image.
        options: further options of a tmpfs.
        size: of a tmpfs in bytes; 0: no limit of its own.
        permissions: of a tmpfs; ``None``: 1777.
        create: make a missing source of a bind.
        non_recursive: without what is mounted below the source.
        shallow_read_only: what is mounted below stays writable.
        from_mounts: it came from ``HostConfig.Mounts``.
    """

    type: Literal["bind", "volume", "tmpfs", "image"]
    source: str = ""
    destination: str
    name: str = ""
    driver: str = ""
    mode: str = ""
    writable: bool = True
    propagation: str = ""
    no_copy: bool = False
    populated: bool = False
    anonymous: bool = False
    subpath: str = ""
    options: tuple[str, ...] = ()
    size: int = 0
    permissions: int | None = None
    create: bool = False
    non_recursive: bool = False
    shallow_read_only: bool = False
    from_mounts: bool = False
    idmap: str = ""


class RunState(msgspec.Struct, kw_only=True):
    """How a container is doing; the booleans are Docker's: a paused one runs too."""

    running: bool = False
    paused: bool = False
    restarting: bool = False
    dead: bool = False
    oom_killed: bool = False
    pid: int = 0
    exit_code: int = 0
    error: str = ""
    started_at: str = NEVER
    finished_at: str = NEVER


class Record(msgspec.Struct, kw_only=True):
    """One container.

    Attributes:
        id: 64 hexadecimal digits.
        name: without a slash.
        created: RFC 3339.
        image: as the user named it.
        image_id: ``sha256:…``, or empty when it has no image.
        driver: of its writable layer.
        config, host: what was asked for, with the image's settings and defaults filled in.
        path, args: the command.
        networks: by name, what was asked of each (``EndpointSettings`` of the API).
        mounts: in the order they were asked for.
        logs: each ``LogSetup`` as JSON.
        phase: see :data:`Phase`.
        state: how it is doing.
        restart_count: restarts by the policy in a row.
        stopped_by_user: so that ``unless-stopped`` leaves it alone.
        started_once: it ran at least once.
        remove_volumes: its removal takes anonymous volumes along.
    """

    id: str
    name: str
    created: str
    image: str = ""
    image_id: str = ""
    driver: str = ""
    config: Config
    host: HostConfig
    path: str = ""
    args: list[str] = []
    networks: dict[str, Json] = {}
    mounts: list[MountPoint] = []
    logs: list[Json] = []
    phase: Phase = "creating"
    state: RunState = msgspec.field(default_factory=RunState)
    restart_count: int = 0
    stopped_by_user: bool = False
    started_once: bool = False
    remove_volumes: bool = False

    @property
    def status(self) -> str:
        """One word as in ``State.Status``."""
        state = self.state
        if self.phase == "removing":
            return "removing"
        if state.paused:
            return "paused"
        if state.restarting:
            return "restarting"
        if state.running:
            return "running"
        if state.dead:
            return "dead"
        return "created" if state.started_at == NEVER else "exited"

    @property
    def short_id(self) -> str:
        """The first twelve digits."""
        return self.id[:12]

    @property
    def labels(self) -> dict[str, str]:
        """Its labels."""
        return self.config.labels or {}
