"""``info``, ``version``, ``events``, ``inspect``, and ``engine system``."""

from __future__ import annotations

import json
import platform
import time
from importlib.metadata import version as version_of
from typing import Any

import click

from drivetrain_engine.cli import values
from drivetrain_engine.cli.commands.images import show_removed
from drivetrain_engine.cli.commands.shared import confirm, inspect_objects
from drivetrain_engine.cli.errors import CliError, UsageError
from drivetrain_engine.cli.flags import GoGroup, command, flag, many, option
from drivetrain_engine.cli.output import Row, document, echo, listing, warn
from drivetrain_engine.cli.session import api
from drivetrain_engine.cli.template import Template


@command("inspect")
@option("-f", "--format", "form", default="", help="A template, or json")
@flag("-s", "--size", help="Count the sizes of containers too")
@option(
    "--type",
    "kind",
    type=click.Choice(["container", "image", "network", "volume"]),
    help="Look among these objects only",
)
@click.argument("names", nargs=-1, required=True)
def inspect_command(names: tuple[str, ...], form: str, size: bool, kind: str | None) -> int:
    """Show all about containers, images, networks or volumes."""
    kinds = (kind,) if kind else ("container", "image", "network", "volume")
    return inspect_objects(names, kinds, form, size)


@command("version")
@option("-f", "--format", "form", default="", help="A template, or json")
def version_command(form: str) -> None:
    """Show the versions of this command and of the daemon."""
    number = version_of("drivetrain-engine")
    found: dict[str, Any] = {
        "Client": {
            "Version": number,
            "ApiVersion": "1.50",
            "Os": "linux",
            "Arch": platform.machine(),
            "PythonVersion": platform.python_version(),
        },
        "Server": None,
    }
    fault: CliError | None = None
    try:
        found["Server"] = api().get("/version")
    except CliError as error:
        fault = error
    document(found, form, _show_version)
    if fault:
        raise fault


def _show_version(found: dict[str, Any]) -> None:
    client, server = found["Client"], found["Server"]
    echo("Client: Drivetrain")
    for name, key in (("Version", "Version"), ("API version", "ApiVersion")):
        echo(f" {name + ':':<18}{client[key]}")
    echo(f" {'Python version:':<18}{client['PythonVersion']}")
    echo(f" {'OS/Arch:':<18}{client['Os']}/{client['Arch']}")
    if server:
        echo()
        echo("Server: " + str((server.get("Platform") or {}).get("Name") or "engine"))
        for name, key in (("Version", "Version"), ("API version", "ApiVersion")):
            suffix = f" (minimum version {server.get('MinAPIVersion')})" if "API" in name else ""
            echo(f" {name + ':':<18}{server.get(key)}{suffix}")
        echo(f" {'Kernel version:':<18}{server.get('KernelVersion', '')}")
        echo(f" {'OS/Arch:':<18}{server.get('Os')}/{server.get('Arch')}")


@command("info")
@option("-f", "--format", "form", default="", help="A template, or json")
def info_command(form: str) -> None:
    """Show what the daemon has and how it is set."""
    document(api().get("/info"), form, _show_info)


_INFO_LINES = (
    ("Containers", "Containers"),
    (" Running", "ContainersRunning"),
    (" Paused", "ContainersPaused"),
    (" Stopped", "ContainersStopped"),
    ("Images", "Images"),
    ("Server Version", "ServerVersion"),
    ("Storage Driver", "Driver"),
    ("Logging Driver", "LoggingDriver"),
    ("Cgroup Driver", "CgroupDriver"),
    ("Cgroup Version", "CgroupVersion"),
    ("Default Runtime", "DefaultRuntime"),
    ("Init Binary", "InitBinary"),
    ("Kernel Version", "KernelVersion"),
    ("Operating System", "OperatingSystem"),
    ("OSType", "OSType"),
    ("Architecture", "Architecture"),
    ("CPUs", "NCPU"),
    ("Total Memory", "MemTotal"),
    ("Name", "Name"),
    ("ID", "ID"),
    ("Engine Root Dir", "DockerRootDir"),
    ("Debug Mode", "Debug"),
    ("Live Restore Enabled", "LiveRestoreEnabled"),
)


def _show_info(found: dict[str, Any]) -> None:
    for name, key in _INFO_LINES:
        if key not in found:
            continue
        value = found[key]
        if key == "MemTotal":
            value = values.human_memory(value)
        echo(f"{name}: {str(value).lower() if isinstance(value, bool) else value}")
        if key == "Driver":
            for pair in found.get("DriverStatus") or ():
                echo(f" {pair[0]}: {pair[1]}")
        if key == "CgroupVersion":
            echo("Plugins:")
            for family, names in (found.get("Plugins") or {}).items():
                if names:
                    echo(f" {family}: {' '.join(names)}")
            echo(f"Runtimes: {' '.join(found.get('Runtimes') or {})}")
            echo("Security Options:")
            for option in found.get("SecurityOptions") or ():
                echo(f" {option.removeprefix('name=')}")
    if found.get("Labels"):
        echo("Labels:")
        for label in found["Labels"]:
            echo(f" {label}")
    for warning in found.get("Warnings") or ():
        warn(str(warning))


@command("events")
@many("-f", "--filter", help="Show those that match (key=value)")
@option("--format", "form", default="", help="json, or a template")
@option("--since", default="", help="From a time, or a duration ago (10m)")
@option("--until", default="", help="Up to a time, or a duration ago")
def events_command(filter: tuple[str, ...], form: str, since: str, until: str) -> None:
    """Show what happens, as it happens."""
    template = Template(form) if form not in ("", "json") else None
    query = {
        "filters": values.filters(filter),
        "since": values.parse_time(since),
        "until": values.parse_time(until),
    }
    with api().open("GET", "/events", query=query, fresh=True) as answer:
        for event in answer.documents():
            if form == "json":
                text = json.dumps(event, ensure_ascii=False, separators=(",", ":"))
            else:
                text = template.render(event) if template else event_text(event)
            click.echo(text)


def event_text(event: dict[str, Any]) -> str:
    """Return an event as one line: time, type, action, id, attributes."""
    nanoseconds = int(event.get("timeNano") or int(event.get("time") or 0) * 10**9)
    seconds, rest = divmod(nanoseconds, 10**9)
    local = time.localtime(seconds)
    zone = time.strftime("%z", local)
    stamp = f"{time.strftime('%Y-%m-%dT%H:%M:%S', local)}.{rest:09d}{zone[:3]}:{zone[3:]}"
    actor = event.get("Actor") or {}
    attributes = actor.get("Attributes") or {}
    listed = ", ".join(f"{key}={attributes[key]}" for key in sorted(attributes))
    line = f"{stamp} {event.get('Type')} {event.get('Action')} {actor.get('ID', '')}"
    return f"{line} ({listed})" if listed else line


@click.group("system", cls=GoGroup)
def system_command() -> None:
    """Look at the engine as a whole."""


system_command.add_command(info_command)
system_command.add_command(events_command)


@system_command.command("df")
@flag("-v", "--verbose", help="Show every object")
@option("--format", "form", default="", help="table, json, or a template")
def df(verbose: bool, form: str) -> None:
    """Show the use of disk space."""
    found = api().get("/system/df")
    if verbose:
        _show_objects(found)
        return
    rows = _usage_rows(found)
    columns = (
        ("TYPE", "Type"),
        ("TOTAL", "TotalCount"),
        ("ACTIVE", "Active"),
        ("SIZE", "Size"),
        ("RECLAIMABLE", "Reclaimable"),
    )
    listing(rows, columns, form=form)


def _usage_rows(found: dict[str, Any]) -> list[Row]:
    images = found.get("Images") or []
    containers = found.get("Containers") or []
    volumes = found.get("Volumes") or []
    layers = int(found.get("LayersSize") or 0)
    used_images = [one for one in images if int(one.get("Containers") or 0) > 0]
    used_size = sum(
        int(one["Size"]) - max(0, int(one.get("SharedSize") or 0)) for one in used_images
    )
    running = [one for one in containers if one.get("State") in ("running", "paused", "restarting")]
    sizes = [(one.get("UsageData") or {}) for one in volumes]
    used_volumes = [one for one in sizes if int(one.get("RefCount") or 0) > 0]

    def written(group: list[dict[str, Any]]) -> int:
        return sum(int(one.get("SizeRw") or 0) for one in group)

    def held(group: list[dict[str, Any]]) -> int:
        return sum(max(0, int(one.get("Size") or 0)) for one in group)

    return [
        _usage("Images", len(images), len(used_images), layers, max(0, layers - used_size)),
        _usage(
            "Containers",
            len(containers),
            len(running),
            written(containers),
            written(containers) - written(running),
        ),
        _usage(
            "Local Volumes",
            len(volumes),
            len(used_volumes),
            held(sizes),
            held(sizes) - held(used_volumes),
        ),
    ]


def _usage(kind: str, total: int, active: int, size: int, free: int) -> Row:
    share = f" ({free * 100 // size}%)" if size else ""
    return Row(
        Type=kind,
        TotalCount=str(total),
        Active=str(active),
        Size=values.human_size(size),
        Reclaimable=values.human_size(free) + share,
    )


def _show_objects(found: dict[str, Any]) -> None:
    from drivetrain_engine.cli.commands.images import IMAGE_COLUMNS, image_rows
    from drivetrain_engine.cli.commands.looking import container_row

    echo("Images space usage:\n")
    images = [row for one in found.get("Images") or () for row in image_rows(one, True)]
    listing(images, (*IMAGE_COLUMNS, ("CONTAINERS", "Containers")))
    echo("\nContainers space usage:\n")
    containers = [container_row(one, True) for one in found.get("Containers") or ()]
    listing(
        containers,
        (
            ("CONTAINER ID", "ID"),
            ("IMAGE", "Image"),
            ("COMMAND", "Command"),
            ("LOCAL VOLUMES", "LocalVolumes"),
            ("SIZE", "Size"),
            ("CREATED", "RunningFor"),
            ("STATUS", "Status"),
            ("NAMES", "Names"),
        ),
    )
    echo("\nLocal Volumes space usage:\n")
    volumes = [
        Row(
            Name=one["Name"],
            Links=str((one.get("UsageData") or {}).get("RefCount", 0)),
            Size=values.human_size(max(0, int((one.get("UsageData") or {}).get("Size") or 0))),
        )
        for one in found.get("Volumes") or ()
    ]
    listing(volumes, (("VOLUME NAME", "Name"), ("LINKS", "Links"), ("SIZE", "Size")))


@system_command.command("prune")
@flag("-a", "--all", help="Remove all images that no container uses")
@flag("--volumes", help="Remove anonymous volumes too")
@many("--filter", help="Remove those that match (key=value)")
@flag("-f", "--force", help="Do not ask")
def prune(all: bool, volumes: bool, filter: tuple[str, ...], force: bool) -> None:
    """Remove what nobody uses: stopped containers, networks, images, and volumes on demand."""
    images = "all images without at least one container" if all else "all dangling images"
    more = ", all anonymous volumes not used by at least one container" if volumes else ""
    confirm(
        "This will remove all stopped containers, all networks not used by at least one"
        f" container{more}, and {images}.",
        force,
    )
    wanted = values.filters(filter)
    if volumes and "until" in wanted:
        raise UsageError('the "until" filter is not supported with "--volumes"')
    client = api()
    space = 0
    work = [("Containers", "/containers/prune", wanted), ("Networks", "/networks/prune", wanted)]
    if volumes:
        work.append(("Volumes", "/volumes/prune", wanted))
    work.append(("Images", "/images/prune", {**wanted, "dangling": ["false" if all else "true"]}))
    for kind, path, chosen in work:
        answer = client.json("POST", path, query={"filters": chosen}) or {}
        space += int(answer.get("SpaceReclaimed") or 0)
        removed = answer.get(f"{kind}Deleted") or ()
        if not removed:
            continue
        echo(f"Deleted {kind}:")
        if kind == "Images":
            show_removed(removed)
        else:
            for name in removed:
                echo(name)
        echo()
    echo(f"Total reclaimed space: {values.human_size(space)}")
