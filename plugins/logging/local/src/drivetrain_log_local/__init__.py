"""The local log driver: compact files in the container's directory, rotated and compressed.

``local/`` holds files numbered from 1 on, of which the last is being written; see
:mod:`drivetrain_log_local.frames` for what is in them. No other tool is expected to read them:
whoever needs that takes json-file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

from drivetrain import hookimpl
from drivetrain.errors import InvalidArgument
from drivetrain.log import Batch, LogContext, LogQuery, LogTraits, Record
from drivetrain.options import Option, Options
from drivetrain_log_local.files import LogFiles


class Local:
    """Writes each batch as one frame, and reads them back."""

    OPTIONS: ClassVar[tuple[Option, ...]] = (
        Option("max-size", "size", default=20 << 20, help="begin a new file beyond this size"),
        Option("max-file", "integer", default=5, help="files to keep, the newest included"),
        Option("compress", "boolean", default=True, help="compress all but the newest"),
    )

    @hookimpl
    def log_traits(self) -> LogTraits:
        return LogTraits(readable=True)

    @hookimpl
    def log_options(self) -> Sequence[Option]:
        return self.OPTIONS

    @hookimpl
    def log_validate(self, options: Options) -> bool:
        if options.integer("max-size") < 1:
            raise InvalidArgument("option max-size: a size above 0 is needed")
        if options.integer("max-file") < 1:
            text = options.given["max-file"]
            raise InvalidArgument(f"option max-file={text}: a number above 0 is needed")
        return True

    @hookimpl
    def log_open(self, context: LogContext, options: Options) -> bool:
        self._files = LogFiles(context, options)
        self._files.open()
        return True

    @hookimpl
    def log_write(self, batch: Batch) -> bool:
        self._files.write(batch)
        return True

    @hookimpl
    def log_close(self) -> bool:
        self._files.close()
        return True

    @hookimpl
    def log_read(self, context: LogContext, options: Options, query: LogQuery) -> Iterator[Record]:
        # Reading needs imports that the shim can do without.
        from drivetrain_log_local.reading import read

        return read(LogFiles(context, options), query, context.attributes or None)
