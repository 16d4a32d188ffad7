"""What moves a container through its life, from ``stop`` to ``rm``."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import click

from drivetrain_engine.cli import runbody, values
from drivetrain_engine.cli.errors import ApiError, UsageError
from drivetrain_engine.cli.flags import command, flag, option
from drivetrain_engine.cli.output import echo, warn
from drivetrain_engine.cli.session import api

names_argument = click.argument("containers", nargs=-1, required=True)


def each(names: Iterable[str], work: Callable[[str], Any], show: bool = True) -> int:
    """Do something with each object; print its name, or why not; return the exit status."""
    code = 0
    for name in names:
        try:
            result = work(name)
        except ApiError as error:
            warn(f"engine: error from the daemon: {error.message}")
            code = 1
            continue
        for warning in (result or {}).get("Warnings") or () if isinstance(result, dict) else ():
            warn(f"WARNING: {warning}")
        if show:
            echo(name)
    return code


@command("stop")
@option("-t", "--time", "--timeout", "timeout", type=int, help="Seconds before the kill")
@option("-s", "--signal", default="", help="Signal to send first")
@names_argument
def stop_command(containers: tuple[str, ...], timeout: int | None, signal: str) -> int:
    """Stop running containers."""
    client = api()
    return each(
        containers,
        lambda name: client.post(f"/containers/{name}/stop", t=timeout, signal=signal),
    )


@command("restart")
@option("-t", "--time", "--timeout", "timeout", type=int, help="Seconds before the kill")
@option("-s", "--signal", default="", help="Signal to send first")
@names_argument
def restart_command(containers: tuple[str, ...], timeout: int | None, signal: str) -> int:
    """Restart containers."""
    client = api()
    return each(
        containers,
        lambda name: client.post(f"/containers/{name}/restart", t=timeout, signal=signal),
    )


@command("kill")
@option("-s", "--signal", default="", help="Signal to send (KILL)")
@names_argument
def kill_command(containers: tuple[str, ...], signal: str) -> int:
    """Kill running containers."""
    client = api()
    return each(containers, lambda name: client.post(f"/containers/{name}/kill", signal=signal))


@command("rm")
@flag("-f", "--force", help="Kill it if it runs")
@flag("-v", "--volumes", help="Remove its anonymous volumes too")
@flag("-l", "--link", help="Remove a link instead")
@names_argument
def rm_command(containers: tuple[str, ...], force: bool, volumes: bool, link: bool) -> int:
    """Remove containers."""
    client = api()

    def remove(name: str) -> None:
        query = {"force": force, "v": volumes, "link": link}
        try:
            client.request("DELETE", f"/containers/{name.strip('/')}", query=query)
        except ApiError as error:
            if not (force and error.status == 404):
                raise

    return each(containers, remove)


@command("wait")
@names_argument
def wait_command(containers: tuple[str, ...]) -> int:
    """Wait until containers stop, and print their exit statuses."""
    client = api()

    def wait(name: str) -> None:
        echo(str(client.post(f"/containers/{name}/wait")["StatusCode"]))

    return each(containers, wait, show=False)


@command("pause")
@names_argument
def pause_command(containers: tuple[str, ...]) -> int:
    """Freeze all processes of containers."""
    client = api()
    return each(containers, lambda name: client.post(f"/containers/{name}/pause"))


@command("unpause")
@names_argument
def unpause_command(containers: tuple[str, ...]) -> int:
    """Let frozen containers go on."""
    client = api()
    return each(containers, lambda name: client.post(f"/containers/{name}/unpause"))


@command("rename")
@click.argument("container")
@click.argument("name")
def rename_command(container: str, name: str) -> None:
    """Rename a container."""
    api().post(f"/containers/{container}/rename", name=name)


@command("update")
@option("--blkio-weight", type=int, help="Relative I/O weight (10 to 1000)")
@option("--cpu-period", type=int, help="CFS period in microseconds")
@option("--cpu-quota", type=int, help="CFS quota in microseconds")
@option("--cpu-rt-period", type=int, help="Real-time period in microseconds")
@option("--cpu-rt-runtime", type=int, help="Real-time runtime in microseconds")
@option("-c", "--cpu-shares", type=int, help="CPU shares (relative weight)")
@option("--cpus", help="Number of CPUs")
@option("--cpuset-cpus", help="CPUs to run on (0-3, 0,1)")
@option("--cpuset-mems", help="Memory nodes to use (0-3, 0,1)")
@option("-m", "--memory", help="Memory limit")
@option("--memory-reservation", help="Soft memory limit")
@option("--memory-swap", help="Limit of memory plus swap; -1: unlimited")
@option("--kernel-memory", help="Limit of kernel memory")
@option("--pids-limit", type=int, help="Limit of processes; -1: unlimited")
@option("--restart", default="", help="Restart policy")
@names_argument
def update_command(containers: tuple[str, ...], restart: str, **flags: Any) -> int:
    """Change the limits or the restart policy of containers."""
    body = runbody.resources(flags)
    if restart:
        body["RestartPolicy"] = values.parse_restart(restart)
    if not body:
        raise UsageError("you must provide one or more flags when using this command")
    client = api()
    return each(containers, lambda name: client.post(f"/containers/{name}/update", body))
