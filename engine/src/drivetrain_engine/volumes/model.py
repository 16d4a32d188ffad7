"""What the engine remembers of a volume."""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from drivetrain.options import Option, masked

#: The label that Docker gives volumes made without a name.
ANONYMOUS_LABEL = "com.docker.volume.anonymous"

_PASSWORD = re.compile(r"((?:^|,)\s*(?:password|passwd|pass)\d?=)[^,]*", re.IGNORECASE)

#: Of drivers that do not declare their options.
_SECRET_KEY = re.compile(r"passw(?:or)?d|passphrase|secret|token", re.IGNORECASE)


class Record(msgspec.Struct):
    """A volume.

    Attributes:
        name: unique over all drivers.
        driver: which made it.
        options: as the user gave them, secrets included.
        labels: of the user.
        created: RFC 3339.
        users: ids of the containers that refer to it.
        mounted: those of them that have it mounted.
        origin: which volume it was cloned from or is a snapshot of, in words; or empty.
        ready: the driver has made it; false while that is under way.
        place: the name by which the driver knows it, when that is not ``name``.
        restoring: the volume whose content it is being given; empty but after a crash.
    """

    name: str
    driver: str
    options: dict[str, str]
    labels: dict[str, str]
    created: str
    users: list[str] = []
    mounted: list[str] = []
    origin: str = ""
    ready: bool = False
    place: str = ""
    restoring: str = ""

    @property
    def at(self) -> str:
        """The name by which the driver knows it."""
        return self.place or self.name

    @property
    def snapshot(self) -> bool:
        """Kept as another volume was at some time."""
        return self.origin.startswith("snapshot of ")

    @property
    def anonymous(self) -> bool:
        """Made without a name."""
        return ANONYMOUS_LABEL in self.labels


def to_document(record: Record) -> dict[str, Any]:
    """Return the record as the state table keeps it."""
    return msgspec.structs.asdict(record)


def from_document(document: Mapping[str, Any]) -> Record:
    """Return the record that the state table kept."""
    return msgspec.convert(document, Record)


def shown_options(schema: Sequence[Option], given: Mapping[str, str]) -> dict[str, str]:
    """Return options with all secrets masked, passwords within mount options too."""
    return {
        key: "***" if _SECRET_KEY.search(key) else _PASSWORD.sub(r"\1***", text)
        for key, text in masked(schema, given).items()
    }


def difference(schema: Sequence[Option], has: Mapping[str, str], asked: Mapping[str, str]) -> str:
    """Return in words which options of a volume are not those asked for; empty when none."""
    shown_has, shown_asked = shown_options(schema, has), shown_options(schema, asked)
    parts = []
    for key in sorted({*has, *asked}):
        if has.get(key) != asked.get(key):
            before = f"is {shown_has[key]!r}" if key in has else "is not set"
            after = f"asked for {shown_asked[key]!r}" if key in asked else "not asked for"
            parts.append(f"{key} {before}, {after}")
    return "; ".join(parts)


def now() -> str:
    """Return the time as records keep it."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
