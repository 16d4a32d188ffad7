"""Image archives as ``docker save`` writes them, for loading."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from isal import igzip


def layer(files: Mapping[str, bytes | None]) -> bytearray:
    """Return the tar of a layer; ``None`` is a directory."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            if content is None:
                entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            else:
                entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content or b""))
    return bytearray(buffer.getvalue())


def write(
    path: Path, name: str, layers: Sequence[bytes | bytearray], *, packed: bool = False
) -> Path:
    """Write the archive of an image and return where it is.

    Args:
        path: where.
        name: of the image.
        layers: lowest first.
        packed: compress it all, as users do with ``docker save | gzip``.
    """
    with path.open("wb") as raw:
        file = igzip.IGzipFile(fileobj=raw, mode="wb", compresslevel=1) if packed else raw
        with tarfile.open(fileobj=file, mode="w|") as archive:
            for entry_name, data in _files(name, layers):
                entry = tarfile.TarInfo(entry_name)
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))
        if packed:
            file.close()
    return path


def _files(
    name: str, layers: Sequence[bytes | bytearray]
) -> Iterator[tuple[str, bytes | bytearray]]:
    digests = [hashlib.sha256(data).hexdigest() for data in layers]
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}" for digest in digests]},
            "history": [{"created": "2020-01-02T03:04:05Z"} for _ in digests],
        }
    ).encode()
    config_name = f"{hashlib.sha256(config).hexdigest()}.json"
    places = [f"{digest}/layer.tar" for digest in digests]
    yield from zip(places, layers, strict=True)
    yield config_name, config
    index = [{"Config": config_name, "RepoTags": [name], "Layers": places}]
    yield "manifest.json", json.dumps(index).encode()
