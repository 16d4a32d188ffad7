"""Reading the values of directives, from flags (strings) and from JSON."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from drivetrain.options import parse_boolean, parse_duration, parse_size


class AddressPool(msgspec.Struct, frozen=True):
    """Where networks get their subnets from: ``size`` is the prefix length of each."""

    base: str
    size: int


class Ulimit(msgspec.Struct, frozen=True):
    """One resource limit."""

    name: str
    soft: int
    hard: int


def _read_text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("a string is needed")
    return value


def _read_flag(value: object) -> bool:
    return value if isinstance(value, bool) else parse_boolean(_read_text(value))


def _read_number(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise ValueError("a whole number is needed")
    try:
        return int(value)
    except ValueError:
        raise ValueError("a whole number is needed") from None


def _read_duration(value: object) -> float:
    return parse_duration(value if isinstance(value, str) else str(_read_number(value)))


def _read_size(value: object) -> int:
    return value if type(value) is int else parse_size(_read_text(value))


def _read_list(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, Sequence):
        raise ValueError("a list of strings is needed")
    return tuple(_read_text(each) for each in value)


def _read_map(value: object) -> dict[str, str]:
    if isinstance(value, Mapping):
        return {str(key): _read_text(each) for key, each in value.items()}
    found = {}
    for text in _read_list(value):
        key, equals, rest = text.partition("=")
        if not key or not equals:
            raise ValueError("key=value is needed")
        found[key] = rest
    return found


def _read_ulimits(value: object) -> dict[str, Ulimit]:
    if isinstance(value, Mapping):
        found = {}
        for name, each in value.items():
            if not isinstance(each, Mapping):
                raise ValueError('an object such as {"Name": …, "Soft": …, "Hard": …} is needed')
            name = str(each.get("Name", name))
            found[name] = Ulimit(name, _read_number(each["Soft"]), _read_number(each["Hard"]))
        return found
    found = {}
    for text in _read_list(value):
        match = re.fullmatch(r"(\w+)=(-?\d+)(?::(-?\d+))?", text)
        if match is None:
            raise ValueError("name=soft[:hard] is needed")
        soft = int(match[2])
        found[match[1]] = Ulimit(match[1], soft, int(match[3]) if match[3] else soft)
    return found


def _read_runtimes(value: object) -> dict[str, dict[str, Any]]:
    if not isinstance(value, Mapping):
        return {name: {"path": path} for name, path in _read_map(value).items()}
    for name, each in value.items():
        if not isinstance(each, Mapping) or not isinstance(each.get("path"), str):
            raise ValueError(f'runtime {name}: an object such as {{"path": "…"}} is needed')
        unknown = set(each) - {"path", "runtimeArgs"}
        if unknown:
            raise ValueError(f"runtime {name}: {', '.join(sorted(unknown))} is not supported")
    return {str(name): dict(each) for name, each in value.items()}


def _read_pools(value: object) -> tuple[AddressPool, ...]:
    entries: list[tuple[str, int]] = []
    for each in [value] if isinstance(value, (str, Mapping)) else list(value):  # type: ignore[call-overload]
        if isinstance(each, str):
            fields = dict(part.split("=", 1) for part in each.split(",") if "=" in part)
            entries.append((fields["base"], int(fields["size"])))
        else:
            entries.append((_read_text(each["base"]), _read_number(each["size"])))
    for base, size in entries:
        prefix = ipaddress.ip_network(base)
        if not prefix.prefixlen <= size <= prefix.max_prefixlen:
            raise ValueError(f"size {size} does not fit into {base}")
    return tuple(AddressPool(base, size) for base, size in entries)


#: By kind of directive; raise ``ValueError`` and its like.
READERS: dict[str, Any] = {
    "text": _read_text,
    "flag": _read_flag,
    "number": _read_number,
    "duration": _read_duration,
    "size": _read_size,
    "list": _read_list,
    "map": _read_map,
    "ulimits": _read_ulimits,
    "runtimes": _read_runtimes,
    "pools": _read_pools,
}
