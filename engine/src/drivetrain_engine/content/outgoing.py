"""Writing images into one tar that is both an archive of ``docker save`` and an OCI layout."""

from __future__ import annotations

import os
import shutil
import tarfile
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from drivetrain_engine.content.layout import (
    IMAGE_NAME,
    INDEX_TYPE,
    LAYOUT_FILE,
    REF_NAME,
    Layout,
)
from drivetrain_engine.content.model import Json, Record, platform_of
from drivetrain_engine.content.reference import parse_reference

_CHUNK = 1 << 20


def _header(name: str, size: int = 0, *, directory: bool = False) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size
    info.mode = 0o755 if directory else 0o644
    info.type = tarfile.DIRTYPE if directory else tarfile.REGTYPE
    return info.tobuf(tarfile.PAX_FORMAT)


def _padding(size: int) -> bytes:
    return bytes(-size % 512)


def _file(name: str, data: bytes) -> bytes:
    return _header(name, len(data)) + data + _padding(len(data))


def _index(selected: Sequence[tuple[Record, list[str]]]) -> Json:
    manifests = []
    for record, names in selected:
        plain = {**record.descriptor, "platform": platform_of(record.image.config)}
        for name in names:
            annotations = {IMAGE_NAME: name, REF_NAME: parse_reference(name).tag}
            manifests.append({**plain, "annotations": annotations})
        if not names:
            manifests.append(plain)
    return {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": manifests}


def _manifest(selected: Sequence[tuple[Record, list[str]]]) -> list[Json]:
    return [
        {
            "Config": "blobs/sha256/" + record.image.id[7:],
            "RepoTags": [parse_reference(name).familiar for name in names] or None,
            "Layers": ["blobs/sha256/" + layer.digest[7:] for layer in record.layers],
            "LayerSources": {
                diff_id: layer.descriptor
                for diff_id, layer in zip(record.image.diff_ids, record.layers, strict=True)
            },
        }
        for record, names in selected
    ]


class Saving:
    """A save under way: holds on to the blobs by hard links, whatever becomes of the images.

    Args:
        layout: where the blobs are.
        selected: the images, each with the full names that the archive gives it.
    """

    def __init__(self, layout: Layout, selected: Sequence[tuple[Record, list[str]]]) -> None:
        self._directory = layout.ingest / f"save-{os.urandom(8).hex()}"
        self._directory.mkdir()
        # a tar that is never read must not keep its blobs either
        self._finalizer = weakref.finalize(self, shutil.rmtree, self._directory, True)
        self._blobs = sorted({digest for record, _ in selected for digest in record.digests})
        try:
            for digest in self._blobs:
                os.link(layout.path(digest), self._directory / digest[7:])
        except BaseException:
            self.close()
            raise
        self._index = msgspec.json.encode(_index(selected))
        self._manifest = msgspec.json.encode(_manifest(selected))

    def chunks(self) -> Iterator[bytes]:
        """Yield the tar."""
        try:
            yield _header("blobs", directory=True) + _header("blobs/sha256", directory=True)
            for digest in self._blobs:
                yield from self._blob(self._directory / digest[7:])
            yield _file("index.json", self._index)
            yield _file("manifest.json", self._manifest)
            yield _file("oci-layout", LAYOUT_FILE) + bytes(1024)
        finally:
            self.close()

    def _blob(self, path: Path) -> Iterator[bytes]:
        with open(path, "rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            yield _header(f"blobs/sha256/{path.name}", size)
            while chunk := file.read(_CHUNK):
                yield chunk
            yield _padding(size)

    def close(self) -> None:
        """Let go of the blobs."""
        self._finalizer()
