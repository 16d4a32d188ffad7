"""Archives and image stores for the tests of images."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import lzma
import tarfile
from collections.abc import Mapping
from pathlib import Path

import zstandard

from drivetrain_engine.content import Images
from drivetrain_engine.state import Events, State

COMPRESSORS = {
    "plain": lambda data: data,
    "gzip": gzip.compress,
    "zstd": zstandard.ZstdCompressor().compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
}


def tar(files: Mapping[str, bytes | str]) -> bytes:
    """Return a tar with these files; a string is the target of a symbolic link."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                archive.addfile(info)
            else:
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def config(*layers: bytes, **settings: object) -> bytes:
    """Return an image config for these plain layers."""
    return json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "created": "2020-01-02T03:04:05Z",
            "config": {"Cmd": ["sh"], **settings},
            "rootfs": {"type": "layers", "diff_ids": [digest(layer) for layer in layers]},
            "history": [
                {"created": "2020-01-02T03:04:05Z", "created_by": f"layer {number}"}
                for number, _ in enumerate(layers)
            ],
        }
    ).encode()


def docker_archive(
    layers: Mapping[str, bytes], *, tags=("app:1",), stored=None, image: bytes | None = None
) -> bytes:
    """Return what ``docker save`` wrote before version 25.

    Args:
        layers: plain layers by name.
        tags: names of the image.
        stored: the layers as the archive has them, where not plain.
        image: its config, where not the fitting one.
    """
    image = config(*layers.values()) if image is None else image
    name = digest(image)[7:] + ".json"
    manifest = [
        {
            "Config": name,
            "RepoTags": list(tags) or None,
            "Layers": [f"{layer}/layer.tar" for layer in layers],
        }
    ]
    files = {f"{layer}/layer.tar": data for layer, data in (stored or layers).items()}
    return tar({**files, name: image, "manifest.json": json.dumps(manifest).encode()})


class Store:
    """An image store with state and events."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.state = State(root.with_name(root.name + ".db"))
        self.events = Events()
        self.told: list[tuple[str, str]] = []
        self.events.listeners.append(
            lambda event: self.told.append((event.action, event.attributes.get("name", "")))
        )
        self.images = Images(root=root, state=self.state, events=self.events)

    def reopened(self) -> Images:
        """Return the images as after a new start of the engine."""
        self.images = Images(root=self.root, state=self.state, events=self.events)
        return self.images

    def load(self, data: bytes) -> list[str]:
        return list(self.images.load(io.BytesIO(data)))

    def blobs(self) -> set[str]:
        return {path.name for path in (self.root / "blobs" / "sha256").iterdir()}

    def leftovers(self) -> list[Path]:
        """Return what a failed operation left behind."""
        return [*(self.root / "ingest").iterdir()]

    def content(self, name: str, index: int = 0) -> bytes:
        """Return an inflated layer."""
        with self.images.open_layer(self.images.get(name), index) as stream:
            return b"".join(map(bytes, stream.pieces()))
