"""Options that a driver declares, and their values once parsed.

A driver lists :class:`Option` objects; users give strings (``--storage-opt size=10G``,
``--log-opt max-size=10m``); :func:`parse_options` checks the strings and returns
:class:`Options`, a mapping with typed getters. All faults are reported in one error, and an
unknown key is named together with the closest known one.

Example::

    SCHEMA = (
        Option("size", "size", help="limit of the writable layer"),
        Option("mode", "choice", default="safe", choices=("safe", "fast"), help="how to write"),
    )
    options = parse_options("storage driver example", SCHEMA, {"size": "10G"})
    options.integer("size")    # 10737418240
    options.string("mode")     # "safe"
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from drivetrain.errors import InvalidArgument

OptionType = Literal[
    "string", "boolean", "integer", "float", "size", "duration", "percent", "choice", "list"
]
OptionValue = str | bool | int | float | tuple[str, ...] | None

_SIZE = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*([kmgtpKMGTP]?)(?:i?[bB])?\s*$")
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_TRUE = frozenset({"1", "t", "true", "yes", "on"})
_FALSE = frozenset({"0", "f", "false", "no", "off"})


@dataclass(frozen=True, slots=True)
class Option:
    """One option of a driver.

    Attributes:
        name: the key as users write it; ``*`` stands for any that is not declared.
        type: how the string is read. ``size`` gives bytes (``10G``, powers of 1024),
            ``duration`` seconds as a float (``1m30s``, ``250ms``), ``percent`` a float from 0
            to 100 (``10%``), ``list`` a tuple of comma-separated strings.
        help: one line for ``engine driver inspect``.
        default: the value when the user gives none.
        choices: for ``choice``: the accepted strings.
        required: the user has to give it.
        repeatable: may be given several times; the value is then a tuple of strings, and the
            raw value separates them by newlines.
        secret: masked wherever options are shown.
        retired: not ``None`` when the key is only still accepted; says what to do instead.
    """

    name: str
    type: OptionType = "string"
    help: str = ""
    default: OptionValue = None
    choices: tuple[str, ...] = ()
    required: bool = False
    repeatable: bool = False
    secret: bool = False
    retired: str | None = None


class Options(Mapping[str, OptionValue]):
    """Parsed options: a mapping of every declared name to its value or default.

    The typed getters are for drivers: each raises ``TypeError`` when the driver asks for another
    type than it declared, which is a fault of the driver.
    """

    __slots__ = ("_given", "_values")

    def __init__(
        self,
        values: Mapping[str, OptionValue] | None = None,
        given: Mapping[str, str] | None = None,
    ) -> None:
        self._values = dict(values or {})
        self._given = dict(given or {})

    def __getitem__(self, name: str) -> OptionValue:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"Options({sorted(self._given)})"

    @property
    def given(self) -> Mapping[str, str]:
        """The strings that the user gave, without defaults."""
        return dict(self._given)

    def string(self, name: str) -> str:
        """Return the value of a string or choice; the empty string when it has none."""
        value = self._values[name]
        if value is None:
            return ""
        if not isinstance(value, str):
            raise TypeError(f"option {name} is not a string")
        return value

    def boolean(self, name: str) -> bool:
        """Return the value of a boolean; false when it has none."""
        value = self._values[name]
        if value is None:
            return False
        if not isinstance(value, bool):
            raise TypeError(f"option {name} is not a boolean")
        return value

    def integer(self, name: str) -> int:
        """Return the value of an integer, or of a size in bytes; 0 when it has none."""
        value = self._values[name]
        if value is None:
            return 0
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"option {name} is not an integer")
        return value

    def number(self, name: str) -> float:
        """Return a float, a duration in seconds or a percentage; 0.0 when it has none."""
        value = self._values[name]
        if value is None:
            return 0.0
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(f"option {name} is not a number")
        return float(value)

    def strings(self, name: str) -> tuple[str, ...]:
        """Return the values of a list or repeatable option; empty when it has none."""
        value = self._values[name]
        if value is None:
            return ()
        if not isinstance(value, tuple):
            raise TypeError(f"option {name} is not a list")
        return value


def parse_size(text: str) -> int:
    """Return the bytes that ``10G``, ``512m`` or ``1.5k`` means; units are powers of 1024.

    Raises:
        ValueError: the text is not a size.
    """
    match = _SIZE.match(text)
    if match is None:
        raise ValueError("a size such as 512m or 10G is needed")
    return int(float(match[1]) * 1024 ** " kmgtp".index(match[2].lower() or " "))


def parse_duration(text: str) -> float:
    """Return the seconds that ``1m30s``, ``250ms`` or a plain number means.

    Raises:
        ValueError: the text is not a duration.
    """
    text = text.strip()
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    parts = _DURATION_PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError("a duration such as 500ms, 10s or 1m30s is needed")
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)


def parse_boolean(text: str) -> bool:
    """Return the truth value of ``true``, ``1``, ``no`` and the like.

    Raises:
        ValueError: the text is neither.
    """
    word = text.strip().lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise ValueError("true or false is needed")


def _parse_value(option: Option, text: str) -> OptionValue:
    if option.repeatable:
        return tuple(part for part in text.split("\n") if part)
    match option.type:
        case "boolean":
            return parse_boolean(text)
        case "integer":
            if not re.fullmatch(r"\s*[+-]?\d+\s*", text):
                raise ValueError("a whole number is needed")
            return int(text)
        case "float":
            return float(text)
        case "size":
            return parse_size(text)
        case "duration":
            return parse_duration(text)
        case "percent":
            number = float(text.strip().removesuffix("%"))
            if not 0 <= number <= 100:
                raise ValueError("a percentage from 0% to 100% is needed")
            return number
        case "choice":
            if text not in option.choices:
                raise ValueError("one of " + ", ".join(option.choices) + " is needed")
            return text
        case "list":
            return tuple(part.strip() for part in text.split(",") if part.strip())
        case _:
            return text


def closest(word: str, words: Sequence[str]) -> str:
    """Return `` (did you mean x?)`` for the word nearest to ``word``, or the empty string."""
    near = difflib.get_close_matches(word, words, n=1, cutoff=0.6)
    return f" (did you mean {near[0]}?)" if near else ""


def parse_options(owner: str, schema: Sequence[Option], given: Mapping[str, str]) -> Options:
    """Check what a user gave against what a driver declares.

    Args:
        owner: whose options these are, for messages: ``log driver json-file``.
        schema: the declared options.
        given: the user's strings by key.

    Returns:
        Every declared option with its value or default. Retired keys are accepted and left out.

    Raises:
        InvalidArgument: unknown keys, bad values, missing required options; all in one message.
    """
    known = {option.name: option for option in schema}
    values: dict[str, OptionValue] = {
        option.name: option.default
        for option in schema
        if option.retired is None and option.name != "*"
    }
    faults: list[str] = []
    for key, text in given.items():
        option = known.get(key, known.get("*"))
        if option is None:
            live = [name for name, entry in known.items() if entry.retired is None]
            hint = closest(key, live)
            if not hint:
                hint = f" (known: {', '.join(sorted(live))})" if live else " (it has no options)"
            faults.append(f"unknown option {key!r}{hint}")
        elif option.retired is None:
            try:
                values[key] = _parse_value(option, text)
            except ValueError as error:
                shown = "***" if option.secret else repr(text)
                reason = str(error) if "needed" in str(error) else "a number is needed"
                faults.append(f"option {key}={shown}: {reason}")
    for option in schema:
        if option.required and option.retired is None and option.name not in given:
            faults.append(f"option {option.name} is required: {option.help}")
    if faults:
        raise InvalidArgument(f"{owner}: " + "; ".join(faults))
    return Options(values, given)


def masked(schema: Sequence[Option], given: Mapping[str, str]) -> dict[str, str]:
    """Return ``given`` with the values of secret options replaced by ``***``."""
    secret = {option.name for option in schema if option.secret}
    return {key: "***" if key in secret else text for key, text in given.items()}
