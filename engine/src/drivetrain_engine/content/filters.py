"""Filters of lists and prunes, as the API has them: ``{"label": ["a=b"], "until": ["24h"]}``."""

from __future__ import annotations

import datetime
import re
import time
from collections.abc import Callable, Collection, Mapping, Sequence

from drivetrain.errors import InvalidArgument
from drivetrain.options import closest, parse_boolean, parse_duration

#: name to values; the older form of the API, name to ``{value: true}``, is accepted too.
Filters = Mapping[str, Sequence[str] | Mapping[str, bool]]

_TIME = re.compile(r"\d{4}-\d\d-\d\d")


def check_filters(filters: Filters, known: Collection[str]) -> dict[str, list[str]]:
    """Return the filters as lists.

    Raises:
        InvalidArgument: one that is not known.
    """
    result: dict[str, list[str]] = {}
    for name, values in filters.items():
        if name not in known:
            raise InvalidArgument(f"invalid filter '{name}'{closest(name, sorted(known))}")
        if isinstance(values, Mapping):
            values = [value for value, wanted in values.items() if wanted]
        result[name] = [str(value) for value in values]
    return result


def boolean_filter(filters: Mapping[str, Sequence[str]], name: str) -> bool | None:
    """Return the value of a filter that is true or false; ``None`` when it is not given.

    Raises:
        InvalidArgument: it is neither, or both.
    """
    values = filters.get(name) or []
    if not values:
        return None
    try:
        found = {parse_boolean(value) for value in values}
    except ValueError:
        found = set()
    if len(found) != 1:
        raise InvalidArgument(
            f"invalid filter '{name}={','.join(values)}': true or false is needed"
        )
    return found.pop()


def until_filter(filters: Mapping[str, Sequence[str]]) -> float | None:
    """Return the seconds since 1970 that the ``until`` filter means.

    Accepts seconds since 1970, RFC 3339 times and dates, and durations before now.

    Raises:
        InvalidArgument: several, or one that cannot be understood.
    """
    values = filters.get("until") or []
    if not values:
        return None
    if len(values) > 1:
        raise InvalidArgument("more than one until filter specified")
    text = values[0]
    try:
        if _TIME.match(text):
            moment = datetime.datetime.fromisoformat(text)
            return moment.timestamp()
        if re.fullmatch(r"\d+(\.\d+)?", text):
            return float(text)
        return time.time() - parse_duration(text)
    except (ValueError, OverflowError):
        raise InvalidArgument(
            f"invalid filter 'until={text}': a time, a date or a duration such as 24h is needed"
        ) from None


def _label_matches(label: str, labels: Mapping[str, str]) -> bool:
    name, equals, value = label.partition("=")
    return name in labels and (not equals or labels[name] == value)


def label_filter(
    filters: Mapping[str, Sequence[str]],
) -> Callable[[Mapping[str, str] | None], bool]:
    """Return the test that ``label`` and ``label!`` mean: all of the one, none of the other."""
    wanted = list(filters.get("label") or [])
    refused = list(filters.get("label!") or [])

    def matches(labels: Mapping[str, str] | None) -> bool:
        labels = labels or {}
        return all(_label_matches(label, labels) for label in wanted) and not any(
            _label_matches(label, labels) for label in refused
        )

    return matches
