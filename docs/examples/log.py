"""A log driver with every hook: a text file of time, stream and line."""

from drivetrain import hookimpl
from drivetrain.errors import InvalidArgument, NotSupported
from drivetrain.log import LogTraits, Record
from drivetrain.options import Option


class Example:
    @hookimpl
    def log_probe(self):
        try:
            open("/dev/null").close()
        except OSError as error:
            raise NotSupported(f"no /dev/null: {error}") from error

    @hookimpl
    def log_traits(self):
        return LogTraits(readable=True)

    @hookimpl
    def log_options(self):
        return (Option("name", default="lines", help="name of the file"),)

    @hookimpl
    def log_validate(self, options):
        if "/" in options.string("name"):
            raise InvalidArgument("log option name: a name without / is needed")
        return True

    @hookimpl
    def log_open(self, context, options):
        self.file = open(context.directory / options.string("name"), "ab")
        return True

    @hookimpl
    def log_connect(self):
        # A file has no receiver: opening it was all there is to try.
        return not self.file.closed

    @hookimpl
    def log_write(self, batch):
        head = f"{batch.time} {batch.stream} ".encode()
        self.file.write(b"".join(head + line + b"\n" for line in batch.lines))
        return True

    @hookimpl
    def log_flush(self):
        self.file.flush()
        return True

    @hookimpl
    def log_close(self):
        self.file.close()
        return True

    @hookimpl
    def log_read(self, context, options, query):
        with open(context.directory / options.string("name"), "rb") as file:
            lines = file.read().splitlines()
            while True:
                for line in lines if query.tail < 0 else lines[len(lines) - query.tail :]:
                    time, stream, text = line.split(b" ", 2)
                    if int(time) >= query.since and (not query.until or int(time) <= query.until):
                        yield Record(stream.decode(), int(time), text)
                over = query.ended()
                lines = file.read().splitlines()
                if not query.follow or (over and not lines):
                    return
                if not lines:
                    query.wait(0.1)

    @hookimpl
    def log_remove(self, context, options):
        (context.directory / options.string("name")).unlink(missing_ok=True)
        return True
