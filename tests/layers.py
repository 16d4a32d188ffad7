"""The layer store of a data root without a daemon, for tests of drivers side by side."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
from collections.abc import Mapping
from pathlib import Path

from tests.images import docker_archive

from drivetrain.errors import EngineError
from drivetrain.registry import Registry
from drivetrain.testing.entries import every_kind
from drivetrain_engine.content import Image, Images
from drivetrain_engine.layers import Layers
from drivetrain_engine.layers.migration import Progress
from drivetrain_engine.state import Events, State


def supported(root: Path) -> tuple[str, ...]:
    """Return the storage drivers that a directory can carry."""
    found = []
    registry = Registry()
    for name in registry.names("storage"):
        place = root / f"probe-{name}"
        place.mkdir()
        try:
            registry.storage(name).call.storage_probe(place)
        except EngineError:
            continue
        finally:
            place.rmdir()
        found.append(name)
    return tuple(found)


class Store:
    """The layer store of a data root.

    Args:
        root: the data root.
        default: the default driver.
        options: as given (``--storage-opt``).
    """

    def __init__(
        self, root: Path, default: str = "vfs", options: Mapping[str, str] | None = None
    ) -> None:
        root.mkdir(exist_ok=True)
        self.root = root
        self._default, self._options = default, options
        self._open()

    def _open(self) -> None:
        root = self.root
        self.state = State(root / "state.db")
        events = Events()
        self.images = Images(root=_made(root / "content"), state=self.state, events=events)
        self.layers = Layers(
            root=_made(root / "storage", 0o711),
            mounts_root=_made(root / "mounts", 0o711),
            state=self.state,
            images=self.images,
            registry=Registry(),
            default=self._default,
            options=self._options,
        )

    def image(self) -> Image:
        """Return an image of two layers, which is made the first time."""
        try:
            return self.images.get("app:1")
        except EngineError:
            archive = docker_archive({"base": base_layer(), "top": top_layer()})
            list(self.images.load(io.BytesIO(archive)))
            return self.images.get("app:1")

    def container(self, container_id: str, driver: str, image: Image | None = None) -> str:
        """Make a container's layer."""
        self.layers.create(container_id, image, driver=driver)
        return container_id

    def migrate(self, container_id: str, target: str, image: Image | None = None) -> list[Progress]:
        """Move a layer, as the daemon does."""
        with self.layers.held(container_id):
            return list(self.layers.migrations.migrate(container_id, image, target))

    def reopen(self) -> None:
        """Open everything as after a kill of the daemon."""
        self.state.close()
        self._open()

    def clear(self) -> None:
        """Remove everything."""
        for container in {record.container for record in self.layers.records()} - {""}:
            self.layers.remove(container)
        for image in self.images.list():
            self.images.remove(image.id, force=True)
        self.layers.discard_image_layers()

    def close(self) -> None:
        """Leave, as at the end of the daemon."""
        self.layers.close()
        self.state.close()


def _made(path: Path, mode: int = 0o700) -> Path:
    path.mkdir(mode=mode, exist_ok=True)
    return path


def _archive(entries: Mapping[str, bytes | str | None]) -> bytes:
    """Return a tar: bytes are a file's, a string is what a hard link leads to, ``None``: folder."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in entries.items():
            member = tarfile.TarInfo(name)
            member.mode, member.mtime = 0o644, 1_600_000_000
            if content is None:
                member.type, member.mode = tarfile.DIRTYPE, 0o755
            elif isinstance(content, str):
                member.type, member.linkname = tarfile.LNKTYPE, content
            else:
                member.size = len(content)
            archive.addfile(member, io.BytesIO(content) if isinstance(content, bytes) else None)
    return buffer.getvalue()


def base_layer() -> bytes:
    """Return a layer with what containers change: links, and folders without entries."""
    entries: dict[str, bytes | str | None] = {"etc": None, "opaque": None, "gone": None}
    for number in range(200):
        entries[f"etc/{number}"] = b"%d" % number
    for folder in ("opaque", "gone", "implied/below"):
        for number in range(5):
            entries[f"{folder}/{number}"] = b"%d" % number
    entries |= {"linked": b"several names", "implied/linked": "linked", "one": b"1", "two": "one"}
    return _archive(entries)


def top_layer() -> bytes:
    """Return a layer that changes the base."""
    return _archive({"etc/1": b"changed", "implied/.wh.below": b"", "later/file": b"x"})


def live(root: Path, files: int, *, odd_entries: bool = True) -> None:
    """Do to the image's tree what containers do, and make many files of every kind.

    Args:
        root: the container's, mounted.
        files: about how many entries.
        odd_entries: see ``every_kind``.
    """
    (root / "etc" / "5").write_text("changed")
    (root / "etc" / "6").unlink()
    (root / "etc" / "7").chmod(0o4755)
    os.chown(root / "etc" / "8", 8, 9)
    os.utime(root / "etc" / "9", ns=(5, 10**18 + 7))
    with (root / "one").open("a") as file:  # parts the names on some drivers, not on others
        file.write("more")
    os.link(root / "linked", root / "etc" / "a third name")
    shutil.rmtree(root / "gone")
    shutil.rmtree(root / "opaque")
    (root / "opaque").mkdir()
    (root / "opaque" / "new").touch()
    (root / "opaque" / "0").write_text("anew")
    (root / "etc" / "10").unlink()
    (root / "etc" / "10").mkdir()
    root.chmod(0o750)
    per_set = 75
    for number in range(max(1, files // per_set // 4)):
        folder = root / f"set{number}"
        folder.mkdir()
        every_kind(folder, times=10**18 + number, odd_entries=odd_entries)
    left = files - sum(len(names) + len(found) for _, names, found in os.walk(root))
    for number in range(max(0, left)):
        if number % 100 == 0:
            folder = root / f"many{number}"
            folder.mkdir()
        (folder / str(number)).write_bytes(b"%d" % number)
