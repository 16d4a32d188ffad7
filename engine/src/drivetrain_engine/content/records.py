"""The images that the store has: read from the index at the start, kept in memory after that.

The OCI index holds what the images are; the state table ``images`` only what is known here and
nowhere else: parents, sizes and times of tagging. An index that another tool wrote works too.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import msgspec

from drivetrain.errors import EngineError, InvalidArgument, NotFound
from drivetrain_engine.content.layout import (
    IMAGE_NAME,
    REF_NAME,
    Descriptor,
    Layout,
)
from drivetrain_engine.content.model import (
    Image,
    Json,
    Layer,
    Record,
    chain_ids,
    now,
    platform_of,
)
from drivetrain_engine.content.reference import Reference, parse_reference

if TYPE_CHECKING:
    from drivetrain_engine.state import Events, State

_HEX = re.compile(r"[0-9a-f]{1,64}")


def make_image(image_id: str, config: Json, layers: Sequence[Layer], parent: str = "") -> Image:
    """Return the image that a config and its layers are."""
    diff_ids = tuple(config.get("rootfs", {}).get("diff_ids") or ())
    return Image(
        id=image_id,
        config=config,
        diff_ids=diff_ids,
        chain_ids=chain_ids(diff_ids),
        size=sum(layer.diff_size for layer in layers),
        created=str(config.get("created") or ""),
        parent=parent,
    )


class Records:
    """All images by id and by name. Reading needs no lock; changes happen in :meth:`changing`."""

    def __init__(self, layout: Layout, state: State, events: Events) -> None:
        self.layout = layout
        self._lock = threading.Lock()
        self._events = events
        self._pending: list[tuple[str, str, dict[str, str]]] = []
        self._table = state.table("images")
        self._by_id: dict[str, Record] = {}
        self._by_name: dict[str, Record] = {}
        #: index entries of other tools that cannot be read here; they are left alone
        self._foreign: list[Descriptor] = []
        for descriptor in layout.read_index():
            self._read(descriptor)
        for image_id in set(self._table.items()) - set(self._by_id):
            self._table.delete(image_id)
        if not self._foreign:
            layout.sweep(self.digests())

    @contextlib.contextmanager
    def changing(self) -> Iterator[None]:
        """Hold the lock for changes; what was emitted meanwhile is told after it is released.

        Listeners may ask other parts of the engine, which may ask for images.
        """
        with self._lock:
            try:
                yield
            finally:
                pending, self._pending = self._pending, []
        for action, image_id, attributes in pending:
            self._events.emit("image", action, image_id, attributes)

    def emit(self, action: str, image_id: str, **attributes: str) -> None:
        """Tell an event when the change under way is complete."""
        self._pending.append((action, image_id, attributes))

    def _read(self, descriptor: Descriptor) -> None:
        try:
            manifest = msgspec.json.decode(self.layout.read(descriptor["digest"]), type=dict)
            image_id = manifest["config"]["digest"]
            record = self._by_id.get(image_id) or self._open(image_id, manifest, descriptor)
        except NotFound:
            return  # its blobs are lost, so there is nothing to keep
        except (EngineError, msgspec.DecodeError, KeyError, TypeError):
            self._foreign.append(descriptor)
            return
        self._by_id[image_id] = record
        annotations = descriptor.get("annotations") or {}
        name = annotations.get(IMAGE_NAME) or annotations.get(REF_NAME)
        if name:
            times = (self._table.get(image_id) or {}).get("tagged", {})
            self._set(str(parse_reference(name).tagged()), record, times.get(name, now()))

    def _open(self, image_id: str, manifest: Json, descriptor: Descriptor) -> Record:
        config = msgspec.json.decode(self.layout.read(image_id), type=dict)
        known = self._table.get(image_id) or {}
        sizes = known.get("sizes") or [layer["size"] for layer in manifest["layers"]]
        layers = tuple(Layer(*pair) for pair in zip(manifest["layers"], sizes, strict=True))
        image = make_image(image_id, config, layers, known.get("parent", ""))
        plain = {key: descriptor[key] for key in ("mediaType", "digest", "size")}
        return Record(image, plain, layers, {})

    def digests(self) -> set[str]:
        """Return the digests of all blobs that some image needs."""
        return {digest for record in self._by_id.values() for digest in record.digests}

    def all(self) -> list[Record]:
        """Return all records."""
        return list(self._by_id.values())

    def children(self, image_id: str) -> list[Record]:
        """Return the images that were committed from this one."""
        return [record for record in self.all() if record.image.parent == image_id]

    def by_id(self, image_id: str) -> Record | None:
        """Return the record of a full id."""
        return self._by_id.get(image_id)

    def by_name(self, reference: Reference | str) -> Record | None:
        """Return the record that a full name with tag belongs to."""
        return self._by_name.get(str(reference))

    def layer(self, digest: str) -> tuple[int, str] | None:
        """Return inflated size and diff id of a layer by the digest of its blob, if it is here."""
        for record in self.all():
            for layer, diff_id in zip(record.layers, record.image.diff_ids, strict=True):
                if layer.digest == digest and self.layout.exists(digest):
                    return layer.diff_size, diff_id
        return None

    def names(self, repository: str) -> Iterator[str]:
        """Yield the full names with tags of a repository."""
        for name in sorted(self._by_name):
            if name.rpartition(":")[0] == repository:
                yield name

    def find(self, text: str) -> Record:
        """Return the image that a user means: full id, name, digest reference or id prefix.

        Raises:
            NotFound: none, or the prefix fits several.
            InvalidArgument: it cannot be a name.
        """
        record = self._find_id(text, exact=True)
        if record is not None:
            return record
        missing = f"No such image: {text}"
        invalid: InvalidArgument | None = None
        try:
            reference = parse_reference(text)
            missing = f"No such image: {reference.tagged().familiar}"
            found = self._by_name.get(str(reference.tagged())) or self._by_digest(reference)
            if found is not None:
                return found
        except InvalidArgument as error:
            invalid = error
        record = self._find_id(text, exact=False)
        if record is not None:
            return record
        if invalid is not None and not text.startswith("sha256:") and not _HEX.fullmatch(text):
            raise invalid
        raise NotFound(missing)

    def _by_digest(self, reference: Reference) -> Record | None:
        if not reference.digest:
            return None
        for record in self.all():
            if reference.digest == record.descriptor["digest"] and any(
                parse_reference(name).repository == reference.repository for name in record.tagged
            ):
                return record
        return None

    def _find_id(self, text: str, *, exact: bool) -> Record | None:
        digits = text.removeprefix("sha256:")
        if not _HEX.fullmatch(digits):
            return None
        if len(digits) == 64 or exact:
            return self._by_id.get("sha256:" + digits)
        found = [record for key, record in [*self._by_id.items()] if key.startswith(digits, 7)]
        return found[0] if len(found) == 1 else None

    def add(self, record: Record) -> Record:
        """Add a record; the one already there, if it is the same image."""
        known = self._by_id.setdefault(record.image.id, record)
        if not known.image.parent and record.image.parent and known is not record:
            known.image = msgspec.structs.replace(known.image, parent=record.image.parent)
        return known

    def tag(self, reference: Reference, record: Record) -> Record | None:
        """Give a name to an image; return the image that had the name before, if another."""
        before = self.untag(str(reference))
        self._set(str(reference), record, now())
        return before if before is not record else None

    def _set(self, name: str, record: Record, time: str) -> None:
        self._by_name[name] = record
        record.tagged[name] = time
        self._refresh(record)

    def untag(self, name: str) -> Record | None:
        """Take a name away; return the image that had it."""
        record = self._by_name.pop(name, None)
        if record is not None:
            del record.tagged[name]
            self._refresh(record)
        return record

    def _refresh(self, record: Record) -> None:
        names = [parse_reference(name) for name in record.tagged]
        tags = tuple(sorted(name.familiar for name in names if not name.digest))
        record.image = msgspec.structs.replace(record.image, tags=tags)

    def discard(self, record: Record) -> None:
        """Forget an image and its names."""
        for name in list(record.tagged):
            self.untag(name)
        del self._by_id[record.image.id]

    def save(self, changed: Iterable[Record]) -> None:
        """Write the index, and what the table holds of these images."""
        for record in changed:
            if record.image.id in self._by_id:
                self._table.put(
                    record.image.id,
                    {
                        "parent": record.image.parent,
                        "sizes": [layer.diff_size for layer in record.layers],
                        "tagged": record.tagged,
                    },
                )
            else:
                self._table.delete(record.image.id)
        self.layout.write_index([*self._foreign, *self._descriptors()])

    def _descriptors(self) -> Iterator[Descriptor]:
        for record in self._by_id.values():
            plain = {**record.descriptor, "platform": platform_of(record.image.config)}
            for name in record.tagged:
                yield {**plain, "annotations": {REF_NAME: name, IMAGE_NAME: name}}
            if not record.tagged:
                yield plain

    def sweep(self) -> int:
        """Remove blobs that no image needs; return the bytes that became free."""
        return 0 if self._foreign else self.layout.sweep(self.digests())
