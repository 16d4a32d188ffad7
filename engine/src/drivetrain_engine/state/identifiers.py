"""Identifiers of containers, networks and everything else that has one."""

from __future__ import annotations

import secrets


def new_id() -> str:
    """Return 64 random hexadecimal digits.

    The first twelve are never all decimal digits: tools would take them for a number.
    """
    while True:
        made = secrets.token_hex(32)
        if not made[:12].isdigit():
            return made
