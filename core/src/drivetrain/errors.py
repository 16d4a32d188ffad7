"""The errors that every driver and every part of the engine raises.

A class says what kind of thing went wrong; its message says what happened, to which object, and
what to do next. Each class maps to one HTTP status of the API and to one exit code of the command
line. A driver raises these (or ``OSError``, which the caller turns into :class:`Internal`); the
core adds the driver's name, distribution and hook, see :attr:`EngineError.provider`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Provider:
    """Who raised an error: ``overlay2 from drivetrain-storage-overlay2 0.1.0, in layer_create``."""

    family: str
    driver: str
    distribution: str
    version: str
    hook: str

    def __str__(self) -> str:
        return f"{self.driver} from {self.distribution} {self.version}, in {self.hook}"


class EngineError(Exception):
    """The base of all errors that a user may see.

    Args:
        message: what happened, which object, what to do next; one sentence or two.
    """

    http_status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message
        #: The driver that raised this, filled in by the core; ``None`` for the engine's own.
        self.provider: Provider | None = None

    def __str__(self) -> str:
        return self.message


class NotModified(EngineError):
    """The object is already in the state asked for; nothing was done."""

    http_status = 304
    exit_code = 0


class InvalidArgument(EngineError):
    """A value that the caller gave is wrong; the message names it and what is accepted."""

    http_status = 400
    exit_code = 125


class Unauthenticated(EngineError):
    """The other side wants credentials that were not given or not accepted."""

    http_status = 401


class PermissionDenied(EngineError):
    """The caller or this process may not do that."""

    http_status = 403


class NotFound(EngineError):
    """No object of that name or id exists."""

    http_status = 404


class AlreadyExists(EngineError):
    """An object of that name or id exists, and is not what was asked for."""

    http_status = 409


class InUse(EngineError):
    """Somebody still uses the object; the message says who."""

    http_status = 409


class FailedPrecondition(EngineError):
    """The object is in the wrong state for this operation."""

    http_status = 409


class Cancelled(EngineError):
    """The caller gave up before the end."""

    http_status = 499


class NotSupported(EngineError):
    """The driver, the host or this build cannot do that, and what would make it possible."""

    http_status = 501


class Unavailable(EngineError):
    """A daemon, a server or a device that is needed does not answer now; trying again may help."""

    http_status = 503


class DeadlineExceeded(EngineError):
    """It took longer than the contract allows."""

    http_status = 504


class Exhausted(EngineError):
    """No space, address, port or other countable thing is left."""

    http_status = 507


class Internal(EngineError):
    """A fault of ours or of the host; the message has the details for a report."""

    http_status = 500


class Several(EngineError):
    """More than one thing went wrong, as in a teardown that goes on after an error."""

    def __init__(self, message: str, errors: list[Exception]) -> None:
        super().__init__(message + ": " + "; ".join(str(error) for error in errors))
        self.errors = errors
