"""The names of this machine, and whether an image fits it."""

from __future__ import annotations

import os
from functools import cache
from typing import TYPE_CHECKING

import msgspec

from drivetrain.errors import InvalidArgument, NotFound

if TYPE_CHECKING:
    from drivetrain_engine.content import Images

_ARCHITECTURES = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv7l": "arm",
    "armv6l": "arm",
    "i686": "386",
    "ppc64le": "ppc64le",
    "s390x": "s390x",
    "riscv64": "riscv64",
}
_ALIASES = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64", "i386": "386"}


@cache
def architecture() -> str:
    """Return this machine's architecture in the words of OCI: ``amd64``, ``arm64``, …."""
    machine = os.uname().machine
    return _ARCHITECTURES.get(machine, machine)


def parse_platform(text: str) -> tuple[str, str]:
    """Return the system and the architecture of ``linux/amd64``, ``arm64`` or OCI's JSON.

    Raises:
        InvalidArgument: it is none of them.
    """
    if text.startswith("{"):
        try:
            document = msgspec.json.decode(text)
            return str(document.get("os", "linux")), str(document.get("architecture", ""))
        except (msgspec.DecodeError, AttributeError):
            raise InvalidArgument(f"invalid platform: {text}") from None
    parts = text.lower().split("/")
    if not 1 <= len(parts) <= 3 or not all(parts):
        raise InvalidArgument(f"invalid platform: {text}")
    if len(parts) == 1:
        known = set(_ARCHITECTURES.values()) | set(_ALIASES)
        parts = ["linux", parts[0]] if parts[0] in known else [parts[0], architecture()]
    return parts[0], _ALIASES.get(parts[1], parts[1])


def check_platform(platform: str, images: Images, name: str) -> None:
    """Check that a local image is of the platform that was asked for.

    Raises:
        NotFound: it is of another one.
    """
    system, wanted = parse_platform(platform)
    if not name:
        return
    config = images.get(name).config
    if (config.get("os", "linux"), config.get("architecture", wanted)) != (system, wanted):
        raise NotFound(
            f"image with reference {name} was found but its platform "
            f"({config.get('os')}/{config.get('architecture')}) does not match the specified "
            f"platform ({system}/{wanted})"
        )
