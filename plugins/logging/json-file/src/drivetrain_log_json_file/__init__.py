"""The json-file log driver: docker's JSON lines in a file of the container's directory.

``<id>-json.log`` holds the newest lines; with ``max-size`` it is renamed to ``.1`` when full, and
so on up to ``max-file`` files, with ``compress`` gzipped from ``.1`` on. The file's format is what
tools that read docker's logs expect, see :mod:`drivetrain_log_json_file.lines`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

from drivetrain import hookimpl
from drivetrain.errors import InvalidArgument
from drivetrain.log import Batch, LogContext, LogQuery, LogTraits, Record
from drivetrain.options import Option, Options
from drivetrain_log_json_file.files import LogFiles
from drivetrain_log_json_file.lines import Encoder
from drivetrain_log_json_file.reading import read


class JsonFile:
    """Writes each line as one line of JSON, and reads them back."""

    OPTIONS: ClassVar[tuple[Option, ...]] = (
        Option("max-size", "size", help="rotate beyond this size; unlimited by default"),
        Option("max-file", "integer", default=1, help="files to keep, the newest included"),
        Option("compress", "boolean", default=False, help="gzip rotated files"),
    )

    @hookimpl
    def log_traits(self) -> LogTraits:
        return LogTraits(readable=True)

    @hookimpl
    def log_options(self) -> Sequence[Option]:
        return self.OPTIONS

    @hookimpl
    def log_validate(self, options: Options) -> bool:
        size, count = options.integer("max-size"), options.integer("max-file")
        if "max-size" in options.given and size < 1:
            raise InvalidArgument("option max-size: a size above 0 is needed")
        if count < 1:
            raise InvalidArgument(f"option max-file={count}: a number above 0 is needed")
        if count > 1 and not size:
            raise InvalidArgument("option max-file: it has no effect without max-size")
        if options.boolean("compress") and (count < 2 or not size):
            raise InvalidArgument("option compress: it needs max-size, and max-file above 1")
        return True

    @hookimpl
    def log_open(self, context: LogContext, options: Options) -> bool:
        self._files = LogFiles(context, options)
        self._files.open()
        self._encoder = Encoder(context.attributes)
        return True

    @hookimpl
    def log_write(self, batch: Batch) -> bool:
        self._files.write(self._encoder.encode(batch))
        return True

    @hookimpl
    def log_close(self) -> bool:
        self._files.close()
        return True

    @hookimpl
    def log_read(self, context: LogContext, options: Options, query: LogQuery) -> Iterator[Record]:
        return read(LogFiles(context, options), query)
