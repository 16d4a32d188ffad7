"""``engine volume snapshot``, ``clone``, ``restore``, ``rename``, ``export``, ``import``."""

from __future__ import annotations

import contextlib
import sys

import click

from drivetrain_engine.cli import values
from drivetrain_engine.cli.commands.files import read_pieces, write_stream
from drivetrain_engine.cli.commands.volumes import volume_command
from drivetrain_engine.cli.errors import ApiError, CliError, UsageError
from drivetrain_engine.cli.flags import many
from drivetrain_engine.cli.output import echo
from drivetrain_engine.cli.session import api


def _copy(kind: str, source: str, name: str, label: tuple[str, ...], driver: str,
          opt: tuple[str, ...]) -> None:  # fmt: skip
    if opt and not driver:
        raise UsageError("--opt needs --driver: which driver is to keep the copy")
    body = {
        "Name": name,
        "Labels": values.pairs(label),
        "Driver": driver,
        "DriverOpts": values.pairs(opt),
    }
    path = f"/engine/volumes/{source}/{kind}"
    echo(api().post(path, {key: one for key, one in body.items() if one})["Name"])


@volume_command.command("snapshot")
@many("--label", help="Label (key=value)")
@click.option("-d", "--driver", default="", help="Keep it with this driver (the volume's own)")
@many("-o", "--opt", help="Option of that driver (key=value)")
@click.argument("volume")
@click.argument("snapshot")
def snapshot(
    volume: str, snapshot: str, label: tuple[str, ...], driver: str, opt: tuple[str, ...]
) -> None:
    """Keep a volume as it is now, as a volume that containers cannot change."""
    _copy("snapshot", volume, snapshot, label, driver, opt)


@volume_command.command("clone")
@many("--label", help="Label (key=value)")
@click.option("-d", "--driver", default="", help="Make it with this driver (the source's own)")
@many("-o", "--opt", help="Option of that driver (key=value)")
@click.argument("source")
@click.argument("volume")
def clone(
    source: str, volume: str, label: tuple[str, ...], driver: str, opt: tuple[str, ...]
) -> None:
    """Make a volume with the content of a volume or snapshot."""
    _copy("clone", source, volume, label, driver, opt)


@volume_command.command("restore")
@click.argument("volume")
@click.argument("snapshot")
def restore(volume: str, snapshot: str) -> None:
    """Give a volume the content of a snapshot, or of another volume, instead of its own."""
    echo(api().post(f"/engine/volumes/{volume}/restore", {"From": snapshot})["Name"])


@volume_command.command("rename")
@click.argument("volume")
@click.argument("name")
def rename(volume: str, name: str) -> None:
    """Give a volume, to which no container refers, another name."""
    echo(api().post(f"/engine/volumes/{volume}/rename", {"Name": name})["Name"])


@volume_command.command("export")
@click.option("-o", "--output", default="", help="Write to a file instead of stdout")
@click.argument("volume")
def export(volume: str, output: str) -> None:
    """Write a volume's content as a tar archive."""
    if not output and sys.stdout.isatty():
        raise UsageError("refusing to write an archive to a terminal: use -o or redirect")
    with api().open("GET", f"/engine/volumes/{volume}/export") as answer:
        write_stream(iter(answer), output)


@volume_command.command("import")
@click.option("-d", "--driver", default="local", help="Driver of a new volume (local)")
@many("-o", "--opt", help="Option of the driver (key=value)")
@many("--label", help="Label (key=value)")
@click.argument("volume")
@click.argument("file", default="-")
def import_content(
    volume: str, file: str, driver: str, opt: tuple[str, ...], label: tuple[str, ...]
) -> None:
    """Make a volume, or fill an empty one, with a tar archive (- for stdin), packed or not."""
    client = api()
    with contextlib.ExitStack() as stack:
        try:
            source = sys.stdin.buffer if file == "-" else stack.enter_context(open(file, "rb"))
        except OSError as error:
            raise CliError(f"cannot read {file}: {error.strerror}") from None
        made = False
        try:
            client.get(f"/volumes/{volume}")
        except ApiError as error:
            if error.status != 404:
                raise
            options = {"DriverOpts": values.pairs(opt), "Labels": values.pairs(label)}
            client.post("/volumes/create", {"Name": volume, "Driver": driver, **options})
            made = True
        try:
            path = f"/engine/volumes/{volume}/import"
            client.request("PUT", path, stream=read_pieces(source))
        except BaseException:
            if made:
                client.request("DELETE", f"/volumes/{volume}")
            raise
    echo(volume)
