"""The store on disk: an OCI image layout, which skopeo, umoci and others read.

``index.json`` names every image; it is replaced atomically, after the blobs it needs are in
place. Blobs that nothing names are swept, so a crash leaves at most a little to sweep.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any

import msgspec

from drivetrain.errors import Internal, NotFound
from drivetrain_engine.content.staging import Staged, Staging

Descriptor = dict[
    str, Any
]  # as in the OCI specification: mediaType, digest, size, annotations, platform

INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
REF_NAME = "org.opencontainers.image.ref.name"
IMAGE_NAME = "io.containerd.image.name"
LAYOUT_FILE = b'{"imageLayoutVersion":"1.0.0"}'

_SYNCED = 1 << 20
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def digest_of(data: bytes) -> str:
    """Return ``sha256:…`` of ``data``."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def is_digest(text: object) -> bool:
    """Tell whether this is a digest that the store can have."""
    return isinstance(text, str) and _DIGEST.fullmatch(text) is not None


def write_atomically(path: Path, data: bytes) -> None:
    """Replace a file so that a crash leaves the old or the new content."""
    temporary = path.with_name(f".{path.name}.new")
    with open(temporary, "wb") as file:
        file.write(data)
        file.flush()
        os.fdatasync(file.fileno())
    os.replace(temporary, path)


class Layout:
    """Blobs and index of an OCI image layout. The caller serialises changes.

    Args:
        root: made when missing.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.blobs = root / "blobs" / "sha256"
        self.ingest = root / "ingest"
        self.blobs.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(self.ingest, ignore_errors=True)
        self.ingest.mkdir(mode=0o700)
        layout = root / "oci-layout"
        if not layout.exists():
            write_atomically(layout, LAYOUT_FILE)
        if not (root / "index.json").exists():
            self.write_index([])

    def staging(self) -> Staging:
        """Return a new staging directory."""
        return Staging(self.ingest)

    def path(self, digest: str) -> Path:
        """Return where the blob is or would be.

        Raises:
            Internal: that is no digest.
        """
        if not is_digest(digest):
            raise Internal(f"{digest!r} is not a SHA-256 digest")
        return self.blobs / digest[7:]

    def keep(self, staged: Staged) -> None:
        """Move a staged file into the store; nothing to do when the store has it."""
        target = self.path(staged.digest)
        if not target.exists():
            staged.path.chmod(0o644)
            if staged.size < _SYNCED:
                # manifests and configs outlive a loss of power; a lost layer is noticed when read
                with open(staged.path, "rb") as file:
                    os.fdatasync(file.fileno())
            staged.path.rename(target)

    def exists(self, digest: str) -> bool:
        """Tell whether the store has the blob."""
        return self.path(digest).exists()

    def open(self, digest: str) -> io.FileIO:
        """Open a blob.

        Raises:
            NotFound: the store does not have it.
        """
        try:
            return open(self.path(digest), "rb", buffering=0)
        except FileNotFoundError:
            raise NotFound(f"the image store has no blob {digest}; load the image again") from None

    def read(self, digest: str) -> bytes:
        """Return a small blob, verified.

        Raises:
            NotFound: the store does not have it.
            Internal: its content is not that of its digest.
        """
        with self.open(digest) as file:
            data = file.read()
        if digest_of(data) != digest:
            raise Internal(f"blob {digest} of the image store is damaged; load the image again")
        return data

    def read_index(self) -> list[Descriptor]:
        """Return the descriptors of ``index.json``.

        Raises:
            Internal: it is damaged.
        """
        path = self.root / "index.json"
        try:
            index = msgspec.json.decode(path.read_bytes(), type=dict)
            return list(index.get("manifests") or [])
        except (OSError, msgspec.DecodeError) as error:
            raise Internal(f"cannot read the image index {path}: {error}") from error

    def write_index(self, manifests: list[Descriptor]) -> None:
        """Replace ``index.json``."""
        index = {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": manifests}
        write_atomically(self.root / "index.json", msgspec.json.encode(index))

    def sweep(self, keep: Collection[str]) -> int:
        """Remove all blobs but these; return the bytes that became free."""
        names = {digest[7:] for digest in keep}
        freed = 0
        with os.scandir(self.blobs) as entries:
            for entry in entries:
                if entry.name not in names and entry.is_file(follow_symlinks=False):
                    freed += entry.stat().st_size
                    os.unlink(entry.path)
        return freed
