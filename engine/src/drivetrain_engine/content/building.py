"""Making images: from archives, from a root file system, from another image and a layer.

Content is staged first; then blobs, record and names appear in one step under the lock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import msgspec

from drivetrain.errors import InvalidArgument, NotFound
from drivetrain_engine.content.changes import apply_changes
from drivetrain_engine.content.compression import Readable, layer_media_type, open_archive
from drivetrain_engine.content.incoming import Incoming
from drivetrain_engine.content.layout import MANIFEST_TYPE
from drivetrain_engine.content.model import (
    Image,
    Json,
    Layer,
    Record,
    host_platform,
    make_manifest,
    now,
    parse_platform,
)
from drivetrain_engine.content.records import Records, make_image
from drivetrain_engine.content.reference import Reference, parse_target
from drivetrain_engine.content.staging import Staged, Staging
from drivetrain_engine.content.tarstream import check_tar


def _layer(staged: Staged) -> Layer:
    descriptor = {
        "mediaType": layer_media_type(staged.compression),
        "digest": staged.digest,
        "size": staged.size,
    }
    return Layer(descriptor, staged.diff_size)


def _reader(chunks: Iterator[bytes]) -> Callable[[int], bytes]:
    """Return a read function over chunks of any length."""

    def read(_size: int) -> bytes:
        return next((chunk for chunk in chunks if chunk), b"")

    return read


class Builder:
    """Adds images to the store.

    Args:
        records: the images.
    """

    def __init__(self, records: Records) -> None:
        self._records = records
        self._layout = records.layout

    def keep(self, incoming: Sequence[Incoming]) -> list[str]:
        """Put the images of an archive into the store in one step; return what to tell."""
        with self._records.changing():
            return self._keep(incoming)

    def keep_pulled(self, item: Incoming) -> bool:
        """Put a pulled image into the store; return whether its name was new, or led elsewhere."""
        with self._records.changing():
            config = msgspec.json.decode(item.config.read(), type=dict)
            image = make_image(item.config.digest, config, item.layers)
            record = self._store(Record(image, item.descriptor, item.layers, {}), item.files)
            changed = [record]
            (reference,) = item.tags
            new = self._records.by_name(reference) is not record
            if new and (before := self._records.tag(reference, record)) is not None:
                changed.append(before)
            self._records.emit("pull", reference.familiar, name=reference.familiar_repository)
            self._records.save(changed)
        return new

    def _keep(self, incoming: Sequence[Incoming]) -> list[str]:
        lines = []
        stored = []
        for item in incoming:
            config = msgspec.json.decode(item.config.read(), type=dict)
            image = make_image(item.config.digest, config, item.layers)
            record = Record(image, item.descriptor, item.layers, {})
            stored.append(self._store(record, item.files))
        changed = [*stored]
        try:
            for record, item in zip(stored, incoming, strict=True):
                for reference in item.tags:
                    before = self._records.tag(reference, record)
                    if before is not None:
                        changed.append(before)
                        lines.append(
                            f"The image {reference.familiar} already exists, renaming the old "
                            f"one with ID {before.image.id} to empty string"
                        )
                    lines.append(f"Loaded image: {reference.familiar}")
                    self._records.emit("load", record.image.id, name=reference.familiar)
                if not item.tags:
                    lines.append(f"Loaded image ID: {record.image.id}")
                    self._records.emit("load", record.image.id, name=record.image.id)
        finally:
            self._records.save(changed)
        return lines

    def _store(self, record: Record, files: Iterable[Staged]) -> Record:
        """Move an image's files into the store and remember it, if it is not there yet."""
        known = self._records.by_id(record.image.id)
        if known is not None and all(self._layout.exists(digest) for digest in known.digests):
            return known
        for staged in files:
            self._layout.keep(staged)
        if not all(self._layout.exists(digest) for digest in record.digests):
            raise NotFound("the parent image was removed while the new one was made")
        if known is not None:
            # blobs were lost; loading the image again mends it
            known.descriptor, known.layers = record.descriptor, record.layers
        return self._records.add(record)

    def import_tar(
        self, stream: Readable, reference: str, changes: Sequence[str], message: str, platform: str
    ) -> Image:
        """Make an image of a root file system; see ``Images.import_tar``."""
        target = parse_target(reference) if reference else None
        settings = apply_changes({}, changes)
        system, architecture, variant = parse_platform(platform)
        created = now()
        config: Json = {
            "architecture": architecture,
            "os": system,
            **({"variant": variant} if variant else {}),
            "created": created,
            "comment": message,
            "config": settings,
            "history": [{"created": created, "comment": message}],
        }
        with self._layout.staging() as staging:
            inflated = open_archive(stream, "root file system")
            layer = staging.stream(inflated.read, "root file system", inflate=False)
            if not check_tar(layer.path) and not layer.size:
                raise InvalidArgument("cannot import: the tar archive is empty")
            config["rootfs"] = {"type": "layers", "diff_ids": [layer.diff_id]}
            return self._make(staging, config, [_layer(layer)], [layer], target, "import")

    def _make(
        self,
        staging: Staging,
        config: Json,
        layers: Sequence[Layer],
        files: Sequence[Staged],
        target: Reference | None,
        action: str = "",
        parent: str = "",
    ) -> Image:
        """Store a new image, name it, and say so."""
        data = staging.from_bytes(msgspec.json.encode(config))
        manifest = staging.from_bytes(make_manifest(data.read(), data.digest, layers))
        descriptor = {
            "mediaType": MANIFEST_TYPE,
            "digest": manifest.digest,
            "size": manifest.size,
        }
        image = make_image(data.digest, config, layers, parent)
        with self._records.changing():
            record = Record(image, descriptor, tuple(layers), {})
            record = self._store(record, [data, manifest, *files])
            changed = [record]
            if target is not None and (before := self._records.tag(target, record)):
                changed.append(before)
            self._records.save(changed)
            if action:
                name = target.familiar if target else record.image.id
                self._records.emit(action, record.image.id, name=name)
            if target is not None:
                self._records.emit("tag", record.image.id, name=target.familiar)
            return record.image

    def commit(
        self,
        parent: Image | None,
        layer: Iterator[bytes] | None,
        config: dict[str, Any],
        author: str,
        comment: str,
        reference: str,
    ) -> Image:
        """Make an image of another one and a layer; see ``Images.commit``."""
        target = parse_target(reference) if reference else None
        base = parent.config if parent is not None else {}
        layers = self._records.find(parent.id).layers if parent is not None else ()
        system, architecture = host_platform()
        created = now()
        entry: Json = {
            "created": created,
            "author": author,
            "created_by": " ".join(config.get("Cmd") or []),
            "comment": comment,
        }
        with self._layout.staging() as staging:
            files = []
            if layer is not None:
                staged = staging.stream(_reader(layer), "the container's changes", inflate=False)
                if check_tar(staged.path):
                    files.append(staged)
            if not files:
                entry["empty_layer"] = True
            diff_ids = [*(parent.diff_ids if parent else ()), *(file.diff_id for file in files)]
            new = {
                "architecture": base.get("architecture") or architecture,
                "os": base.get("os") or system,
                **({"variant": base["variant"]} if base.get("variant") else {}),
                "created": created,
                "author": author,
                "config": config,
                "rootfs": {"type": "layers", "diff_ids": diff_ids},
                "history": [
                    *(base.get("history") or []),
                    {key: value for key, value in entry.items() if value},
                ],
            }
            all_layers = [*layers, *(_layer(file) for file in files)]
            parent_id = parent.id if parent is not None else ""
            return self._make(staging, new, all_layers, files, target, "", parent_id)
