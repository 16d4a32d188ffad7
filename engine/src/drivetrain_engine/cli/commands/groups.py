"""``engine container …`` and ``engine image …``: the same commands under their object's name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import click

from drivetrain_engine.cli import values
from drivetrain_engine.cli.commands.images import show_removed
from drivetrain_engine.cli.commands.shared import confirm, inspect_objects
from drivetrain_engine.cli.flags import GoGroup, flag, many, option
from drivetrain_engine.cli.output import echo
from drivetrain_engine.cli.session import api


class Aliases(GoGroup):
    """A group whose members are top-level commands, imported when called for."""

    aliases: ClassVar[Mapping[str, str]] = {}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return own commands and aliases."""
        return sorted({*super().list_commands(ctx), *self.aliases})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return an own command, or the top-level one behind an alias."""
        if cmd_name in self.aliases:
            from drivetrain_engine.cli.main import load

            return load(self.aliases[cmd_name])
        return super().get_command(ctx, cmd_name)


_SAME = (
    *("attach", "commit", "cp", "create", "diff", "exec", "export", "kill", "logs", "pause"),
    *("port", "ps", "rename", "restart", "rm", "run", "start", "stats", "stop", "top"),
    *("unpause", "update", "wait"),
)


class ContainerGroup(Aliases):
    """``engine container``."""

    aliases: ClassVar[Mapping[str, str]] = {
        **{name: name for name in _SAME},
        "ls": "ps",
        "list": "ps",
        "remove": "rm",
    }


class ImageGroup(Aliases):
    """``engine image``."""

    aliases: ClassVar[Mapping[str, str]] = {
        **{name: name for name in ("history", "import", "load", "save", "tag", "pull", "push")},
        "ls": "images",
        "list": "images",
        "rm": "rmi",
        "remove": "rmi",
    }


@click.group("container", cls=ContainerGroup)
def container_command() -> None:
    """Manage containers."""


@click.group("image", cls=ImageGroup)
def image_command() -> None:
    """Manage images."""


@container_command.command("inspect")
@option("-f", "--format", "form", default="", help="A template, or json")
@flag("-s", "--size", help="Count the sizes too")
@click.argument("containers", nargs=-1, required=True)
def inspect_containers(containers: tuple[str, ...], form: str, size: bool) -> int:
    """Show all about containers."""
    return inspect_objects(containers, ("container",), form, size)


@image_command.command("inspect")
@option("-f", "--format", "form", default="", help="A template, or json")
@click.argument("images", nargs=-1, required=True)
def inspect_images(images: tuple[str, ...], form: str) -> int:
    """Show all about images."""
    return inspect_objects(images, ("image",), form)


@container_command.command("prune")
@many("--filter", help="Remove those that match (key=value)")
@flag("-f", "--force", help="Do not ask")
def prune_containers(filter: tuple[str, ...], force: bool) -> None:
    """Remove all stopped containers."""
    confirm("This will remove all stopped containers.", force)
    answer = api().json("POST", "/containers/prune", query={"filters": values.filters(filter)})
    removed = answer.get("ContainersDeleted") or ()
    if removed:
        echo("Deleted Containers:")
        for name in removed:
            echo(name)
        echo()
    echo(f"Total reclaimed space: {values.human_size(answer.get('SpaceReclaimed') or 0)}")


@image_command.command("prune")
@flag("-a", "--all", help="Remove all that no container uses, not only untagged ones")
@many("--filter", help="Remove those that match (key=value)")
@flag("-f", "--force", help="Do not ask")
def prune_images(all: bool, filter: tuple[str, ...], force: bool) -> None:
    """Remove images that nobody needs."""
    which = "images without at least one container associated to them" if all else "dangling images"
    confirm(f"This will remove all {which}.", force)
    wanted = values.filters(filter)
    wanted.setdefault("dangling", ["false" if all else "true"])
    answer = api().json("POST", "/images/prune", query={"filters": wanted})
    removed = answer.get("ImagesDeleted") or ()
    if removed:
        echo("Deleted Images:")
        show_removed(removed)
        echo()
    echo(f"Total reclaimed space: {values.human_size(answer.get('SpaceReclaimed') or 0)}")
