"""``run``, ``create``, ``start``, ``attach``, ``exec``."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Mapping
from typing import Any

import click

from drivetrain_engine.cli import attaching, runbody, terminal, values
from drivetrain_engine.cli.attaching import Wanted
from drivetrain_engine.cli.client import Client
from drivetrain_engine.cli.errors import ApiError, CliError, NoDaemon, UsageError
from drivetrain_engine.cli.flags import command, flag, many, option
from drivetrain_engine.cli.output import echo, warn
from drivetrain_engine.cli.runflags import run_flags
from drivetrain_engine.cli.session import api, session

Flags = dict[str, Any]


def _create(client: Client, flags: Flags, body: dict[str, Any]) -> str:
    """Create the container and return its id; errors have docker's exit code 125."""
    cidfile = flags["cidfile"]
    if cidfile and os.path.exists(cidfile):
        raise UsageError(
            f"container ID file found, make sure the other container isn't running or delete"
            f" {cidfile}"
        )
    if not body["HostConfig"].get("StorageDriver") and session().new_container:
        own = session().given.get("storage-driver")
        if own:
            body["HostConfig"]["StorageDriver"] = own
    query = {"name": flags["name"], "platform": flags["platform"]}
    image = str(body["Image"])
    try:
        if flags["pull"] == "always":
            _pull(client, image, flags)
        try:
            answer = client.json("POST", "/containers/create", body=body, query=query)
        except ApiError as error:
            missing = error.status == 404 and "no such image" in error.message.lower()
            if not missing or flags["pull"] == "never":
                raise
            warn(f"Unable to find image '{_tagged(image)}' locally")
            _pull(client, image, flags)
            answer = client.json("POST", "/containers/create", body=body, query=query)
    except CliError as error:
        raise CliError(str(error), 125) from error
    for warning in answer.get("Warnings") or ():
        warn(f"WARNING: {warning}")
    if cidfile:
        with open(cidfile, "w", encoding="ascii") as file:
            file.write(answer["Id"])
    return str(answer["Id"])


def _tagged(image: str) -> str:
    return image if "@" in image or ":" in image.rpartition("/")[2] else f"{image}:latest"


def _pull(client: Client, image: str, flags: Mapping[str, Any]) -> None:
    """Pull an image and show how it goes on standard error, since output is the container's."""
    from drivetrain_engine.cli.commands.registry import pull_image

    with contextlib.redirect_stdout(sys.stderr):
        try:
            pull_image(client, image, platform=flags["platform"], quiet=flags["quiet"])
        except CliError as error:
            raise CliError(
                f"{error}. `engine images` lists what is here; `engine load` and `engine import`"
                " bring images from files"
            ) from error


def _client() -> Client:
    try:
        return api()
    except NoDaemon as error:
        error.exit_code = 125
        raise


@command("create", arguments_last=True)
@run_flags
@flag("--rm", help="Remove the container when it exits")
@click.argument("image")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def create_command(image: str, arguments: tuple[str, ...], rm: bool, **flags: Any) -> None:
    """Create a container without starting it."""
    body = runbody.create_body(flags, image, arguments, rm=rm)
    echo(_create(_client(), flags, body))


@command("run", arguments_last=True)
@run_flags
@flag("-d", "--detach", help="Run in the background and print the container's id")
@flag("--rm", help="Remove the container, and its anonymous volumes, when it exits")
@option("--detach-keys", default="", help="Keys that detach (ctrl-p,ctrl-q)")
@flag("--sig-proxy", default=True, help="Pass our signals on (true)")
@click.argument("image")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def run_command(image: str, arguments: tuple[str, ...], **flags: Any) -> int:
    """Create a container, start it, and show its output."""
    detach = flags["detach"]
    terminal.parse_detach_keys(flags["detach_keys"])
    if not detach:
        terminal.require_terminal(flags["tty"], flags["interactive"])
    body = runbody.create_body(flags, image, arguments, detach=detach, rm=flags["rm"])
    if flags["tty"] and not detach:
        found = terminal.size()
        if found:
            body["HostConfig"]["ConsoleSize"] = list(found)
    client = _client()
    container = _create(client, flags, body)

    def start() -> None:
        try:
            client.post(f"/containers/{container}/start")
        except ApiError as error:
            raise attaching.start_error(error) from error

    if detach:
        start()
        echo(container)
        return 0
    wanted = Wanted(
        tty=flags["tty"],
        stdin=body.get("AttachStdin", False),
        stdout=body.get("AttachStdout", False),
        stderr=body.get("AttachStderr", False),
        detach_keys=flags["detach_keys"],
        forward=flags["sig_proxy"],
    )
    condition = "removed" if flags["rm"] else "next-exit"
    return attaching.follow_container(client, container, wanted, condition=condition, start=start)


@command("start")
@flag("-a", "--attach", help="Attach stdout and stderr, and pass signals on")
@flag("-i", "--interactive", help="Attach stdin")
@option("--detach-keys", default="", help="Keys that detach (ctrl-p,ctrl-q)")
@flag("--sig-proxy", default=True, help="Pass our signals on (true)")
@click.argument("containers", nargs=-1, required=True)
def start_command(
    containers: tuple[str, ...], attach: bool, interactive: bool, detach_keys: str, sig_proxy: bool
) -> int:
    """Start stopped containers."""
    from drivetrain_engine.cli.commands.lifecycle import each

    client = api()
    if not (attach or interactive):
        return each(containers, lambda name: client.post(f"/containers/{name}/start"))
    if len(containers) > 1:
        raise CliError("you cannot start and attach multiple containers at once")
    found = client.get(f"/containers/{containers[0]}/json")

    def start() -> None:
        try:
            client.post(f"/containers/{found['Id']}/start")
        except ApiError as error:
            raise attaching.start_error(error) from error

    wanted = Wanted(
        tty=found["Config"]["Tty"],
        stdin=interactive and bool(found["Config"].get("OpenStdin")),
        detach_keys=detach_keys,
        forward=sig_proxy,
    )
    condition = "removed" if found["HostConfig"].get("AutoRemove") else "next-exit"
    return attaching.follow_container(client, found["Id"], wanted, condition=condition, start=start)


@command("attach")
@option("--detach-keys", default="", help="Keys that detach (ctrl-p,ctrl-q)")
@flag("--no-stdin", help="Do not attach stdin")
@flag("--sig-proxy", default=True, help="Pass our signals on (true)")
@click.argument("container")
def attach_command(container: str, detach_keys: str, no_stdin: bool, sig_proxy: bool) -> int:
    """Attach our stdin, stdout and stderr to a running container."""
    client = api()
    found = client.get(f"/containers/{container}/json")
    state = found["State"]
    if not state.get("Running"):
        raise CliError("You cannot attach to a stopped container, start it first")
    if state.get("Paused"):
        raise CliError("You cannot attach to a paused container, unpause it first")
    if state.get("Restarting"):
        raise CliError("You cannot attach to a restarting container, wait until it is running")
    config = found["Config"]
    wanted = Wanted(
        tty=config["Tty"],
        stdin=not no_stdin and bool(config.get("OpenStdin")),
        detach_keys=detach_keys,
        forward=sig_proxy,
    )
    terminal.require_terminal(wanted.tty, wanted.stdin)
    condition = "removed" if found["HostConfig"].get("AutoRemove") else "not-running"
    return attaching.follow_container(client, found["Id"], wanted, condition=condition)


@command("exec", arguments_last=True)
@flag("-d", "--detach", help="Run it in the background")
@option("--detach-keys", default="", help="Keys that detach (ctrl-p,ctrl-q)")
@many("-e", "--env", help="Set an environment variable")
@many("--env-file", help="Read a file of environment variables")
@flag("-i", "--interactive", help="Keep stdin open even if not attached")
@flag("--privileged", help="Give extended privileges to the command")
@flag("-t", "--tty", help="Allocate a pseudo-terminal")
@option("-u", "--user", default="", help="User (name|uid[:group|gid])")
@option("-w", "--workdir", default="", help="Working directory inside the container")
@click.argument("container")
@click.argument("arguments", nargs=-1, required=True, type=click.UNPROCESSED)
def exec_command(container: str, arguments: tuple[str, ...], **flags: Any) -> int:
    """Run a command in a running container."""
    detach = flags["detach"]
    if not detach:
        terminal.require_terminal(flags["tty"], flags["interactive"])
    body: dict[str, Any] = {
        "AttachStdin": flags["interactive"] and not detach,
        "AttachStdout": not detach,
        "AttachStderr": not detach,
        "Tty": flags["tty"],
        "Cmd": list(arguments),
        "Detach": detach,
        "Privileged": flags["privileged"],
        "User": flags["user"],
        "WorkingDir": flags["workdir"],
        "DetachKeys": flags["detach_keys"],
        "Env": values.environment(flags["env_file"], flags["env"]),
    }
    client = api()
    exec_id = client.post(f"/containers/{container}/exec", body)["Id"]
    if detach:
        client.post(f"/exec/{exec_id}/start", {"Detach": True, "Tty": flags["tty"]})
        return 0
    wanted = Wanted(tty=flags["tty"], stdin=flags["interactive"], detach_keys=flags["detach_keys"])
    try:
        return attaching.follow_exec(client, exec_id, wanted)
    except ApiError as error:
        raise attaching.start_error(error) from error
