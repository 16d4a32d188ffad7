"""The exit code that a start which failed has, as in Docker."""

from __future__ import annotations

import re

_NOT_FOUND = re.compile(
    r"executable file not found|no such file or directory|not found in \$PATH", re.IGNORECASE
)
_NOT_PERMITTED = re.compile(r"permission denied|is a directory|exec format error", re.IGNORECASE)


def exit_code_of_error(message: str) -> int:
    """Return 127 for a missing command, 126 for one that cannot be run, 128 for the rest."""
    if _NOT_FOUND.search(message):
        return 127
    return 126 if _NOT_PERMITTED.search(message) else 128
