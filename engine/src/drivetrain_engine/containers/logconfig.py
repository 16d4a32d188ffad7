"""What a user asks of a container's log: its drivers, their options, and those common to all."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from drivetrain.calling import Driver
from drivetrain.errors import EngineError, InvalidArgument, NotFound
from drivetrain.log import LogHooks
from drivetrain.options import Option, Options, masked, parse_options
from drivetrain.registry import Registry
from drivetrain_engine.containers import templates
from drivetrain_engine.containers.protocol import LogSetup

#: Options that every log driver has; the engine acts on them.
COMMON = (
    Option(
        "mode",
        "choice",
        default="blocking",
        choices=("blocking", "non-blocking"),
        help="whether records are kept safe, or wait in memory",
    ),
    Option("max-buffer-size", "size", default=1 << 20, help="bytes that wait in non-blocking mode"),
    Option("max-line-size", "size", default=16 << 10, help="longer lines are cut into pieces"),
    Option("tag", default="{{.ID}}", help="template of the name that records carry"),
    Option("labels", "list", help="keys of labels to send with each record"),
    Option("labels-regex", help="expression for keys of labels to send"),
    Option("env", "list", help="variables to send with each record"),
    Option("env-regex", help="expression for variables to send"),
    Option("cache-disabled", "boolean", default=False, help="keep no copy for reading"),
    Option("cache-max-size", "size", default=20 << 20, help="bytes of a file of that copy"),
    Option("cache-max-file", "integer", default=5, help="files of that copy"),
    Option("cache-compress", "boolean", default=True, help="compress its older files"),
)
#: Options of all drivers whose receiver may be down.
SPOOL = (
    Option("spool-size", "size", default=100 << 20, help="bytes that wait on disk for a receiver"),
    Option(
        "spool-full",
        "choice",
        default="drop-oldest",
        choices=("drop-oldest", "block"),
        help="what happens then: the oldest go, or the container waits",
    ),
    Option("strict-start", "boolean", default=False, help="start only if the receiver answers"),
)
_NAMES = frozenset(option.name for option in (*COMMON, *SPOOL))
#: Bytes that ``max-line-size`` may have: a line is held in memory.
_LINES = (1 << 10, 16 << 20)
_CACHE = "cache-"


class LogOwner(NamedTuple):
    """Whose log it is, for tags and attributes.

    Attributes:
        container_id, image_id: in full.
        container_name: without a slash.
        directory: the container's own.
        image_name: as the user gave it.
        command: with its arguments.
        created: in RFC 3339.
        host: the name of this host.
        labels, env: of the container.
    """

    container_id: str
    container_name: str
    directory: Path
    image_id: str = ""
    image_name: str = ""
    command: str = ""
    created: str = ""
    host: str = ""
    labels: Mapping[str, str] = {}
    env: Sequence[str] = ()


def _load(registry: Registry, name: str) -> Driver[LogHooks]:
    try:
        return registry.log(name)
    except NotFound as error:
        # A 404 would have docker's client look for an image instead.
        raise InvalidArgument(str(error)) from error


def _schema(driver: Driver[LogHooks]) -> list[Option]:
    spool = SPOOL if driver.call.log_traits().remote else ()
    return [*COMMON, *spool, *driver.call.log_options()]


def share_options(
    registry: Registry, configs: Sequence[tuple[str, Mapping[str, str]]]
) -> list[tuple[str, dict[str, str]]]:
    """Give each of a container's log drivers its options.

    An option ``DRIVER:KEY`` is for that driver. Where there are several drivers, any other option
    of the first goes to all of them that know it and have no such option of their own.

    Raises:
        InvalidArgument: an unknown driver, or one that is named twice.
    """
    names = [name for name, _ in configs]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidArgument(f"log driver {twice} is named twice: each can be used once")
    known = {name: {option.name for option in _schema(_load(registry, name))} for name in names}
    found: dict[str, dict[str, str]] = {name: {} for name in names}
    shared: dict[str, str] = {}
    for name, given in configs:
        for key, value in given.items():
            prefix, colon, rest = key.partition(":")
            if colon and prefix in found:
                found[prefix][rest] = value
            elif name == names[0]:
                shared[key] = value
            else:
                found[name][key] = value
    for key, value in shared.items():
        # Nobody knows it: the first says so.
        for name in [name for name in names if key in known[name]] or names[:1]:
            found[name].setdefault(key, value)
    return list(found.items())


def shown_options(registry: Registry, driver: str, given: Mapping[str, str]) -> dict[str, str]:
    """Return options as anybody may see them: what the driver calls a secret is ``***``.

    Of a driver that is not installed any more nobody knows, so that all of its own are masked.
    """
    try:
        return masked(_schema(registry.log(driver)), given)
    except EngineError:
        return {key: text if key in _NAMES else "***" for key, text in given.items()}


def parse_log_configs(
    registry: Registry,
    configs: Sequence[tuple[str, Mapping[str, str]]],
    owner: LogOwner,
    cache_driver: str = "",
) -> list[LogSetup]:
    """Check the log options of a container and return what its shim needs. No I/O.

    Args:
        registry: where drivers come from.
        configs: each driver with its options, see :func:`share_options`.
        owner: whose log it is.
        cache_driver: keeps the copy for reading, where none of the drivers can read.

    Raises:
        InvalidArgument: an unknown driver or option, or a bad value, named.
    """
    loaded = [(_load(registry, name), given) for name, given in configs]
    setups = [_parse(driver, given, owner) for driver, given in loaded]
    traits = [driver.call.log_traits() for driver, _ in loaded]
    if any(each.readable for each in traits) or all(each.discards for each in traits):
        return setups
    given = {
        key: value
        for _, options in reversed(configs)
        for key, value in options.items()
        if key.startswith(_CACHE)
    }
    disabled = parse_options("log", COMMON, given).boolean("cache-disabled")
    if disabled or cache_driver not in registry.names("log"):
        return setups
    return [*setups, _cache(registry, cache_driver, given, setups[0])]


def _cache(registry: Registry, driver: str, given: Mapping[str, str], first: LogSetup) -> LogSetup:
    loaded = _load(registry, driver)
    names = {option.name for option in loaded.call.log_options()}
    options = {key.removeprefix(_CACHE): value for key, value in given.items()}
    options = {key: value for key, value in options.items() if key in names}
    schema = loaded.call.log_options()
    loaded.call.log_validate(parse_options(f"read cache ({driver})", schema, options))
    return LogSetup(driver, options, max_line=first.max_line, cache=True, context=first.context)


def parse_log_config(
    registry: Registry, driver: str, given: Mapping[str, str], owner: LogOwner
) -> LogSetup:
    """Check the options of one log driver; as :func:`parse_log_configs`."""
    return _parse(_load(registry, driver), given, owner)


def _parse(loaded: Driver[LogHooks], given: Mapping[str, str], owner: LogOwner) -> LogSetup:
    driver = loaded.name
    name = f"log driver {driver}"
    options = parse_options(name, _schema(loaded), given)
    own = {key: value for key, value in given.items() if key not in _NAMES}
    loaded.call.log_validate(parse_options(name, loaded.call.log_options(), own))
    _check(name, options, given)
    spool = options if "spool-size" in options else parse_options(name, SPOOL, {})
    return LogSetup(
        driver,
        own,
        mode=options.string("mode"),
        max_buffer=options.integer("max-buffer-size"),
        max_line=options.integer("max-line-size"),
        spool_size=spool.integer("spool-size"),
        spool_full=spool.string("spool-full"),
        strict=spool.boolean("strict-start"),
        context=_context(name, options, owner),
    )


def _check(name: str, options: Options, given: Mapping[str, str]) -> None:
    """Raise InvalidArgument for what the schema cannot say."""
    blocking = options.string("mode") == "blocking"
    if "max-buffer-size" in given and blocking:
        raise InvalidArgument(f"{name}: option max-buffer-size: it needs mode=non-blocking")
    for key in ("spool-size", "spool-full"):
        if key in given and not blocking:
            raise InvalidArgument(f"{name}: option {key}: it needs mode=blocking")
    if not _LINES[0] <= options.integer("max-line-size") <= _LINES[1]:
        text = given["max-line-size"]
        raise InvalidArgument(f"{name}: option max-line-size={text!r}: 1k to 16m is needed")
    if "spool-size" in given and options.integer("spool-size") < 1 << 20:
        text = given["spool-size"]
        raise InvalidArgument(f"{name}: option spool-size={text!r}: 1m at least is needed")


def _context(name: str, options: Options, owner: LogOwner) -> dict[str, object]:
    """Return the fields of a ``LogContext``, the tag and the attributes filled in."""
    variables = {
        "ID": owner.container_id[:12],
        "FullID": owner.container_id,
        "Name": owner.container_name,
        "Command": owner.command,
        "ImageID": owner.image_id.removeprefix("sha256:")[:12],
        "ImageFullID": owner.image_id,
        "ImageName": owner.image_name,
        "Hostname": owner.host,
        "DaemonName": "engine",
    }
    environment = {key: value for key, _, value in (entry.partition("=") for entry in owner.env)}
    return {
        "container_id": owner.container_id,
        "container_name": owner.container_name,
        "directory": str(owner.directory),
        "image_id": owner.image_id,
        "image_name": owner.image_name,
        "command": owner.command,
        "created": owner.created,
        "host": owner.host,
        "tag": templates.render("option tag", options.string("tag"), variables),
        "attributes": {
            **_attributes(name, options, "labels", owner.labels),
            **_attributes(name, options, "env", environment),
        },
    }


def _attributes(
    owner: str, options: Options, kind: str, source: Mapping[str, str]
) -> dict[str, str]:
    """Return what ``labels`` or ``env``, and the expression of that name, choose of a mapping."""
    found = {key: source[key] for key in options.strings(kind) if key in source}
    expression = options.string(f"{kind}-regex")
    if expression:
        try:
            pattern = re.compile(expression)
        except re.error as error:
            raise InvalidArgument(f"{owner}: option {kind}-regex={expression!r}: {error}") from None
        found |= {key: value for key, value in source.items() if pattern.search(key)}
    return found
