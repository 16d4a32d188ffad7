"""What a user asks of a container's log: the driver, its options, and those common to all."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from drivetrain.errors import InvalidArgument
from drivetrain.options import Option, Options, parse_options
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
        help="whether the container waits for the driver",
    ),
    Option("max-buffer-size", "size", default=1 << 20, help="bytes that wait in non-blocking mode"),
    Option("tag", default="{{.ID}}", help="template of the name that records carry"),
    Option("labels", "list", help="keys of labels to send with each record"),
    Option("labels-regex", help="expression for keys of labels to send"),
    Option("env", "list", help="variables to send with each record"),
    Option("env-regex", help="expression for variables to send"),
)
_NAMES = frozenset(option.name for option in COMMON)


def parse_log_config(
    registry: Registry,
    driver: str,
    given: Mapping[str, str],
    *,
    container_id: str,
    container_name: str,
    directory: Path,
    image_id: str = "",
    image_name: str = "",
    command: str = "",
    created: str = "",
    host: str = "",
    labels: Mapping[str, str] | None = None,
    env: Iterable[str] = (),
) -> LogSetup:
    """Check a container's log options and return what its shim needs. No I/O.

    The keyword arguments say whose log it is, for tags and attributes: the ids in full, the name
    without a slash, the image as the user gave it, the command with its arguments, the time of
    creation in RFC 3339.

    Raises:
        InvalidArgument: an unknown option or a bad value, named.
        NotFound: there is no such driver.
    """
    loaded = registry.log(driver)
    schema = [*COMMON, *loaded.call.log_options()]
    owner = f"log driver {driver}"
    options = parse_options(owner, schema, given)
    own = {key: value for key, value in given.items() if key not in _NAMES}
    loaded.call.log_validate(parse_options(owner, loaded.call.log_options(), own))
    if "max-buffer-size" in given and options.string("mode") != "non-blocking":
        raise InvalidArgument(f"{owner}: option max-buffer-size: it needs mode=non-blocking")
    variables = {
        "ID": container_id[:12],
        "FullID": container_id,
        "Name": container_name,
        "Command": command,
        "ImageID": image_id.removeprefix("sha256:")[:12],
        "ImageFullID": image_id,
        "ImageName": image_name,
        "Hostname": host,
        "DaemonName": "engine",
    }
    environment = {key: value for key, _, value in (entry.partition("=") for entry in env)}
    context: dict[str, object] = {
        "container_id": container_id,
        "container_name": container_name,
        "directory": str(directory),
        "image_id": image_id,
        "image_name": image_name,
        "command": command,
        "created": created,
        "host": host,
        "tag": templates.render("option tag", options.string("tag"), variables),
        "attributes": {
            **_attributes(owner, options, "labels", labels or {}),
            **_attributes(owner, options, "env", environment),
        },
    }
    return LogSetup(
        driver, own, options.string("mode"), options.integer("max-buffer-size"), context
    )


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
