"""The none log driver: nothing is kept."""

from __future__ import annotations

from drivetrain import hookimpl
from drivetrain.errors import NotSupported
from drivetrain.log import Batch, LogContext, LogQuery, LogTraits
from drivetrain.options import Options


class Nothing:
    """Takes records and keeps none; the shim does not even split lines for it."""

    @hookimpl
    def log_traits(self) -> LogTraits:
        return LogTraits(discards=True)

    @hookimpl
    def log_open(self, context: LogContext, options: Options) -> bool:
        return True

    @hookimpl
    def log_write(self, batch: Batch) -> bool:
        return True

    @hookimpl
    def log_read(self, context: LogContext, options: Options, query: LogQuery) -> None:
        raise NotSupported("configured logging driver does not support reading")
