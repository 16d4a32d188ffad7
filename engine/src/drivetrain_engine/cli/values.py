"""Reading and writing the values of flags: sizes, durations, times, key=value lists."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Sequence

from drivetrain_engine.cli.errors import UsageError

_SIZE = re.compile(r"(-?\d+(?:\.\d+)?) ?([kmgtp]?)(?:i?b)?", re.IGNORECASE)
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")
_NANOSECONDS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}


def parse_size(text: str, flag: str) -> int:
    """Return the bytes of ``64m`` or ``1.5g`` (powers of 1024); ``-1`` stays -1."""
    if text == "-1":
        return -1
    match = _SIZE.fullmatch(text.strip())
    if match is None or text.startswith("-"):
        raise UsageError(
            f"invalid argument {text!r} for {flag}: a size such as 64m or 1g is needed"
        )
    return int(float(match[1]) * 1024 ** " kmgtp".index(match[2].lower() or " "))


def parse_duration(text: str, flag: str) -> int:
    """Return the nanoseconds of ``1m30s`` or ``500ms``."""
    if text == "0":
        return 0
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise UsageError(
            f"invalid argument {text!r} for {flag}: a duration such as 1m30s is needed"
        )
    return int(sum(float(number) * _NANOSECONDS[unit] for number, unit in parts))


def parse_cpus(text: str) -> int:
    """Return the billionths of a CPU that ``1.5`` means."""
    try:
        return round(float(text) * 1e9)
    except ValueError:
        raise UsageError(f"invalid argument {text!r} for --cpus: a number is needed") from None


def parse_time(text: str) -> str:
    """Return seconds since 1970 for a time stamp, or for a duration before now (``10m``)."""
    if not text or re.fullmatch(r"\d+(\.\d+)?", text):
        return text
    if _DURATION.match(text) and "-" not in text:
        return f"{time.time() - parse_duration(text, 'the time') / 1e9:.9f}"
    from datetime import datetime

    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(
            f"invalid time {text!r}: a duration such as 10m, seconds since 1970, or"
            " 2006-01-02T15:04:05 is needed"
        ) from None
    return f"{moment.timestamp():.9f}"


def pairs(items: Iterable[str], flag: str = "", required: bool = False) -> dict[str, str]:
    """Return the mapping of ``key=value`` items; a missing value is the empty string."""
    mapping: dict[str, str] = {}
    for item in items:
        key, separator, value = item.partition("=")
        if not key or (required and not separator):
            raise UsageError(f"invalid argument {item!r} for {flag}: key=value is needed")
        mapping[key] = value
    return mapping


def read_lines(path: str, flag: str) -> list[str]:
    """Return the lines of a file that say something: no blank ones, no comments."""
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.read().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {flag} {path}: {error}") from error
    kept = [line.lstrip() for line in lines]
    return [line for line in kept if line and not line.startswith("#")]


def environment(files: Sequence[str], given: Sequence[str]) -> list[str]:
    """Return ``NAME=value`` items: those of files first, a bare name from our environment."""
    items = [line for path in files for line in read_lines(path, "--env-file")]
    result: list[str] = []
    for item in [*items, *given]:
        name, separator, _ = item.partition("=")
        if not name:
            raise UsageError(f"invalid environment variable {item!r}: NAME=value is needed")
        if separator:
            result.append(item)
        elif name in os.environ:
            result.append(f"{name}={os.environ[name]}")
        elif item in given:
            result.append(name)
    return result


def filters(items: Sequence[str]) -> dict[str, list[str]]:
    """Return the ``filters`` of the API for ``--filter key=value`` items."""
    found: dict[str, list[str]] = {}
    for item in items:
        key, separator, value = item.partition("=")
        if not separator:
            raise UsageError(f"invalid filter {item!r}: key=value is needed")
        found.setdefault(key.strip().lower(), []).append(value.strip())
    return found


def parse_restart(text: str) -> dict[str, object]:
    """Return the RestartPolicy of ``no``, ``always``, ``unless-stopped``, ``on-failure[:n]``."""
    name, separator, count = text.partition(":")
    if name not in ("", "no", "always", "unless-stopped", "on-failure"):
        raise UsageError(
            f"invalid restart policy {text!r}: no, always, unless-stopped or on-failure[:n]"
        )
    if separator and not count.isdigit():
        raise UsageError(f"invalid restart policy {text!r}: the maximum retry count is no integer")
    return {"Name": name or "no", "MaximumRetryCount": int(count or 0)}


def human_size(size: float, digits: int = 4) -> str:
    """Return bytes in powers of 1000 as image sizes are shown: ``1.24MB``."""
    units = ("B", "kB", "MB", "GB", "TB", "PB")
    index = 0
    while size >= 1000 and index < len(units) - 1:
        size /= 1000
        index += 1
    return f"{_digits(size, digits)}{units[index]}"


def human_memory(size: float) -> str:
    """Return bytes in powers of 1024 as memory is shown: ``1.5MiB``."""
    units = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
    index = 0
    while size >= 1024 and index < len(units) - 1:
        size /= 1024
        index += 1
    return f"{_digits(size, 4)}{units[index]}"


def _digits(number: float, digits: int) -> str:
    return f"{number:.{digits}g}" if number < 10 ** (digits - 1) else f"{number:.0f}"


def human_duration(seconds: float) -> str:
    """Return a duration as docker words it: ``About a minute``, ``3 hours``."""
    whole = int(seconds)
    if whole < 1:
        return "Less than a second"
    if whole == 1:
        return "1 second"
    if whole < 60:
        return f"{whole} seconds"
    minutes = whole // 60
    if minutes == 1:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    hours = int(seconds / 3600 + 0.5)
    for limit, divisor, one, many in (
        (2, 1, "About an hour", ""),
        (48, 1, "", "hours"),
        (24 * 7 * 2, 24, "", "days"),
        (24 * 30 * 2, 24 * 7, "", "weeks"),
        (24 * 365 * 2, 24 * 30, "", "months"),
    ):
        if hours < limit:
            return one or f"{hours // divisor} {many}"
    return f"{int(hours / 24 / 365)} years"


def timestamp(text: str) -> float:
    """Return the seconds since 1970 of an API time; 0.0 for none."""
    if not text or text.startswith("0001-"):
        return 0.0
    from calendar import timegm

    match = re.match(r"(\d+)-(\d+)-(\d+)T(\d+):(\d+):(\d+)(\.\d+)?(Z|[+-]\d+:\d+)?", text)
    if match is None:
        return 0.0
    numbers = [int(part) for part in match.groups()[:6]]
    seconds = timegm((*numbers, 0, 0, 0)) + float(match[7] or 0)
    zone = match[8]
    if zone and zone != "Z":
        hours, minutes = zone[1:].split(":")
        offset = int(hours) * 3600 + int(minutes) * 60
        seconds -= offset if zone[0] == "+" else -offset
    return seconds


def local_time(seconds: float) -> str:
    """Return a time as docker's tables show it: ``2006-01-02 15:04:05 +0000 UTC``."""
    return time.strftime("%Y-%m-%d %H:%M:%S %z %Z", time.localtime(seconds))
