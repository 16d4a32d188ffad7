"""``engine volume``."""

from __future__ import annotations

import click

from drivetrain_engine.cli import values
from drivetrain_engine.cli.commands.lifecycle import each
from drivetrain_engine.cli.commands.shared import confirm, inspect_objects
from drivetrain_engine.cli.errors import ApiError, UsageError
from drivetrain_engine.cli.flags import GoGroup, flag, many, option
from drivetrain_engine.cli.output import Row, echo, listing, mapping_text, warn
from drivetrain_engine.cli.session import api


@click.group("volume", cls=GoGroup)
def volume_command() -> None:
    """Manage volumes."""


@volume_command.command("create")
@option("-d", "--driver", default="local", help="Driver (local)")
@many("--label", help="Label (key=value)")
@many("-o", "--opt", help="Option of the driver (key=value)")
@option("--name", "old_name", default="", hidden=True)
@click.argument("name", default="")
def create(
    name: str, driver: str, label: tuple[str, ...], opt: tuple[str, ...], old_name: str
) -> None:
    """Create a volume; without a name it gets one."""
    if name and old_name:
        raise UsageError("conflicting options: give the name once")
    body = {
        "Name": name or old_name,
        "Driver": driver,
        "DriverOpts": values.pairs(opt),
        "Labels": values.pairs(label),
    }
    echo(api().post("/volumes/create", {key: one for key, one in body.items() if one})["Name"])


@volume_command.command("ls")
@many("-f", "--filter", help="Show those that match (key=value)")
@option("--format", "form", default="", help="table, json, or a template")
@flag("-q", "--quiet", help="Show names only")
def list_volumes(filter: tuple[str, ...], form: str, quiet: bool) -> None:
    """List volumes."""
    answer = api().get("/volumes", filters=values.filters(filter))
    for warning in answer.get("Warnings") or ():
        warn(f"WARNING: {warning}")
    rows = [
        Row(
            Name=one["Name"],
            Driver=one["Driver"],
            Scope=one.get("Scope", "local"),
            Mountpoint=one.get("Mountpoint", ""),
            Labels=mapping_text(one.get("Labels")),
            Links="N/A",
            Size="N/A",
        )
        for one in sorted(answer.get("Volumes") or (), key=lambda one: one["Name"])
    ]
    columns = (("DRIVER", "Driver"), ("VOLUME NAME", "Name"))
    listing(rows, columns, form=form, quiet="Name" if quiet else "")


volume_command.add_command(list_volumes, "list")


@volume_command.command("inspect")
@option("-f", "--format", "form", default="", help="A template, or json")
@click.argument("volumes", nargs=-1, required=True)
def inspect(volumes: tuple[str, ...], form: str) -> int:
    """Show all about volumes."""
    return inspect_objects(volumes, ("volume",), form)


@volume_command.command("rm")
@flag("-f", "--force", help="Remove it whatever its driver says; missing ones are fine")
@click.argument("volumes", nargs=-1, required=True)
def remove(volumes: tuple[str, ...], force: bool) -> int:
    """Remove volumes that no container uses."""
    client = api()

    def work(name: str) -> None:
        try:
            client.request("DELETE", f"/volumes/{name}", query={"force": force})
        except ApiError as error:
            if not (force and error.status == 404):
                raise

    return each(volumes, work)


volume_command.add_command(remove, "remove")


@volume_command.command("prune")
@flag("-a", "--all", help="Remove named ones too")
@many("--filter", help="Remove those that match (key=value)")
@flag("-f", "--force", help="Do not ask")
def prune(all: bool, filter: tuple[str, ...], force: bool) -> None:
    """Remove volumes that no container uses: anonymous ones, or all."""
    which = "all" if all else "anonymous"
    confirm(f"This will remove {which} local volumes not used by at least one container.", force)
    wanted = values.filters(filter)
    if all:
        wanted["all"] = ["true"]
    answer = api().json("POST", "/volumes/prune", query={"filters": wanted})
    removed = answer.get("VolumesDeleted") or ()
    if removed:
        echo("Deleted Volumes:")
        for name in removed:
            echo(name)
        echo()
    echo(f"Total reclaimed space: {values.human_size(answer.get('SpaceReclaimed') or 0)}")
