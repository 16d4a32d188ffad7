"""``engine storage``: what each storage driver holds, and moving containers between them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import click

from drivetrain_engine.cli import values
from drivetrain_engine.cli.errors import UsageError
from drivetrain_engine.cli.flags import GoGroup, flag
from drivetrain_engine.cli.output import Row, echo, listing, warn
from drivetrain_engine.cli.session import api


@click.group("storage", cls=GoGroup)
def storage_command() -> None:
    """See what storage drivers hold, and move containers between them."""


@storage_command.command("df")
@click.option("--format", "form", default="", help="table, json, or a template")
def df(form: str) -> None:
    """Show what each storage driver holds: containers, images' layers, bytes."""
    rows = []
    for one in api().get("/engine/storage/df"):
        rows.append(
            Row(
                Name=one["driver"],
                Default="*" if one["default"] else "",
                Containers=str(one["containers"]),
                ContainerSize=values.human_size(one["container_bytes"]),
                Layers=str(one["image_layers"]),
                LayerSize=values.human_size(one["image_bytes"]),
                Interrupted=str(one["interrupted"]),
                State=one["state"],
            )
        )
    columns = [
        ("DRIVER", "Name"),
        ("DEFAULT", "Default"),
        ("CONTAINERS", "Containers"),
        ("SIZE", "ContainerSize"),
        ("IMAGE LAYERS", "Layers"),
        ("SIZE", "LayerSize"),
        ("STATE", "State"),
    ]
    if any(row["Interrupted"] != "0" for row in rows):
        columns.append(("INTERRUPTED MOVES", "Interrupted"))
    listing(rows, columns, form=form)


@storage_command.command("migrate")
@click.option("--to", "target", required=True, help="Driver to move to")
@flag("-a", "--all", help="Move all containers")
@flag("--stop", help="Stop those that run, and start them again")
@click.option("-t", "--timeout", type=int, help="Seconds before a container is killed")
@flag("-n", "--dry-run", help="Show what would be done")
@click.argument("containers", nargs=-1)
def migrate(
    target: str,
    containers: tuple[str, ...],
    all: bool,
    stop: bool,
    timeout: int | None,
    dry_run: bool,
) -> int:
    """Move containers to another storage driver; images follow when they are needed.

    What a container wrote is copied with every attribute and compared before the old copy goes.
    Interrupted, the same command goes on where it was.
    """
    if bool(containers) == all:
        raise UsageError("name containers to migrate, or give --all")
    body = {"to": target, "containers": list(containers), "all": all, "stop": stop}
    body |= {"timeout": timeout, "dry_run": dry_run}
    failed = 0
    with api().open("POST", "/engine/storage/migrate", body=body, fresh=True) as answer:
        for step in _shown(answer.documents()):
            failed += step["status"] == "failed"
    return 1 if failed else 0


def _shown(steps: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Print the steps, those on the way on one line of a terminal that is written over."""
    live = sys.stderr.isatty()
    for step in steps:
        if step.get("error") and "status" not in step:
            step = {**step, "status": "failed"}
        status, text = step["status"], _text(step)
        passing = status in ("stopping", "unpacking", "copying", "verifying")
        if live:
            sys.stderr.write("\r\x1b[K" + (text if passing else ""))
            sys.stderr.flush()
        if status == "failed":
            warn(f"engine: {text}")
        elif not passing:
            echo(text)
        yield step


def _text(step: dict[str, Any]) -> str:
    """Return what a step tells a person."""
    status = step["status"]
    if status == "failed":
        return str(step["error"])
    way = f"{step['name']}: {step['from']} -> {step['to']}"
    size = values.human_size(step.get("bytes") or 0)
    if status == "there":
        return f"{step['name']}: on {step['to']} already"
    if status == "planned":
        restart = ", would be stopped and started again" if step.get("running") else ""
        return f"{way}: would move, {size}{restart}"
    if status == "migrated":
        return f"{way}: migrated in {step['seconds']:.1f} s"
    if step.get("total"):
        return f"{way}: {status} {step['current']}/{step['total']} entries, {size}"
    return f"{way}: {status}"
