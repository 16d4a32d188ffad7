"""When an image or a name of it may go, and what goes with it; the rules are Docker's."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from drivetrain.errors import InUse, InvalidArgument, NotFound
from drivetrain_engine.content.model import Record
from drivetrain_engine.content.records import Records
from drivetrain_engine.content.reference import parse_reference, short_id

Outcome = dict[str, str]
_USER = re.compile(r"container (\S+) \((\w+)\)")
_ACTIVE = frozenset({"running", "paused", "restarting"})


class Removal:
    """One removal of an image. The caller is changing the records and saves them afterwards.

    Args:
        records: the images.
        users: image id to who uses it, such as ``container abc (running)``.
    """

    def __init__(
        self,
        records: Records,
        users: Callable[[str], Sequence[str]],
    ) -> None:
        self._records = records
        self._users = users
        self.outcome: list[Outcome] = []
        self.changed: list[Record] = []

    def remove(self, text: str, *, force: bool, prune: bool) -> None:
        """Remove a name, and the image when that was its last; or an image by id.

        Raises:
            NotFound: no such image.
            InUse: who or what is in the way, and whether force helps.
        """
        record = self._records.find(text)
        if _means_id(text, record):
            if _single(record):
                self._check(record, force=force, ignore_names=True)
                self._untag_all(record)
        else:
            name = self._name(text, record)
            if not force and len(record.tagged) == 1:
                self._check_name(text, record)
            self._untag(name, record)
            if not record.tagged:
                self._try_delete(record, force=force, prune=prune)
            return
        self._delete(record, force=force, prune=prune)

    def _try_delete(self, record: Record, *, force: bool, prune: bool) -> None:
        try:
            self._delete(record, force=force, prune=prune)
        except InUse:
            return  # only a name was to go; the image stays for whoever needs it

    def _name(self, text: str, record: Record) -> str:
        reference = parse_reference(text)
        if not reference.digest:
            return str(reference.tagged())
        for name in (str(reference), *sorted(record.tagged)):
            if name in record.tagged and parse_reference(name).repository == reference.repository:
                return name
        raise NotFound(f"No such image: {text}")

    def _check_name(self, text: str, record: Record) -> None:
        for user in self._users(record.image.id):
            raise InUse(
                f'conflict: unable to remove repository reference "{text}" (must force) - '
                f"{_short(user)} is using its referenced image {short_id(record.image.id)}"
            )

    def _untag(self, name: str, record: Record) -> None:
        self._records.untag(name)
        self.changed.append(record)
        self.outcome.append({"Untagged": parse_reference(name).familiar})
        self._records.emit("untag", record.image.id, name=record.image.id)

    def _untag_all(self, record: Record) -> None:
        for name in sorted(record.tagged):
            self._untag(name, record)

    def _check(self, record: Record, *, force: bool, ignore_names: bool) -> None:
        def conflict(reason: str, hard: bool) -> InUse:
            way = "cannot be forced" if hard else "must be forced"
            image = short_id(record.image.id)
            return InUse(f"conflict: unable to delete {image} ({way}) - {reason}")

        if self._records.children(record.image.id):
            raise conflict("image has dependent child images", True)
        users = self._users(record.image.id)
        for user in users:
            match = _USER.fullmatch(user)
            if match and match[2] in _ACTIVE:
                raise conflict(
                    f"image is being used by running container {short_id(match[1])}", True
                )
        if force:
            return
        if record.tagged and not ignore_names:
            raise conflict("image is referenced in multiple repositories", False)
        for user in users:
            match = _USER.fullmatch(user)
            who = f"stopped container {short_id(match[1])}" if match else user
            raise conflict(f"image is being used by {who}", False)

    def _delete(self, record: Record, *, force: bool, prune: bool) -> None:
        self._check(record, force=force, ignore_names=False)
        self._untag_all(record)
        parent = self._records.by_id(record.image.parent)
        kept = {chain for other in self._records.all() for chain in _chains(other, record)}
        self._records.discard(record)
        self.changed.append(record)
        self._records.emit("delete", record.image.id, name=record.image.id)
        self.outcome.append({"Deleted": record.image.id})
        for chain_id in reversed(record.image.chain_ids):
            if chain_id not in kept:
                self.outcome.append({"Deleted": chain_id})
        if prune and parent is not None and not parent.tagged:
            self._try_delete(parent, force=False, prune=True)


def _chains(other: Record, removed: Record) -> tuple[str, ...]:
    return () if other is removed else other.image.chain_ids


def _short(user: str) -> str:
    match = _USER.fullmatch(user)
    return f"container {short_id(match[1])}" if match else user


def _means_id(text: str, record: Record) -> bool:
    """Tell whether the user named the image by its id or the beginning of it."""
    digits = text.removeprefix("sha256:")
    if not record.image.id[7:].startswith(digits):
        return False
    try:
        return str(parse_reference(text).tagged()) not in record.tagged
    except InvalidArgument:
        return True


def _single(record: Record) -> bool:
    """Tell whether removing by id may take the name too, since it is the only one."""
    return len(record.tagged) <= 1
