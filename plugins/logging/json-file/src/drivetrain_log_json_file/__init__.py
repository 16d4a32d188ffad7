"""The json-file log driver: docker's JSON lines in a file of the container's directory.

``<id>-json.log`` holds the newest lines; it is renamed to ``.1`` when it has ``max-size``, and so
on up to ``max-file`` files, with ``compress`` gzipped from ``.1`` on. Who sets none of these gets
five files of 20 MB; ``max-size=0`` is one file without a limit. The file's format is what tools
that read docker's logs expect, see :mod:`drivetrain_log_json_file.lines`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

from drivetrain import hookimpl
from drivetrain.errors import InvalidArgument
from drivetrain.log import Batch, LogContext, LogQuery, LogTraits, Record
from drivetrain.options import Option, Options
from drivetrain_log_json_file.files import Limits, LogFiles
from drivetrain_log_json_file.lines import Encoder
from drivetrain_log_json_file.reading import read


class JsonFile:
    """Writes each line as one line of JSON, and reads them back."""

    OPTIONS: ClassVar[tuple[Option, ...]] = (
        Option("max-size", "size", help="rotate beyond this size (20m unless 0: no limit)"),
        Option("max-file", "integer", help="files to keep (5; 1 when only max-size is set)"),
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
        limits = Limits.of(options)
        if "max-file" in options.given and limits.count < 1:
            text = options.given["max-file"]
            raise InvalidArgument(f"option max-file={text}: a number above 0 is needed")
        if limits.count > 1 and not limits.size:
            raise InvalidArgument("option max-file: it has no effect with max-size=0")
        if options.boolean("compress") and (limits.count < 2 or not limits.size):
            raise InvalidArgument("option compress: it needs max-size, and max-file above 1")
        return True

    @hookimpl
    def log_open(self, context: LogContext, options: Options) -> bool:
        self._files = LogFiles(context, options)
        self._files.open()
        attributes = dict(context.attributes)
        if context.tag not in (
            "",
            context.container_id[:12],
        ):  # as docker does for a tag of one's own
            attributes["tag"] = context.tag
        self._encoder = Encoder(attributes)
        return True

    @hookimpl
    def log_write(self, batch: Batch) -> bool:
        try:
            self._files.write(self._encoder.encode(batch))
        except OSError:
            # The engine gives the batch again: it must not hold what is written already.
            del batch.lines[: self._files.written]
            raise
        return True

    @hookimpl
    def log_close(self) -> bool:
        self._files.close()
        return True

    @hookimpl
    def log_read(self, context: LogContext, options: Options, query: LogQuery) -> Iterator[Record]:
        return read(LogFiles(context, options), query)
