"""The functions of ``--format`` templates, and how Go prints values."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any


class Absent:
    """A key that a map does not have; printed as ``<no value>``, false."""

    def __bool__(self) -> bool:
        return False

    def __eq__(self, other: object) -> bool:
        return other is None or other == "" or isinstance(other, Absent)

    __hash__ = None  # type: ignore[assignment]


def show(value: Any) -> str:
    """Return a value as Go's ``%v`` prints it: ``map[a:b]``, ``[1 2]``, ``true``."""
    if isinstance(value, Absent) or value is None:
        return "<no value>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "map[" + " ".join(f"{key}:{show(value[key])}" for key in sorted(value)) + "]"
    if isinstance(value, (list, tuple)):
        return "[" + " ".join(show(item) for item in value) + "]"
    return str(value)


def _plain(value: Any) -> Any:
    return None if isinstance(value, Absent) else value


def _json(value: Any) -> str:
    return json.dumps(_plain(value), ensure_ascii=False, separators=(",", ":"))


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        if isinstance(value, Mapping):
            value = value.get(key, Absent())
        elif value is None or isinstance(value, Absent):
            return Absent()
        else:
            value = value[key]
    return value


def _slice(value: Any, *bounds: int) -> Any:
    return value[slice(bounds[0] if bounds else None, bounds[1] if len(bounds) > 1 else None)]


def _printf(form: str, *arguments: Any) -> str:
    values = list(arguments)

    def replace(match: re.Match[str]) -> str:
        if match[2] == "%":
            return "%"
        value = values.pop(0)
        if match[2] in "vs":
            return f"%{match[1]}s" % show(value)
        if match[2] == "q":
            return json.dumps(show(value), ensure_ascii=False)
        return str(f"%{match[1]}{match[2]}" % value)

    return re.sub(r"%([-+# 0]*\d*(?:\.\d+)?)([a-zA-Z%])", replace, form)


def _and(*values: Any) -> Any:
    for value in values:
        if not value:
            return value
    return values[-1]


def _or(*values: Any) -> Any:
    for value in values:
        if value:
            return value
    return values[-1]


def _equal(first: Any, *others: Any) -> bool:
    return any(bool(first == other) for other in others)


def _pad(value: str, before: int, after: int) -> str:
    return " " * before + value + " " * after if value else ""


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "json": _json,
    "join": lambda items, separator: separator.join(show(item) for item in items or ()),
    "split": lambda text, separator: text.split(separator),
    "lower": lambda text: show(text).lower(),
    "upper": lambda text: show(text).upper(),
    "title": lambda text: re.sub(r"\b[a-z]", lambda m: m[0].upper(), show(text)),
    "truncate": lambda text, width: show(text)[:width],
    "pad": _pad,
    "println": lambda *values: " ".join(show(value) for value in values) + "\n",
    "print": lambda *values: "".join(show(value) for value in values),
    "printf": _printf,
    "len": lambda value: len(_plain(value) or ()),
    "index": _index,
    "slice": _slice,
    "eq": _equal,
    "ne": lambda first, other: first != other,
    "lt": lambda first, other: first < other,
    "le": lambda first, other: first <= other,
    "gt": lambda first, other: first > other,
    "ge": lambda first, other: first >= other,
    "and": _and,
    "or": _or,
    "not": lambda value: not value,
}
