"""``engine driver``: which drivers are installed, what they can, which one is the default."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import click

from drivetrain.options import closest
from drivetrain_engine.cli.errors import ApiError, CliError, UsageError
from drivetrain_engine.cli.flags import GoGroup, flag, many, option
from drivetrain_engine.cli.output import Row, document, echo, listing
from drivetrain_engine.cli.session import read_config, session

FAMILIES = ("storage", "network", "log", "volume")
_SETTINGS = {"storage": "storage-driver", "log": "log-driver"}
_PER_OBJECT = {
    "network": "is chosen for each network: engine network create --driver",
    "volume": "is chosen for each volume: engine volume create --driver",
}
#: ``storage overlay2`` and ``storage/overlay2`` name the same driver.
driver_argument = click.argument("driver", nargs=-1, required=True, metavar="FAMILY/NAME")


def _named(words: tuple[str, ...]) -> tuple[str, str]:
    """Return family and name of ``FAMILY/NAME`` or ``FAMILY NAME``; the name may be missing."""
    family, *names = words[0].split("/", 1) + list(words[1:])
    if family not in FAMILIES:
        hint = closest(family, FAMILIES) or f" (there are: {', '.join(FAMILIES)})"
        raise UsageError(f"no family of drivers: {family}{hint}")
    if len(names) > 1:
        raise UsageError(f"one driver is needed, such as {family}/{names[0]}")
    return family, "".join(names)


def _one(words: tuple[str, ...]) -> tuple[str, str]:
    """Return family and name, which must be there."""
    family, name = _named(words)
    if not name:
        known = ", ".join(f"{family}/{one['name']}" for one in described(family))
        raise UsageError(f"which driver? There are: {known or 'none'}")
    return family, name


@click.group("driver", cls=GoGroup)
def driver_command() -> None:
    """See and choose drivers: storage, network, log, volume."""


def described(family: str = "") -> list[dict[str, Any]]:
    """Return all installed drivers: from the daemon if one runs, else from what pip installed."""
    client = session().existing
    if client is not None:
        found = client.get("/engine/drivers")
    else:
        from drivetrain_engine.cli import local_drivers

        found = local_drivers.describe(session())
    return [one for one in found if family in ("", one["family"])]


@driver_command.command("ls")
@many("-f", "--filter", help="family=… or state=…")
@option("--family", type=click.Choice((*FAMILIES, "extension")), help="Only this family")
@option("--format", "form", default="", help="table, json, or a template")
@flag("-q", "--quiet", help="Show family/name only")
def list_drivers(filter: tuple[str, ...], family: str | None, form: str, quiet: bool) -> None:
    """List the installed drivers."""
    from drivetrain_engine.cli.values import filters

    wanted = filters(filter)
    rows = []
    for one in described(family or ""):
        if any(str(one.get(key, "")) not in accepted for key, accepted in wanted.items()):
            continue
        rows.append(
            Row(
                Key=f"{one['family']}/{one['name']}",
                Family=one["family"],
                Name=one["name"],
                Default="*" if one.get("default") else "",
                State=_state(one),
                InUse=str(one.get("in_use") or 0),
                Distribution=f"{one['distribution']} {one['version']}",
                Reason=one.get("reason") or "",
            )
        )
    columns = [
        ("FAMILY", "Family"),
        ("DRIVER", "Name"),
        ("DEFAULT", "Default"),
        ("STATE", "State"),
        ("IN USE", "InUse"),
        ("PACKAGE", "Distribution"),
    ]
    if any(row["Reason"] for row in rows):
        columns.append(("REASON", "Reason"))
    listing(rows, columns, form=form, quiet="Key" if quiet else "")


def _state(one: dict[str, Any]) -> str:
    if one.get("state", "ok") != "ok":
        return str(one["state"])
    return "unsupported" if one.get("supported") is False else "ok"


@driver_command.command("inspect")
@option("-f", "--format", "form", default="", help="A template, or json")
@driver_argument
def inspect(driver: tuple[str, ...], form: str) -> None:
    """Show a driver: its package, its state, its options."""
    family, name = _one(driver)
    client = session().existing
    if client is not None:
        found = client.get(f"/engine/drivers/{family}/{name}")
    else:
        from drivetrain_engine.cli import local_drivers

        found = local_drivers.inspect(session(), family, name)
    document(found, form, _show_driver)


def _show_driver(found: dict[str, Any]) -> None:
    echo(f"{'Driver:':<14}{found['family']}/{found['name']}")
    echo(f"{'Package:':<14}{found['distribution']} {found['version']}")
    echo(f"{'State:':<14}{_state(found)}")
    if found.get("reason"):
        echo(f"{'Reason:':<14}{found['reason']}")
    echo(f"{'Default:':<14}{'yes' if found.get('default') else 'no'}")
    echo(f"{'In use by:':<14}{found.get('in_use') or 0}")
    for name, value in found.get("status") or ():
        echo(f"  {name}: {value}")
    options = found.get("options") or ()
    echo("Options:" if options else f"{'Options:':<14}none")
    for entry in options:
        kind = "|".join(entry.get("choices") or ()) or entry["type"]
        default = entry.get("default")
        shown = "" if default in (None, "", []) else f" (default {json.dumps(default)})"
        secret = " (secret)" if entry.get("secret") else ""
        echo(f"  {entry['name']} {kind}{shown}{secret}")
        if entry.get("help"):
            echo(f"      {entry['help']}")


@driver_command.command("probe")
@click.argument("driver", nargs=-1, metavar="[FAMILY[/NAME]]")
def probe(driver: tuple[str, ...]) -> int:
    """Try whether this host can carry a driver, all of a family, or all there are."""
    family, name = _named(driver) if driver else ("", "")
    chosen = [(family, name)] if name else [
        (one["family"], one["name"]) for one in described(family) if one["family"] in FAMILIES
    ]  # fmt: skip
    code = 0
    for family, one in chosen:
        supported, reason = _probe(family, one)
        echo(f"{family}/{one}: {'ok' if supported else 'not supported: ' + reason}")
        code = code if supported else 1
    return code


def _probe(family: str, name: str) -> tuple[bool, str]:
    client = session().existing
    if client is None:
        from drivetrain_engine.cli import local_drivers

        return local_drivers.probe(session(), family, name)
    try:
        answer = client.post(f"/engine/drivers/{family}/{name}/probe") or {}
    except ApiError as error:
        if error.status == 404:
            raise CliError(error.message) from error
        return False, error.message
    return answer.get("supported") is not False, str(answer.get("reason") or "")


@driver_command.command("use")
@driver_argument
def use(driver: tuple[str, ...]) -> None:
    """Make a driver the default of this host, in its daemon.json; the rest of it is kept."""
    family, name = _one(driver)
    if family not in _SETTINGS:
        raise UsageError(f"a {family} driver {_PER_OBJECT[family]} {name}")
    known = [one["name"] for one in described(family) if one.get("state", "ok") == "ok"]
    if name not in known:
        raise CliError(
            f"No such {family} driver: {name} (installed: {', '.join(known) or 'none'})."
            f" Try: pip install drivetrain-{family}-{name}"
        )
    path = session().config_file
    config = read_config(path)
    before = config.get(_SETTINGS[family])
    if before == name:
        echo(f"{path} names {name} already")
        return
    config[_SETTINGS[family]] = name
    write_config(path, config)
    echo(f"{path}: {_SETTINGS[family]} is now {name}" + (f", it was {before}" if before else ""))
    if session().existing is not None:
        echo("The daemon that runs takes it up at its next start; containers keep their driver.")


def write_config(path: str, config: dict[str, object]) -> None:
    """Replace a configuration file in one step, keeping its mode and owner."""
    path = os.path.realpath(path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    partial = f"{path}.new{os.getpid()}"
    try:
        with open(partial, "x", encoding="utf-8") as file:
            json.dump(config, file, indent=2, ensure_ascii=False)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        if os.path.exists(path):
            old = os.stat(path)
            Path(partial).chmod(old.st_mode & 0o7777)
            os.chown(partial, old.st_uid, old.st_gid)
        os.replace(partial, path)
    except OSError as error:
        if os.path.exists(partial):
            os.unlink(partial)
        raise CliError(f"cannot write {path}: {error.strerror}") from error
