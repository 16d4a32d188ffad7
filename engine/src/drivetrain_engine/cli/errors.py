"""The errors of the command line; none of them shows a traceback without ``--debug``."""

from __future__ import annotations


class CliError(Exception):
    """Something a user is told: what happened and how to go on.

    Args:
        message: one sentence or two, without the leading ``engine:``.
        exit_code: of the process.
    """

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.message = message
        self.exit_code = exit_code


class UsageError(CliError):
    """A value on the command line is wrong; exit code 125 as for ``docker run``."""

    def __init__(self, message: str) -> None:
        super().__init__(message, 125)


class NoDaemon(CliError):
    """Nobody answers at the address."""


class ApiError(CliError):
    """The daemon answered with an error.

    Args:
        status: the HTTP status.
        message: of the answer.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
