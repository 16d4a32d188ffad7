"""Whether a moved layer is what it was: which entries differ, and the names and flags of files."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from drivetrain.errors import Internal
from drivetrain.host import trees
from drivetrain.host.flags import GUARDS
from drivetrain.storage import Change
from drivetrain_engine.layers.copying import OWN, Folders
from drivetrain_engine.layers.surveying import Survey, survey

#: What an error says of the copy.
THROWN_AWAY = "the copy was thrown away and nothing was changed"
_DIFFERS = (
    f"the copy differs at {{}}; {THROWN_AWAY}: please report it, with what `stat` and"
    " `getfattr -d -m -` say of that file"
)


def completed(own: list[Change], seen: Survey) -> list[Change]:
    """Add what goes with the changes that were told: flags alone, other names of changed files.

    A driver may part the names of a file of a parent when one of them is written, as overlayfs
    does; so all names of such a file are made anew, and the times of their directories with them.
    """
    kinds = {change.path: change.kind for change in own}
    more = set(seen.flags.keys() - {b"/"})
    for names in seen.names.values():
        if any(kinds.get(name, "deleted") != "deleted" for name in names):
            more.update(names)
            more.update(name.rpartition(b"/")[0] for name in names)
    more -= kinds.keys() | {b""}
    added = [Change(path, "modified") for path in more]
    return sorted([*own, *added], key=lambda change: change.path)


def differences(old: Path, new: Path, own: list[Change]) -> Iterator[Change]:
    """Yield what the target has to take from the source, leaving out what may differ.

    A directory that the container left alone may have another time, since an archive need not have
    an entry for it; an attribute of a file system stays with that.
    """
    mine = {change.path for change in own}
    before, after = Folders(new), Folders(old)
    try:
        for change in trees.compare(new, old):
            if change.kind != "modified" or not _equal(before, after, change.path, mine):
                yield change
    finally:
        before.close()
        after.close()


def _equal(before: Folders, after: Folders, path: bytes, mine: set[bytes]) -> bool:
    """Tell whether an entry that compares as changed is as it should be after all."""
    target, name = before.parent(path)
    source, _ = after.parent(path)
    here, there = os.lstat(name, dir_fd=target), os.lstat(name, dir_fd=source)
    if not (stat.S_ISDIR(here.st_mode) and stat.S_ISDIR(there.st_mode)):
        return False
    same_time = here.st_mtime_ns == there.st_mtime_ns or path not in mine
    return (
        same_time
        and (here.st_mode, here.st_uid, here.st_gid) == (there.st_mode, there.st_uid, there.st_gid)
        and _kept(target, name) == _kept(source, name)
    )


def _kept(folder: int, name: bytes) -> dict[str, bytes]:
    found = trees.extended_attributes(folder, os.fsdecode(name))
    return {key: value for key, value in found.items() if not key.startswith(OWN)}


def verify(old: Path, new: Path, own: list[Change], seen: Survey, *, again: bool) -> None:
    """Compare the two trees, the names of their files, flags and roots.

    Args:
        old: the source.
        new: the target.
        own: what the container changed.
        seen: of the source.
        again: something was written since the entries were compared.

    Raises:
        Internal: they differ; names an entry. The source is as it was.
    """
    if again and (wrong := list(differences(old, new, own))):
        # The deepest of the first ones: a directory differs with what is in it.
        deepest = max(wrong[:20], key=lambda change: change.path.count(b"/"))
        raise Internal(_DIFFERS.format(os.fsdecode(deepest.path)))
    copied = survey(new)
    if copied.groups() != seen.groups():
        copied = survey(new)  # in user space the first look has to find out, as for the source
    if odd := copied.groups() ^ seen.groups():
        raise Internal(_DIFFERS.format(os.fsdecode(min(min(group) for group in odd))))
    for path in copied.flags.keys() | seen.flags.keys():
        if (copied.flags.get(path, 0) ^ seen.flags.get(path, 0)) & GUARDS:
            raise Internal(_DIFFERS.format(os.fsdecode(path)))
    here, there = new.stat(), old.stat()
    if (here.st_mode, here.st_uid, here.st_gid) != (there.st_mode, there.st_uid, there.st_gid):
        raise Internal(_DIFFERS.format("/"))
