"""How the checks of the storage kit get their driver, and the engine's part in them."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import pytest

from drivetrain.calling import Driver
from drivetrain.errors import NotSupported
from drivetrain.host import mounts, trees
from drivetrain.options import Options, parse_options
from drivetrain.storage import Change, StorageHooks, Use
from drivetrain.testing.base import Conformance
from drivetrain.testing.filesystems import file_system, loop_devices, mounted_below


class StorageKit(Conformance):
    """The base of all checks of storage drivers.

    Attributes:
        file_system: ``btrfs``, ``ext4`` or ``xfs``: the checks get a new one, mounted by a loop
            device; empty: the host's.
        file_system_make: further arguments of its mkfs.
        file_system_options: of its mount.
        file_system_size: of it in MiB; it takes up what is written.
        place: a directory below which the driver has its roots, such as one on a file system that
            was prepared; ``None``: the host's for temporary files.
        use: what the layers of the checks are made for.
        depth: how many parents a layer may have.
        odd_entries: layers can hold names that mean a deletion in an archive, ``.wh.…``, such of
            255 bytes, and extended attributes of symbolic links.
        parted_names: a file that has several names in a parent and is written by one of them shows
            the same content by each of them at every mount of the layer, whichever that is.
        kills: how often a process at work is killed.
    """

    family = "storage"
    file_system: ClassVar[str] = ""
    file_system_make: ClassVar[Sequence[str]] = ()
    file_system_options: ClassVar[Sequence[str]] = ()
    file_system_size: ClassVar[int] = 2048
    place: ClassVar[Path | str | None] = None
    use: ClassVar[Use] = "container"
    depth: ClassVar[int] = 128
    odd_entries: ClassVar[bool] = True
    parted_names: ClassVar[bool] = True
    kills: ClassVar[int] = 20

    @pytest.fixture(scope="class")
    @classmethod
    def _prepared(cls) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="storage-", dir=cls.place) as name:
            folder = Path(name)
            if not cls.file_system:
                yield folder
            else:
                with file_system(
                    cls.file_system,
                    folder,
                    size=cls.file_system_size,
                    make=cls.file_system_make,
                    options=cls.file_system_options,
                ) as place:
                    yield place
            assert mounted_below(folder) == []
            assert loop_devices(folder) == set()

    @pytest.fixture(autouse=True)
    def _opened(self, _prepared: Path) -> Iterator[None]:
        with tempfile.TemporaryDirectory(prefix="check-", dir=_prepared) as folder:
            self.base = Path(folder)
            self.root = self.make_root(self.base)
            self.parents: dict[str, tuple[str, ...]] = {}
            try:
                self.instance = self._open_or_skip()
                yield
                self.remove_all()
                self.instance.call.storage_close()
            finally:
                self.free_root(self.base)
            assert mounted_below(self.base) == []

    def make_root(self, base: Path) -> Path:
        """Return the driver's root below ``base``; override where it needs something special."""
        root = base / "driver"
        root.mkdir(mode=0o711)
        return root

    def free_root(self, base: Path) -> None:
        """Undo what ``make_root`` did."""

    def _open_or_skip(self) -> Driver[StorageHooks]:
        try:
            return self.open()
        except NotSupported as error:
            reason = f"storage driver {self.driver} cannot be used here: {error}"
            if os.environ.get("DRIVETRAIN_NO_SKIP"):
                pytest.fail(reason)
            pytest.skip(reason)

    def open(self) -> Driver[StorageHooks]:
        """Return a new instance at work in the same root, as after a start of the engine."""
        driver = self.new_driver()
        driver.call.storage_probe(self.root)
        driver.call.storage_open(self.root, self.parsed(driver, "storage_options"))
        return driver

    def layer_options(self, **given: str) -> Options:
        """Return options of a layer."""
        schema = self.instance.call.layer_options()
        return parse_options(f"storage driver {self.driver}", schema, given)

    def create(self, key: str, parents: Sequence[str] = (), **given: str) -> str:
        """Make a layer; it is removed after the check."""
        self.parents[key] = tuple(parents)
        options = self.layer_options(**given)
        self.instance.call.layer_create(key, tuple(parents), options, self.use)
        return key

    def remove(self, key: str) -> None:
        """Remove a layer."""
        self.instance.call.layer_remove(key)

    def remove_all(self) -> None:
        """Remove all layers, children first."""
        for key in sorted(self.parents, key=lambda k: -len(self.parents[k])):
            self.remove(key)

    @contextlib.contextmanager
    def mounted(self, key: str, read_only: bool = False) -> Iterator[Path]:
        """Mount a layer as the engine does, for the time of the context."""
        with tempfile.TemporaryDirectory(prefix="mnt-", dir=self.base) as folder:
            target = Path(folder)
            entries = self.instance.call.layer_mounts(key, self.parents[key], read_only)
            mounts.mount(entries, target)
            try:
                yield target
            finally:
                mounts.unmount(target)
                self.instance.call.layer_unmounted(key)

    @contextlib.contextmanager
    def parent_view(self, key: str) -> Iterator[Path | None]:
        """Mount the nearest parent of a layer read-only; ``None`` for a base layer."""
        if not self.parents[key]:
            yield None
            return
        with self.mounted(self.parents[key][0], read_only=True) as path:
            yield path

    def commit(self, key: str) -> str:
        """Commit a layer."""
        self.instance.call.layer_commit(key)
        return key

    def filled(self, key: str, parents: Sequence[str] = (), **files: str) -> str:
        """Make a committed layer with some files in its root."""
        self.create(key, parents)
        with self.mounted(key) as root:
            for name, text in files.items():
                (root / name).write_text(text)
        return self.commit(key)

    def chain(self, key: str) -> tuple[str, ...]:
        """Return a committed layer with its parents, nearest first: the parents of its child."""
        return (key, *self.parents[key])

    def compared(self, key: str, snapshot_time: int = 0) -> list[Change]:
        """Return the differences of a layer from its parent by comparing the two trees."""
        with self.mounted(key, read_only=True) as new, self.parent_view(key) as old:
            found = list(trees.compare(old, new, snapshot_time=snapshot_time))
        return [change for change in found if not change.path.startswith(b"/lost+found")]

    def told(self, key: str) -> list[Change]:
        """Return the differences from the parent as the engine gets them: the driver's if any."""
        found = self.instance.call.layer_changes(key, self.parents[key])
        if found is None:
            return self.compared(key, self.instance.call.layer_snapshot_time(key))
        return [change for change in found if not change.path.startswith(b"/lost+found")]

    def changes(self, key: str) -> list[tuple[str, str]]:
        """Return kind and path of each difference from the parent."""
        return [(change.kind, change.path.decode()) for change in self.told(key)]
