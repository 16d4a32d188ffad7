"""``ps``, ``top``, ``stats``, ``port``, ``logs``."""

from __future__ import annotations

import time
from typing import Any

import click

from drivetrain_engine.cli import ports, streams, values
from drivetrain_engine.cli.errors import CliError
from drivetrain_engine.cli.flags import command, flag, many, option
from drivetrain_engine.cli.output import Row, echo, ellipsis, listing, mapping_text, short_id, table
from drivetrain_engine.cli.session import api

PS_COLUMNS = (
    ("CONTAINER ID", "ID"),
    ("IMAGE", "Image"),
    ("COMMAND", "Command"),
    ("CREATED", "RunningFor"),
    ("STATUS", "Status"),
    ("PORTS", "Ports"),
    ("NAMES", "Names"),
)


def container_row(found: dict[str, Any], truncate: bool) -> Row:
    """Return one line of ``ps`` from an element of ``GET /containers/json``."""
    created = float(found.get("Created") or 0)
    text = str(found.get("Command") or "")
    names = [name.lstrip("/") for name in found.get("Names") or ()]
    if truncate:
        names = [name for name in names if "/" not in name] or names
    mounted = [mount.get("Name") or mount.get("Source", "") for mount in found.get("Mounts") or ()]
    local = [m for m in found.get("Mounts") or () if m.get("Driver") == "local"]
    image = str(found.get("Image") or "<no image>")
    size = values.human_size(found.get("SizeRw") or 0, 3)
    virtual = found.get("SizeRootFs") or 0
    return Row(
        ID=short_id(found["Id"]) if truncate else found["Id"],
        Names=",".join(names),
        Image=short_id(image) if truncate and image.startswith("sha256:") else image,
        Command=f'"{ellipsis(text, 20) if truncate else text}"',
        CreatedAt=values.local_time(created),
        RunningFor=values.human_duration(time.time() - created) + " ago",
        Ports=ports.show_ports(found.get("Ports") or ()),
        State=found.get("State", ""),
        Status=found.get("Status", ""),
        Size=f"{size} (virtual {values.human_size(virtual, 3)})" if virtual else size,
        Labels=mapping_text(found.get("Labels")),
        Mounts=",".join(ellipsis(name, 15) if truncate else name for name in mounted),
        LocalVolumes=str(len(local)),
        Networks=",".join((found.get("NetworkSettings") or {}).get("Networks") or {}),
    )


@command("ps")
@flag("-a", "--all", help="Show all containers, not only running ones")
@many("-f", "--filter", help="Show those that match (key=value)")
@option("--format", "form", default="", help="table, json, or a template")
@option("-n", "--last", type=int, default=-1, help="Show the n newest, of all states")
@flag("-l", "--latest", help="Show the newest, of all states")
@flag("--no-trunc", help="Do not cut anything")
@flag("-q", "--quiet", help="Show ids only")
@flag("-s", "--size", help="Show sizes")
def ps_command(
    all: bool,
    filter: tuple[str, ...],
    form: str,
    last: int,
    latest: bool,
    no_trunc: bool,
    quiet: bool,
    size: bool,
) -> None:
    """List containers."""
    limit = 1 if latest else last if last > 0 else None
    found = api().get(
        "/containers/json",
        all=all or limit is not None,
        limit=limit,
        size=size or ".Size" in form,
        filters=values.filters(filter),
    )
    rows = [container_row(one, not no_trunc) for one in found]
    columns = (*PS_COLUMNS, ("SIZE", "Size")) if size else PS_COLUMNS
    headers = {
        "CreatedAt": "CREATED AT",
        "LocalVolumes": "LOCAL VOLUMES",
        "Size": "SIZE",
        "State": "STATE",
        "Labels": "LABELS",
        "Mounts": "MOUNTS",
        "Networks": "NETWORKS",
    }
    listing(rows, columns, form=form, quiet="ID" if quiet else "", headers=headers)


@command("top", arguments_last=True)
@click.argument("container")
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def top_command(container: str, options: tuple[str, ...]) -> None:
    """Show the processes of a container; options behind it are those of ps."""
    found = api().get(f"/containers/{container}/top", ps_args=" ".join(options))
    table(found["Titles"], found["Processes"])


@command("port")
@click.argument("container")
@click.argument("wanted", metavar="[PORT[/PROTOCOL]]", default="")
def port_command(container: str, wanted: str) -> None:
    """Show where the ports of a container are published."""
    found = api().get(f"/containers/{container}/json")
    published = (found.get("NetworkSettings") or {}).get("Ports") or {}
    if wanted:
        name = wanted if "/" in wanted else f"{wanted}/tcp"
        if not published.get(name):
            raise CliError(f"no public port {name!r} published for {container}")
        for binding in published[name]:
            echo(_address(binding))
        return
    for name in sorted(published, key=lambda port: (int(port.partition("/")[0]), port)):
        for binding in published[name] or ():
            echo(f"{name} -> {_address(binding)}")


def _address(binding: dict[str, str]) -> str:
    host = binding.get("HostIp") or "0.0.0.0"
    return f"[{host}]:{binding['HostPort']}" if ":" in host else f"{host}:{binding['HostPort']}"


@command("logs")
@flag("--details", help="Show further attributes of each line")
@flag("-f", "--follow", help="Go on with what comes")
@option("--since", default="", help="From a time, or a duration ago (10m)")
@option("--until", default="", help="Up to a time, or a duration ago")
@option("-n", "--tail", default="all", help="So many lines from the end")
@flag("-t", "--timestamps", help="Show the time of each line")
@click.argument("container")
def logs_command(
    container: str,
    details: bool,
    follow: bool,
    since: str,
    until: str,
    tail: str,
    timestamps: bool,
) -> None:
    """Show what a container has written."""
    client = api()
    found = client.get(f"/containers/{container}/json")
    query = {
        "stdout": True,
        "stderr": True,
        "follow": follow,
        "since": values.parse_time(since),
        "until": values.parse_time(until),
        "tail": tail,
        "timestamps": timestamps,
        "details": details,
    }
    path = f"/containers/{found['Id']}/logs"
    with client.open("GET", path, query=query, fresh=follow) as answer:
        streams.show(answer, bool(found["Config"]["Tty"]))


STATS_COLUMNS = (
    ("CONTAINER ID", "ID"),
    ("NAME", "Name"),
    ("CPU %", "CPUPerc"),
    ("MEM USAGE / LIMIT", "MemUsage"),
    ("MEM %", "MemPerc"),
    ("NET I/O", "NetIO"),
    ("BLOCK I/O", "BlockIO"),
    ("PIDS", "PIDs"),
)


def stats_row(found: dict[str, Any], truncate: bool) -> Row:
    """Return one line of ``stats`` from ``GET /containers/x/stats``."""
    memory = found.get("memory_stats") or {}
    details = memory.get("stats") or {}
    cache = details.get("total_inactive_file", details.get("inactive_file", 0))
    used = max(0, int(memory.get("usage") or 0) - int(cache or 0))
    limit = int(memory.get("limit") or 0)
    networks = (found.get("networks") or {}).values()
    blocks = (found.get("blkio_stats") or {}).get("io_service_bytes_recursive") or ()
    transfers = {
        kind: sum(int(b.get("value") or 0) for b in blocks if str(b.get("op")).lower() == kind)
        for kind in ("read", "write")
    }
    return Row(
        ID=short_id(found.get("id", "")) if truncate else found.get("id", ""),
        Name=str(found.get("name", "")).lstrip("/"),
        CPUPerc=f"{_cpu_percent(found):.2f}%",
        MemUsage=f"{values.human_memory(used)} / {values.human_memory(limit)}",
        MemPerc=f"{used / limit * 100 if limit else 0:.2f}%",
        NetIO=f"{values.human_size(sum(n.get('rx_bytes', 0) for n in networks), 3)} / "
        f"{values.human_size(sum(n.get('tx_bytes', 0) for n in networks), 3)}",
        BlockIO=f"{values.human_size(transfers['read'], 3)} / "
        f"{values.human_size(transfers['write'], 3)}",
        PIDs=str((found.get("pids_stats") or {}).get("current", 0)),
    )


def _cpu_percent(found: dict[str, Any]) -> float:
    now, before = found.get("cpu_stats") or {}, found.get("precpu_stats") or {}
    used = (now.get("cpu_usage") or {}).get("total_usage", 0)
    used -= (before.get("cpu_usage") or {}).get("total_usage", 0)
    system = now.get("system_cpu_usage", 0) - before.get("system_cpu_usage", 0)
    return used / system * (now.get("online_cpus") or 1) * 100 if used > 0 and system > 0 else 0.0


@command("stats")
@flag("-a", "--all", help="Show all containers, not only running ones")
@option("--format", "form", default="", help="table, json, or a template")
@flag("--no-stream", help="Show the figures once")
@flag("--no-trunc", help="Do not cut anything")
@click.argument("containers", nargs=-1)
def stats_command(
    containers: tuple[str, ...], all: bool, form: str, no_stream: bool, no_trunc: bool
) -> None:
    """Show what containers use."""
    client = api()
    while True:
        names = containers or [one["Id"] for one in client.get("/containers/json", all=all)]
        rows = []
        for name in names:
            answer = client.json("GET", f"/containers/{name}/stats", query={"stream": "0"})
            rows.append(stats_row(answer, not no_trunc))
        if not no_stream:
            click.clear()
        listing(rows, STATS_COLUMNS, form=form)
        if no_stream:
            return
        time.sleep(1)
