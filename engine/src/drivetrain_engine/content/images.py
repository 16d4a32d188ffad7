"""The images of this host: one service for everything that happens to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drivetrain.errors import InUse, InvalidArgument
from drivetrain_engine.content import views
from drivetrain_engine.content.building import Builder
from drivetrain_engine.content.compression import Readable, open_archive
from drivetrain_engine.content.filters import (
    Filters,
    boolean_filter,
    check_filters,
    label_filter,
    until_filter,
)
from drivetrain_engine.content.incoming import read_archive
from drivetrain_engine.content.layerstream import LayerStream
from drivetrain_engine.content.layout import Layout
from drivetrain_engine.content.model import (
    Image,
    Json,
    Record,
    parse_time,
)
from drivetrain_engine.content.outgoing import Saving
from drivetrain_engine.content.records import Records
from drivetrain_engine.content.reference import parse_reference, parse_target
from drivetrain_engine.content.registry import Registries, RegistrySettings
from drivetrain_engine.content.removal import Removal

if TYPE_CHECKING:
    from drivetrain_engine.state import Events, State


# inside the class, ``list`` is a method
Names = list[str]
Outcomes = list[Json]


class Images:
    """The image store. Thread-safe; long work (reading archives) happens outside its lock.

    Args:
        root: an OCI image layout, made when missing.
        state: where parents, sizes and times of tagging are kept.
        events: told about every change.
        registries: where to pull from and push to.
    """

    def __init__(
        self,
        *,
        root: Path,
        state: State,
        events: Events,
        registries: RegistrySettings | None = None,
    ) -> None:
        self._layout = Layout(root)
        self._records = Records(self._layout, state, events)
        self._builder = Builder(self._records)
        #: Pulls and pushes.
        self.registries = Registries(self._builder, self._records, registries)
        #: Registered by others: image id to who uses it, such as ``container abc (running)``.
        self.users: list[Callable[[str], Names]] = []

    # what there is

    def get(self, name: str) -> Image:
        """Return the image of a name, id or beginning of an id.

        Raises:
            NotFound: there is none.
        """
        return self._records.find(name).image

    def list(self) -> list[Image]:
        """Return all images."""
        return [record.image for record in self._records.all()]

    def inspect(self, name: str) -> Json:
        """Return ``ImageInspect`` of the API."""
        return views.inspect(self._records.find(name))

    def history(self, name: str) -> Outcomes:
        """Return the history of the API, newest first."""
        return views.history(self._records, self._records.find(name))

    def summaries(
        self, filters: Filters | None = None, all: bool = False, *, shared_size: bool = False
    ) -> Outcomes:
        """Return the API's list of images, newest first.

        Args:
            filters: before, dangling, label, reference, since, until.
            all: images without a name that are only parents too.
            shared_size: count ``SharedSize``.
        """
        checked = check_filters(filters or {}, views.LIST_FILTERS)
        return views.summaries(self._records, checked, all_images=all, shared_size=shared_size)

    def layers_size(self) -> int:
        """Return the bytes of all layers, each counted once (``LayersSize`` of ``system df``)."""
        sizes = {
            chain: layer.diff_size
            for record in self._records.all()
            for chain, layer in zip(record.image.chain_ids, record.layers, strict=True)
        }
        return sum(sizes.values())

    def open_layer(self, image: Image, index: int) -> LayerStream:
        """Open the tar of a layer, inflated. Its diff id is compared at the end of the stream.

        Raises:
            Internal: on reading: the stored layer is damaged.
            NotFound: the image or its blob is gone.
        """
        record = self._records.find(image.id)
        blob = self._layout.open(record.layers[index].digest)
        return LayerStream(blob, image.diff_ids[index])

    # what comes in

    def load(self, stream: Readable) -> Iterator[str]:
        """Take in an archive of ``save``, ``docker save`` or an OCI layout in a tar.

        Yields:
            What was loaded, as ``docker load`` says it, without newlines.

        Raises:
            InvalidArgument: it is none of these, or damaged; nothing of it is kept.
        """
        with self._layout.staging() as staging:
            lines = self._builder.keep(read_archive(open_archive(stream, "the archive"), staging))
        yield from lines

    def import_tar(
        self,
        stream: Readable,
        *,
        reference: str = "",
        changes: Sequence[str] = (),
        message: str = "",
        platform: str = "",
    ) -> Image:
        """Make an image of one layer from the tar of a root file system.

        Args:
            stream: the tar, plain or compressed.
            reference: a name for it, or empty.
            changes: Dockerfile instructions for its config.
            message: its comment.
            platform: such as ``linux/arm64``; this host's when empty.

        Raises:
            InvalidArgument: a bad name, change or tar; nothing is kept.
        """
        return self._builder.import_tar(stream, reference, changes, message, platform)

    def commit(
        self,
        *,
        parent: Image | None,
        layer: Iterator[bytes] | None,
        config: dict[str, Any],
        author: str = "",
        comment: str = "",
        reference: str = "",
    ) -> Image:
        """Make an image of another one and a further layer.

        Args:
            parent: what the layer lies upon; ``None``: nothing.
            layer: an OCI layer tar, plain; ``None``: nothing changed.
            config: the ``config`` object of the new image, changes applied.
            author: who made it.
            comment: why.
            reference: a name for it, or empty.

        Raises:
            NotFound: the parent is gone.
            InvalidArgument: a bad name, or a layer that is no tar.
        """
        return self._builder.commit(parent, layer, config, author, comment, reference)

    # what goes out

    def save(self, names: Sequence[str]) -> Iterator[bytes]:
        """Return the chunks of one tar with these images.

        A name without a tag means all tags of the repository, as in Docker. The images can be
        removed while the tar is read.

        Raises:
            NotFound: one of them does not exist.
        """
        chosen: dict[str, tuple[Record, Names]] = {}
        with self._records.changing():
            for name in names:
                for record, tag in self._to_save(name):
                    tags = chosen.setdefault(record.image.id, (record, []))[1]
                    if tag and tag not in tags:
                        tags.append(tag)
            return Saving(self._layout, [*chosen.values()]).chunks()

    def _to_save(self, name: str) -> Iterator[tuple[Record, str]]:
        record = None
        try:
            reference = parse_reference(name)
            if not reference.tag and not reference.digest:
                for full in self._records.names(reference.repository):
                    record = self._records.by_name(full)
                    if record is not None:
                        yield record, full
                if record is not None:
                    return
            if not reference.digest and (record := self._records.by_name(reference)):
                yield record, str(reference)
                return
        except InvalidArgument:
            pass  # an id, or nothing at all, which find tells
        yield self._records.find(name), ""

    # names and removal

    def tag(self, name: str, target_ref: str) -> None:
        """Give an image one more name; another image that has it loses it.

        Raises:
            NotFound: no such image.
            InvalidArgument: the new name is none.
        """
        with self._records.changing():
            record = self._records.find(name)
            reference = parse_target(target_ref)
            before = self._records.tag(reference, record)
            self._records.save([record, *([before] if before else [])])
            self._records.emit("tag", record.image.id, name=reference.familiar)

    def _users_of(self, image_id: str) -> Names:
        return [user for ask in self.users for user in ask(image_id)]

    def remove(self, name: str, *, force: bool = False, prune: bool = True) -> Outcomes:
        """Remove a name of an image, and the image with its last name; or an image by id.

        Args:
            name: name, id or beginning of an id.
            force: also when a stopped container uses it or it has several names.
            prune: its parents too, when nobody needs them.

        Returns:
            ``{"Untagged": …}`` and ``{"Deleted": …}``, in order.

        Raises:
            NotFound: no such image.
            InUse: who uses it, in Docker's words.
        """
        with self._records.changing():
            removal = Removal(self._records, self._users_of)
            try:
                removal.remove(name, force=force, prune=prune)
            finally:
                if removal.changed:
                    self._records.save(removal.changed)
            self._records.sweep()
            return removal.outcome

    def prune(self, filters: Filters | None = None) -> Json:
        """Remove images that nobody uses: those without a name, or all with ``dangling=false``.

        Args:
            filters: dangling, until, label, label!.

        Returns:
            ``ImagesDeleted`` and ``SpaceReclaimed`` (bytes of the store).
        """
        checked = check_filters(filters or {}, ("dangling", "label", "label!", "until"))
        only_dangling = boolean_filter(checked, "dangling") is not False
        has_labels = label_filter(checked)
        until = until_filter(checked)
        with self._records.changing():
            removal = Removal(self._records, self._users_of)
            for record in self._records.all():
                created = parse_time(record.image.created)
                if (
                    (only_dangling and record.tagged)
                    or not has_labels(record.image.settings.get("Labels"))
                    or (until is not None and created >= until)
                ):
                    continue
                self._prune_one(removal, record)
            if removal.changed:
                self._records.save(removal.changed)
            freed = self._records.sweep()
            self._records.emit("prune", "", reclaimed=str(freed))
        return {"ImagesDeleted": removal.outcome or None, "SpaceReclaimed": freed}

    def _prune_one(self, removal: Removal, record: Record) -> None:
        if self._users_of(record.image.id) or self._records.children(record.image.id):
            return
        for name in sorted(record.tagged) or [record.image.id]:
            if self._records.by_id(record.image.id) is None:
                return
            try:
                removal.remove(name, force=False, prune=True)
            except InUse:
                return  # somebody began to use it just now
