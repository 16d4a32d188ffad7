"""The contract of volume drivers.

The life of a volume
====================

A *volume* is a directory tree that outlives containers. The engine owns names, references,
copying of image content into an empty volume, and subpaths; a driver provides the tree.

1. ``volume_probe`` and ``volume_open``, as for every family.
2. ``volume_create("data", options)`` makes a record of it; storage may wait for the first mount.
3. ``volume_mount("data", options)`` is called when the first container needs it and returns the
   directory; while it is mounted the path stays the same. The engine counts further users.
4. ``volume_unmount("data")`` when the last one is gone; then ``volume_remove("data")``.

A whole driver::

    class Folders:
        @hookimpl
        def volume_open(self, root, options):
            self.root = root

        @hookimpl
        def volume_create(self, name):
            (self.root / name).mkdir(exist_ok=True)
            return True

        @hookimpl
        def volume_mount(self, name):
            return self.root / name

        @hookimpl
        def volume_remove(self, name):
            shutil.rmtree(self.root / name, ignore_errors=True)
            return True

Rules for all hooks
===================

One at a time for the same volume, at once for different ones, from worker threads. May be
repeated after a crash. A hook has 60 s; one that talks to a server should give up sooner and raise
``Unavailable``. Hooks with nothing to say return ``True``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from drivetrain.markers import hookspec
from drivetrain.options import Option, Options
from drivetrain.storage import Usage


@dataclass(frozen=True, slots=True)
class VolumeTraits:
    """What kind of driver it is.

    Attributes:
        scope: ``local`` to this host, or ``global``: the same volumes on every host.
        own_state: the backend knows volumes of its own, which ``volume_list`` tells.
    """

    scope: Literal["local", "global"] = "local"
    own_state: bool = False


@dataclass(frozen=True, slots=True)
class VolumeInfo:
    """A volume as a backend with state of its own tells it."""

    name: str
    path: Path | None = None
    created: str = ""
    status: Mapping[str, str] = field(default_factory=dict)


class VolumeHooks:
    """What a volume driver may implement; open, create, mount and remove must be."""

    @hookspec(firstresult=True)
    def volume_probe(self) -> bool | None:
        """Find out whether this host can carry the driver.

        Raises:
            NotSupported: it cannot; the message says what is missing and how to get it.
        """

    @hookspec(firstresult=True)
    def volume_traits(self) -> VolumeTraits:
        """Optional: what kind of driver it is."""

    @hookspec(firstresult=True)
    def volume_options(self) -> Sequence[Option]:
        """Optional: the options of a volume (``volume create --opt``). Mark secrets as such."""

    @hookspec(firstresult=True)
    def volume_open(self, root: Path) -> bool | None:
        """Start work; ``root`` is an existing directory of the driver's own, mode 0711."""

    @hookspec(firstresult=True)
    def volume_create(self, name: str, options: Options) -> bool | None:
        """Make a volume.

        Guaranteed before: ``name`` matches ``[a-zA-Z0-9][a-zA-Z0-9_.-]*`` and is unused.

        Args:
            name: the volume.
            options: values for what ``volume_options`` declares. The engine keeps them and gives
                them again to every later hook.

        Raises:
            InvalidArgument: options that contradict each other; nothing is left behind.
            NotSupported: an option that this host cannot honour.
        """

    @hookspec(firstresult=True)
    def volume_mount(self, name: str, options: Options) -> Path:
        """Provide the tree and return its absolute path, which stays until the unmount.

        Repeating it for a mounted volume (after a crash of the engine) returns the same path.

        Raises:
            Unavailable: the backend does not answer.
        """

    @hookspec(firstresult=True)
    def volume_unmount(self, name: str, options: Options) -> bool | None:
        """Optional: the last user is gone. An extra call is harmless."""

    @hookspec(firstresult=True)
    def volume_remove(self, name: str, options: Options) -> bool | None:
        """Remove a volume and its data. It is not mounted. Unknown names are fine."""

    @hookspec(firstresult=True)
    def volume_path(self, name: str, options: Options) -> Path | None:
        """Optional: where it is or would be mounted, for ``inspect``; no I/O."""

    @hookspec(firstresult=True)
    def volume_usage(self, name: str, options: Options) -> Usage | None:
        """Optional: what it takes up; ``None``: the engine counts the files if it is local."""

    @hookspec(firstresult=True)
    def volume_snapshot(self, name: str, snapshot: str, options: Options) -> bool | None:
        """Optional: keep the state of ``name`` now as ``snapshot``, read-only.

        Idempotent for the same pair. ``None`` from the defaults: the engine copies.
        """

    @hookspec(firstresult=True)
    def volume_clone(self, source: str, name: str, options: Options) -> bool | None:
        """Optional: make the volume ``name`` with the content of a volume or snapshot."""

    @hookspec(firstresult=True)
    def volume_restore(self, name: str, source: str, options: Options) -> bool | None:
        """Optional: give ``name`` the content of the volume or snapshot ``source`` instead of its
        own. Neither is mounted. Both have the same options.

        Repeated after a crash, it ends with the same content. ``None`` from the defaults: the
        engine copies the files.
        """

    @hookspec(firstresult=True)
    def volume_list(self) -> Sequence[VolumeInfo]:
        """Optional: the volumes that the backend knows.

        Raises:
            Unavailable: it does not answer; the engine lists what it knows, with a warning.
        """

    @hookspec(firstresult=True)
    def volume_close(self) -> bool | None:
        """Optional: the process ends. Mounted volumes stay mounted. May be called twice."""
