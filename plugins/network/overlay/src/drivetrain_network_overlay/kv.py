"""What is written to and read from etcd: items, events, the parts of a transaction, errors.

In etcd's JSON keys and values are base64, and numbers of 64 bits are strings.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from dataclasses import dataclass
from typing import Any

from drivetrain.errors import (
    EngineError,
    Internal,
    NotFound,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
)

Json = dict[str, Any]
_NOT_FOUND, _PERMISSION, _OUT_OF_RANGE, _UNAVAILABLE, _UNAUTHENTICATED = 5, 7, 11, 14, 16
_DEADLINE = 4


@dataclass(frozen=True, slots=True)
class Item:
    """A key with what is known of it.

    Attributes:
        revision: of the store when it was written last; 0: the key does not exist.
        lease: 0: none.
    """

    key: bytes
    value: bytes
    revision: int
    lease: int = 0


@dataclass(frozen=True, slots=True)
class Event:
    """A change that a watch saw; ``deleted`` ones have no value."""

    item: Item
    deleted: bool


@dataclass(frozen=True, slots=True)
class Batch:
    """What a watch tells at once.

    Attributes:
        revision: everything up to it has been told; when the watch has just begun, that of the
            store.
        begun: the watch has just begun, and nothing was told.
    """

    events: tuple[Event, ...]
    revision: int
    begun: bool = False


class Compacted(EngineError):
    """The history that a watch asked for is gone: list anew."""


def prefix_end(prefix: bytes) -> bytes:
    """Return the end of the range of all keys that begin with ``prefix``."""
    return prefix[:-1] + bytes([prefix[-1] + 1])


def text_of(data: bytes) -> str:
    """Return bytes as etcd's JSON has them."""
    return b64encode(data).decode()


def item_of(found: Json) -> Item:
    """Return a key as etcd's JSON has it."""
    return Item(
        b64decode(found["key"]),
        b64decode(found.get("value", "")),
        int(found.get("mod_revision", 0)),
        int(found.get("lease", 0)),
    )


# Parts of a transaction


def absent(key: bytes) -> Json:
    """A comparison: the key does not exist."""
    return {"key": text_of(key), "target": "CREATE", "result": "EQUAL", "create_revision": "0"}


def present(key: bytes) -> Json:
    """A comparison: the key exists."""
    return {"key": text_of(key), "target": "CREATE", "result": "GREATER", "create_revision": "0"}


def unchanged(key: bytes, revision: int) -> Json:
    """A comparison: the key was last written at ``revision`` (0: it does not exist)."""
    return {"key": text_of(key), "target": "MOD", "result": "EQUAL", "mod_revision": str(revision)}


def none_below(prefix: bytes) -> Json:
    """A comparison: no key begins with ``prefix``."""
    return {**absent(prefix), "range_end": text_of(prefix_end(prefix))}


def older(prefix: bytes, revision: int) -> Json:
    """A comparison: no key that begins with ``prefix`` was written after ``revision``."""
    return {
        "key": text_of(prefix),
        "range_end": text_of(prefix_end(prefix)),
        "target": "MOD",
        "result": "LESS",
        "mod_revision": str(revision + 1),
    }


def same(key: bytes, value: bytes) -> Json:
    """A comparison: the key has this value."""
    return {"key": text_of(key), "target": "VALUE", "result": "EQUAL", "value": text_of(value)}


def put(key: bytes, value: bytes, lease: int = 0) -> Json:
    """An operation: write a key, which goes with its lease."""
    request: Json = {"key": text_of(key), "value": text_of(value)}
    if lease:
        request["lease"] = str(lease)
    return {"request_put": request}


def delete(key: bytes, end: bytes = b"") -> Json:
    """An operation: delete a key, or all from it to ``end``."""
    request = {"key": text_of(key)}
    if end:
        request["range_end"] = text_of(end)
    return {"request_delete_range": request}


def get(key: bytes) -> Json:
    """An operation: read a key."""
    return {"request_range": {"key": text_of(key)}}


def fault(data: bytes, status: int) -> EngineError:
    """Return the error that an answer which is not 200 means."""
    try:
        return error_of(json.loads(data), status)
    except ValueError:
        return Unavailable(f"etcd answers with HTTP {status}: {data[:200]!r}")


def error_of(found: Json, status: int) -> EngineError:
    """Return the error that etcd tells."""
    code = int(found.get("code") or found.get("grpc_code") or 0)
    text = f"etcd: {found.get('message') or found.get('error') or f'HTTP {status}'}"
    if code == _NOT_FOUND:
        return NotFound(text)
    if code == _PERMISSION:
        return PermissionDenied(f"{text}: give the user of cluster-store the rights to its prefix")
    if code == _UNAUTHENTICATED or "invalid user ID or password" in text:
        return Unauthenticated(text)
    if code in (_UNAVAILABLE, _DEADLINE) or "no leader" in text:
        return Unavailable(text)
    if code == _OUT_OF_RANGE and "compacted" in text:
        return Compacted(text)
    if "user name is empty" in text:
        return Unauthenticated(f"{text}: give cluster-store-opts user and password")
    return Internal(text)
