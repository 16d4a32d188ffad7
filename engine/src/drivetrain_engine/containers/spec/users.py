"""Users and groups by the files of a container, read without leaving its root."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from drivetrain.errors import InvalidArgument
from drivetrain_engine.containers.rooted import Root

_LIMIT = 1 << 20
_MAXIMUM = 2**31 - 1


class User(msgspec.Struct):
    """Ids of a process.

    Attributes:
        home: of its entry in the container's passwd file; empty without one.
    """

    uid: int = 0
    gid: int = 0
    groups: list[int] = []
    home: str = ""


def _entries(root: Root, path: str, fields: int) -> list[list[str]]:
    text = root.read(path, _LIMIT).decode("utf-8", "surrogateescape")
    found = []
    for line in text.splitlines():
        parts = line.split(":")
        if line and line[0] not in "#+-" and len(parts) >= fields:
            found.append(parts)
    return found


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() else None


def _checked(number: int) -> int:
    if number > _MAXIMUM:
        raise InvalidArgument(f"uids and gids must be in range 0-{_MAXIMUM}")
    return number


def find_user(root: Root, user: str, additional: Sequence[str] = ()) -> User:
    """Return the ids that ``--user`` and ``--group-add`` mean in a container.

    Args:
        root: the container's file system.
        user: ``name``, ``uid``, ``name:group``, … or empty for root.
        additional: groups by name or number.

    Raises:
        InvalidArgument: no such user or group, in the container's files.
    """
    name, colon, group = user.partition(":")
    accounts = _entries(root, "/etc/passwd", 4)
    found = User()
    number = _number(name)
    account = _account(accounts, name or "0", number if name else 0)
    if account is not None:
        found.uid, found.gid = int(account[2]), int(account[3])
        found.home = account[5] if len(account) > 5 else ""
        login = account[0]
    elif name and number is None:
        raise InvalidArgument(f"unable to find user {name}: no matching entries in passwd file")
    else:
        found.uid, login = _checked(number or 0), ""
    groups = _entries(root, "/etc/group", 3) if (group or additional or login) else []
    if colon and group:
        found.gid = _group(groups, group)
    elif login:
        members = [entry for entry in groups if len(entry) > 3 and login in entry[3].split(",")]
        found.groups = [int(entry[2]) for entry in members if _number(entry[2]) is not None]
    extra = [_group(groups, text) for text in additional]
    # Docker lists the primary group among the additional ones.
    found.groups = list(dict.fromkeys([found.gid, *found.groups, *extra]))
    return found


def _account(accounts: list[list[str]], name: str, number: int | None) -> list[str] | None:
    for entry in accounts:
        if _number(entry[2]) is None or _number(entry[3]) is None:
            continue
        if entry[0] == name or (number is not None and int(entry[2]) == number):
            return entry
    return None


def _group(groups: list[list[str]], text: str) -> int:
    for entry in groups:
        if entry[0] == text and _number(entry[2]) is not None:
            return int(entry[2])
    number = _number(text)
    if number is None:
        raise InvalidArgument(f"unable to find group {text}: no matching entries in group file")
    return _checked(number)
