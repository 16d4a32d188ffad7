"""The contract of storage drivers.

The life of a layer
===================

A *layer* is a directory tree on top of a chain of parents. The engine's layer store chooses its
key, knows its parents and its kind, counts who uses it, and **alone mounts**: a driver only makes
room on disk and says how a layer is to be mounted. That is what makes a driver fit on a page.

1. ``storage_probe`` asks whether this host can carry the driver under a data root at all.
2. ``storage_open`` hands over the driver's own directory, once per process.
3. To unpack an image layer the engine calls ``layer_create("k1", parents=())``, mounts what
   ``layer_mounts("k1")`` returns, writes the files, unmounts, and calls ``layer_commit("k1")``.
   From then on ``k1`` never changes, and may be the parent of other layers.
4. The next one is ``layer_create("k2", parents=("k1",))``; parents come nearest first.
5. A container's writable layer is ``layer_create("c1", parents=("k2", "k1"))`` and is never
   committed. Its mounts stay while the container runs.
6. A committed layer is looked at by ``layer_mounts("k2", read_only=True)``: a *view*.
7. ``layer_remove`` is called children first, never while mounted, and again after a crash.

A whole driver::

    from drivetrain import hookimpl
    from drivetrain.storage import Mount

    class Copies:
        @hookimpl
        def storage_open(self, root, options):
            self.root = root

        @hookimpl
        def layer_create(self, key, parents):
            source = self.root / parents[0] if parents else None
            if source:
                subprocess.run(["cp", "-a", source, self.root / key], check=True)
            else:
                (self.root / key).mkdir(mode=0o755)

        @hookimpl
        def layer_mounts(self, key, read_only):
            return (Mount("bind", str(self.root / key), ("rbind", "ro" if read_only else "rw")),)

        @hookimpl
        def layer_commit(self, key):
            return True

        @hookimpl
        def layer_remove(self, key):
            shutil.rmtree(self.root / key, ignore_errors=True)
            return True

and its entry point, in ``pyproject.toml``::

    [project.entry-points."drivetrain.storage"]
    copies = "my_package:Copies"

Rules for all hooks
===================

The core calls hooks one at a time for the same layer and at once for different ones, from worker
threads. Every hook may be repeated after a crash: creating what half exists starts anew, removing
what is gone is fine. A hook has 120 s. Since pluggy takes the first result that is not ``None``,
hooks that have nothing to say return ``True``; returning ``None`` is accepted too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from drivetrain.markers import hookspec
from drivetrain.options import Option, Options

#: Where a path in a mount's source or options begins with it: the target of the mount. So a file
#: system can be mounted, and over it a directory of itself; see :class:`Mount`.
TARGET = "{target}"

#: What a layer is made for: ``image``: it is filled and committed; ``container``: it is written
#: by a container; ``throwaway``: by one that is removed when it ends (``run --rm``), so that
#: nobody misses what a power cut takes.
Use = Literal["image", "container", "throwaway"]


@dataclass(frozen=True, slots=True)
class Mount:
    """What to give to mount(2); the engine adds the target.

    A layer that lives inside a file system of its own is two mounts, the second over the first,
    and ``TARGET`` stands for where the first one is::

        (Mount("ext4", "/dev/loop3"), Mount("bind", f"{TARGET}/diff", ("ro",)))

    Attributes:
        type: ``bind``, ``overlay``, ``xfs``, … as in /proc/filesystems; ``fuse.NAME`` runs the
            program NAME, as mount(8) does.
        source: the device, the directory for a bind mount, or a free name.
        options: as for mount(8): flags such as ``ro`` and ``nodev``, and data of the file system.
    """

    type: str
    source: str
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Usage:
    """What a layer itself takes up, without its parents.

    Attributes:
        size: bytes allocated.
        inodes: entries, directories included.
    """

    size: int
    inodes: int


@dataclass(frozen=True, slots=True)
class Change:
    """One difference of a layer from its nearest parent.

    Attributes:
        path: absolute inside the layer, as bytes, since names need not be UTF-8.
        kind: ``added``, ``modified`` or ``deleted``.
    """

    path: bytes
    kind: Literal["added", "modified", "deleted"]


class StorageHooks:
    """What a storage driver may implement; the first six must be."""

    @hookspec(firstresult=True)
    def storage_probe(self, root: Path) -> bool | None:
        """Find out whether this host can carry the driver, by trying it for real.

        Args:
            root: an existing directory on the file system that would hold the layers; leave it
                as it was.

        Raises:
            NotSupported: it cannot; the message says what is missing and how to get it.
        """

    @hookspec(firstresult=True)
    def storage_open(self, root: Path, options: Options) -> bool | None:
        """Start work in ``root``, which is the driver's alone.

        Called once, before any other hook but the probe and the schemas. What an earlier
        process left half done is mended or removed here.

        Args:
            root: an existing directory, mode 0700 or 0711, empty the first time.
            options: values for what ``storage_options`` declares.

        Raises:
            InvalidArgument: options that contradict each other, or what is on disk.
            NotSupported: as for ``storage_probe``.
        """

    @hookspec(firstresult=True)
    def layer_create(
        self, key: str, parents: Sequence[str], options: Options, use: Use
    ) -> bool | None:
        """Make a writable layer.

        Guaranteed before: ``key`` is unused and matches ``[a-z0-9]{1,64}``; all parents exist
        and are committed.

        Args:
            key: the new layer.
            parents: keys of the chain, nearest first; empty for a base layer, whose root must be
                an empty directory, 0755, root:root. Above parents the root has the mode, owner
                and extended attributes of the nearest one's.
            options: values for what ``layer_options`` declares (``--storage-opt``).
            use: what it is made for; a default limit is for layers of containers only.

        Raises:
            Exhausted: no space; nothing is left behind.
            NotSupported: an option that this host cannot honour, such as ``size``.
        """

    @hookspec(firstresult=True)
    def layer_mounts(self, key: str, parents: Sequence[str], read_only: bool) -> Sequence[Mount]:
        """Say how to mount a layer; do not mount.

        Several mounts are made one after the other at the same target. May be called any number
        of times; devices that have to be activated are activated here.

        Args:
            key: the layer.
            parents: its chain, nearest first, as at its creation.
            read_only: mount it so that no write can reach it; always so for committed layers.
        """

    @hookspec(firstresult=True)
    def layer_unmounted(self, key: str) -> bool | None:
        """Optional: the last mount of the layer is gone, or none could be made.

        Devices that ``layer_mounts`` activated can be deactivated.
        """

    @hookspec(firstresult=True)
    def layer_commit(self, key: str) -> bool | None:
        """Make a writable layer immutable; from now on it may be a parent. It is not mounted."""

    @hookspec(firstresult=True)
    def layer_remove(self, key: str) -> bool | None:
        """Remove a layer and everything it takes up.

        Guaranteed before: not mounted, no children. Unknown keys are fine.
        """

    @hookspec(firstresult=True)
    def layer_usage(self, key: str, parents: Sequence[str]) -> Usage | None:
        """Optional: what the layer itself takes up; ``None``: the engine counts its changes."""

    @hookspec(firstresult=True)
    def layer_metadata(self, key: str, parents: Sequence[str]) -> Mapping[str, str] | None:
        """Optional: what ``inspect`` shows of a container's layer, such as ``UpperDir``.

        It becomes ``GraphDriver.Data`` of the API; names are Docker's where Docker has a driver of
        that name. ``MergedDir``, where a running container's root is mounted, is the engine's.
        """

    @hookspec(firstresult=True)
    def layer_changes(self, key: str, parents: Sequence[str]) -> Iterable[Change] | None:
        """Optional fast path: every difference from the nearest parent, parents before children.

        ``None``, and the engine compares the two mounted trees (which sees a change of content,
        type, mode, owner, xattrs, link target, device number and times). A directory that was
        removed and made anew is reported ``modified``, with a ``deleted`` for each entry gone.
        """

    @hookspec(firstresult=True)
    def layer_snapshot_time(self, key: str) -> int:
        """Optional: when the layer was made as a snapshot of its nearest parent's blocks.

        Whatever nobody touched since has the parent's inode number and change time then, and the
        engine, when it compares the two trees, need not read it.

        Returns:
            Nanoseconds since the epoch; 0: it is no such snapshot.
        """

    @hookspec(firstresult=True)
    def storage_options(self) -> Sequence[Option]:
        """Optional: the options of the driver (``--storage-opt`` of the daemon)."""

    @hookspec(firstresult=True)
    def layer_options(self) -> Sequence[Option]:
        """Optional: the options of a container's writable layer (``run --storage-opt``)."""

    @hookspec(firstresult=True)
    def storage_status(self) -> Sequence[tuple[str, str]]:
        """Optional: pairs for ``engine info``, such as ``("Backing Filesystem", "extfs")``."""

    @hookspec(firstresult=True)
    def storage_close(self) -> bool | None:
        """Optional: the process ends. Layers and running containers stay. May be called twice."""
