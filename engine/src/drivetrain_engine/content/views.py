"""What the API shows of images: ``inspect``, ``history`` and the list."""

from __future__ import annotations

import fnmatch
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import msgspec

from drivetrain_engine.content.filters import (
    boolean_filter,
    label_filter,
    until_filter,
)
from drivetrain_engine.content.layout import digest_of
from drivetrain_engine.content.model import Json, Record, parse_time, platform_of
from drivetrain_engine.content.records import Records
from drivetrain_engine.content.reference import parse_reference

LIST_FILTERS = ("before", "dangling", "label", "label!", "reference", "since", "until")


def repo_digests(record: Record) -> list[str]:
    """Return ``repository@digest`` for every repository that the image is tagged in."""
    names = {parse_reference(name).familiar_repository for name in record.tagged}
    return [f"{name}@{record.descriptor['digest']}" for name in sorted(names)]


def _descriptor(record: Record) -> Json:
    return {**record.descriptor, "platform": platform_of(record.image.config)}


def inspect(record: Record) -> Json:
    """Return ``ImageInspect``."""
    image, config = record.image, record.image.config
    history = config.get("history") or [{}]
    result: Json = {
        "Id": image.id,
        "Descriptor": _descriptor(record),
        "RepoTags": list(image.tags),
        "RepoDigests": repo_digests(record),
        "Parent": image.parent,
        "Comment": config.get("comment") or history[-1].get("comment") or "",
        "Created": image.created or None,
        "DockerVersion": config.get("docker_version") or "",
        "Author": config.get("author") or "",
        "Config": image.settings,
        # Gone from version 1.45 on, but docker-compose 1 fails without, whatever version it speaks.
        "ContainerConfig": config.get("container_config") or {},
        "Architecture": config.get("architecture") or "",
        "Os": config.get("os") or "",
        "Size": image.size,
        "VirtualSize": image.size,
        "GraphDriver": {"Name": "", "Data": None},
        "RootFS": {"Type": "layers", "Layers": list(image.diff_ids)},
        "Metadata": {"LastTagTime": max(record.tagged.values(), default="0001-01-01T00:00:00Z")},
    }
    for key, name in (("Variant", "variant"), ("OsVersion", "os.version")):
        if config.get(name):
            result[key] = config[name]
    return result


def history(records: Records, record: Record) -> list[Json]:
    """Return the history, newest first, as ``GET /images/{name}/history`` has it."""
    sizes = [layer.diff_size for layer in record.layers]
    position = 0
    items: list[Json] = []
    for item in record.image.config.get("history") or []:
        size = 0
        if not item.get("empty_layer") and position < len(sizes):
            size = sizes[position]
            position += 1
        items.append(
            {
                "Id": "<missing>",
                "Created": int(parse_time(item.get("created") or "")),
                "CreatedBy": item.get("created_by") or "",
                "Tags": None,
                "Size": size,
                "Comment": item.get("comment") or "",
            }
        )
    items.reverse()
    known: Record | None = record
    for shown in items:
        if known is None:
            break
        shown["Id"], shown["Tags"] = known.image.id, list(known.image.tags) or None
        known = records.by_id(known.image.parent)
    return items


def distribution(data: bytes, kind: str) -> Json:
    """Return ``DistributionInspect`` for a manifest or an index of a registry."""
    content = msgspec.json.decode(data, type=dict)
    platforms = [item.get("platform") for item in content.get("manifests") or ()]
    descriptor = {"mediaType": kind, "digest": digest_of(data), "size": len(data)}
    return {"Descriptor": descriptor, "Platforms": [item for item in platforms if item]}


def summary(record: Record) -> Json:
    """Return ``ImageSummary``; shared size and containers are not counted."""
    image = record.image
    return {
        "Id": image.id,
        "ParentId": image.parent,
        "RepoTags": list(image.tags),
        "RepoDigests": repo_digests(record),
        "Created": int(parse_time(image.created)),
        "Size": image.size,
        "VirtualSize": image.size,
        "SharedSize": -1,
        "Labels": image.settings.get("Labels") or {},
        "Containers": -1,
        "Descriptor": _descriptor(record),
    }


def shared_sizes(records: Sequence[Record]) -> dict[str, int]:
    """Return, per image, the bytes of layers that another image has at the same place."""
    count = Counter(chain for record in records for chain in record.image.chain_ids)
    return {
        record.image.id: sum(
            layer.diff_size
            for chain, layer in zip(record.image.chain_ids, record.layers, strict=True)
            if count[chain] > 1
        )
        for record in records
    }


def matches_reference(name: str, pattern: str) -> bool:
    """Tell whether a familiar name with tag matches ``busybox``, ``busy*:1.*`` or ``*/app``."""
    reference = parse_reference(name)
    full = f"{reference.repository}:{reference.tag}"
    candidates = (
        reference.familiar,
        reference.familiar_repository,
        full,
        reference.repository,
    )
    wanted = pattern.split("/")
    for candidate in candidates:
        parts = candidate.split("/")
        # a star does not match a slash, as in path.Match
        if len(parts) == len(wanted) and all(
            fnmatch.fnmatchcase(part, want) for part, want in zip(parts, wanted, strict=True)
        ):
            return True
    return False


def _created(records: Records, names: Sequence[str]) -> list[float]:
    return [parse_time(records.find(name).image.created) for name in names]


def selection(records: Records, filters: Mapping[str, Sequence[str]]) -> Callable[[Record], bool]:
    """Return the test that the filters of the list mean.

    Raises:
        EngineError: a filter is not understood, or names an image that does not exist.
    """
    dangling = boolean_filter(filters, "dangling")
    has_labels = label_filter(filters)
    until = until_filter(filters)
    before = min(_created(records, filters.get("before") or []), default=None)
    since = max(_created(records, filters.get("since") or []), default=None)

    parents = {record.image.parent for record in records.all()}

    def selected(record: Record) -> bool:
        created = parse_time(record.image.created)
        is_dangling = not record.tagged and record.image.id not in parents
        return (
            (dangling is None or dangling == is_dangling)
            and has_labels(record.image.settings.get("Labels"))
            and (until is None or created < until)
            and (before is None or created < before)
            and (since is None or created > since)
        )

    return selected


def summaries(
    records: Records, filters: Mapping[str, Sequence[str]], *, all_images: bool, shared_size: bool
) -> list[Json]:
    """Return the list, newest first.

    Raises:
        EngineError: see :func:`selection`.
    """
    selected = selection(records, filters)
    patterns = filters.get("reference") or []
    shared = shared_sizes(records.all()) if shared_size else {}
    parents = {record.image.parent for record in records.all()}
    result = []
    for record in records.all():
        hidden = not record.tagged and record.image.id in parents
        if not selected(record) or (hidden and not all_images):
            continue
        shown = summary(record)
        if patterns:
            names = [
                name
                for name in shown["RepoTags"]
                if any(matches_reference(name, pattern) for pattern in patterns)
            ]
            if not names:
                continue
            shown["RepoTags"] = names
        shown["SharedSize"] = shared.get(record.image.id, -1)
        result.append(shown)
    return sorted(result, key=lambda shown: (-shown["Created"], shown["Id"]))
