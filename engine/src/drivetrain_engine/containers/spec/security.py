"""``--security-opt``: what it accepts, and what the host has of it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import msgspec

from drivetrain.errors import InvalidArgument
from drivetrain_engine.containers.spec.seccomp import check_profile


class Security(msgspec.Struct):
    """Parsed options.

    Attributes:
        no_new_privileges: ``None``: not said.
        seccomp: ``unconfined``, ``builtin``, the JSON of a profile; empty: the default.
        apparmor: name of a profile; empty: none.
    """

    no_new_privileges: bool | None = None
    seccomp: str = ""
    apparmor: str = ""


def parse_security(options: Sequence[str] | None) -> Security:
    """Read the options.

    Raises:
        InvalidArgument: an unknown one, or a broken seccomp profile.
    """
    found = Security()
    for text in options or ():
        # Clients before 1.11 separate by a colon.
        key, equals, value = text.partition("=")
        if not equals:
            key, equals, value = text.partition(":")
        match key:
            case "no-new-privileges":
                if value not in ("", "true", "false"):
                    raise InvalidArgument(f'invalid --security-opt 2: "{text}"')
                found.no_new_privileges = value != "false"
            case "seccomp" if value:
                if value not in ("unconfined", "builtin"):
                    check_profile(value)
                found.seccomp = value
            case "apparmor" if value:
                found.apparmor = value
            case "label" if value:
                pass  # SELinux is off on this host, as dockerd has it by default
            case "systempaths" if value == "unconfined":
                pass  # clients send the empty path lists along
            case "writable-cgroups" if value in ("false", ""):
                pass
            case _:
                raise InvalidArgument(f'invalid --security-opt 2: "{text}"')
    return found


@cache
def apparmor_enabled() -> bool:
    """Tell whether this host's kernel has AppArmor switched on."""
    try:
        return Path("/sys/module/apparmor/parameters/enabled").read_text().startswith("Y")
    except OSError:
        return False
