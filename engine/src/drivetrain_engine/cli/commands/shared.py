"""What several groups of commands share: inspecting, asking before a prune."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

from drivetrain_engine.cli.client import Client
from drivetrain_engine.cli.errors import ApiError, CliError
from drivetrain_engine.cli.output import document, echo, warn
from drivetrain_engine.cli.session import api

_PATHS = {
    "container": "/containers/{}/json",
    "image": "/images/{}/json",
    "network": "/networks/{}",
    "volume": "/volumes/{}",
}


def find_object(client: Client, name: str, kinds: Sequence[str], size: bool = False) -> Any:
    """Return what ``inspect`` shows of the first kind that has an object of that name.

    Raises:
        CliError: none has.
    """
    for kind in kinds:
        query = {"size": size} if kind == "container" else None
        try:
            return client.json("GET", _PATHS[kind].format(name), query=query)
        except ApiError as error:
            if error.status != 404 and len(kinds) == 1:
                raise
            if error.status not in (400, 404):
                raise
    kind = kinds[0] if len(kinds) == 1 else "object"
    raise CliError(f"No such {kind}: {name}")


def inspect_objects(
    names: Sequence[str], kinds: Sequence[str], form: str, size: bool = False
) -> int:
    """Print objects as one JSON array or by a template; return the exit status."""
    client = api()
    found: list[Any] = []
    faults: list[str] = []
    for name in names:
        try:
            found.append(find_object(client, name, kinds, size))
        except CliError as error:
            faults.append(str(error))
    if form in ("", "json"):
        compact = form == "json"
        echo(
            json.dumps(
                found,
                indent=None if compact else 4,
                separators=(",", ":") if compact else None,
                ensure_ascii=False,
            )
        )
    else:
        for one in found:
            document(one, form)
    for fault in faults:
        warn(f"engine: {fault}")
    return 1 if faults else 0


def confirm(warning: str, force: bool) -> None:
    """Ask before something is removed; anything but yes ends the command."""
    if force:
        return
    sys.stderr.write(f"WARNING! {warning}\nAre you sure you want to continue? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise CliError("nothing was removed")
