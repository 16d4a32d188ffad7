"""What a user asks of a container's log: the driver, its options, and those common to all."""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping

from drivetrain.errors import InvalidArgument
from drivetrain.options import Option, parse_options
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


class LogSubject:
    """Whose log it is, for tags and attributes.

    Args:
        container_id, name: of the container; the name without a slash.
        image_id, image_name: as the user gave it.
        command: with its arguments, separated by spaces.
        created: RFC 3339.
        labels, environment: of the container, for attributes.
        directory: its own directory.
    """

    def __init__(
        self, *, container_id: str, name: str, image_id: str, image_name: str, command: str,
        created: str, labels: Mapping[str, str], environment: list[str], directory: str,
    ) -> None:  # fmt: skip
        self.container_id = container_id
        self.name = name
        self.image_id = image_id
        self.image_name = image_name
        self.command = command
        self.created = created
        self.labels = labels
        self.environment = {
            name: value for name, _, value in (entry.partition("=") for entry in environment)
        }
        self.directory = directory

    def variables(self) -> dict[str, str]:
        """Return what tag templates may use."""
        return {
            "ID": self.container_id[:12],
            "FullID": self.container_id,
            "Name": self.name,
            "Command": self.command,
            "ImageID": self.image_id.removeprefix("sha256:")[:12],
            "ImageFullID": self.image_id,
            "ImageName": self.image_name,
            "Hostname": socket.gethostname(),
            "DaemonName": "engine",
        }


def setup(
    registry: Registry, driver: str, given: Mapping[str, str], subject: LogSubject
) -> LogSetup:
    """Check the options and return what the shim needs. No I/O.

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
    context: dict[str, object] = {
        "container_id": subject.container_id,
        "container_name": subject.name,
        "directory": subject.directory,
        "image_id": subject.image_id,
        "image_name": subject.image_name,
        "command": subject.command,
        "created": subject.created,
        "host": socket.gethostname(),
        "tag": templates.render("option tag", options.string("tag"), subject.variables()),
        "attributes": _attributes(owner, options.strings("labels"), options.strings("env"),
                                  options.string("labels-regex"), options.string("env-regex"),
                                  subject),
    }  # fmt: skip
    return LogSetup(
        driver, own, options.string("mode"), options.integer("max-buffer-size"), context
    )


def _attributes(
    owner: str, labels: tuple[str, ...], variables: tuple[str, ...], labels_regex: str,
    env_regex: str, subject: LogSubject,
) -> dict[str, str]:  # fmt: skip
    found: dict[str, str] = {}
    for option, names, expression, source in (
        ("labels-regex", labels, labels_regex, subject.labels),
        ("env-regex", variables, env_regex, subject.environment),
    ):
        found |= {key: source[key] for key in names if key in source}
        if expression:
            try:
                pattern = re.compile(expression)
            except re.error as error:
                raise InvalidArgument(f"{owner}: option {option}={expression!r}: {error}") from None
            found |= {key: value for key, value in source.items() if pattern.search(key)}
    return found
