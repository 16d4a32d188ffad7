"""An extension with every hook: it counts, refuses, wraps, and answers."""

import click

from drivetrain import hookimpl
from drivetrain.errors import PermissionDenied
from drivetrain.extension import Answer, ApiRoute, Metric


class Commits:
    """Middleware: around a hook of every storage driver."""

    def __init__(self):
        self.count = 0

    @hookimpl(wrapper=True)
    def layer_commit(self, key):
        self.count += 1
        return (yield)


@click.command("count")
def count_command():
    """Show up as ``engine count``."""
    click.echo("see GET /extensions/example/count")


class Example:
    @hookimpl
    def extension_open(self, settings):
        self.events = 0
        self.commits = Commits()

    @hookimpl
    def extension_close(self):
        self.events = 0

    @hookimpl
    def event_emitted(self, event):
        self.events += 1

    @hookimpl
    def container_creating(self, spec):
        if spec["HostConfig"].get("Privileged"):
            raise PermissionDenied("privileged containers are not allowed on this host")

    @hookimpl
    def extension_middleware(self):
        return (self.commits,)

    @hookimpl
    def extension_routes(self):
        return (ApiRoute("GET", "count", lambda query, body: Answer({"events": self.events})),)

    @hookimpl
    def extension_metrics(self):
        return (Metric("example_events_total", self.events, "Events seen", type="counter"),)

    @hookimpl
    def extension_commands(self):
        return (count_command,)
