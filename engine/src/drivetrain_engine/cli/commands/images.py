"""``images``, ``rmi``, ``tag``, ``history``, ``import``, ``load``, ``save``."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from typing import IO, Any

import click

from drivetrain_engine.cli import values
from drivetrain_engine.cli.client import Response
from drivetrain_engine.cli.commands.files import read_pieces, split_reference, write_stream
from drivetrain_engine.cli.errors import ApiError, CliError, UsageError
from drivetrain_engine.cli.flags import command, flag, many, option
from drivetrain_engine.cli.output import Row, echo, ellipsis, listing, short_id, warn
from drivetrain_engine.cli.session import api

IMAGE_COLUMNS = (
    ("REPOSITORY", "Repository"),
    ("TAG", "Tag"),
    ("IMAGE ID", "ID"),
    ("CREATED", "CreatedSince"),
    ("SIZE", "Size"),
)


def image_rows(found: dict[str, Any], truncate: bool, digests: bool = False) -> list[Row]:
    """Return the lines of ``images`` for an element of ``GET /images/json``: one per tag."""
    created = float(found.get("Created") or 0)
    digest_of = dict(
        digest.partition("@")[::2] for digest in found.get("RepoDigests") or () if "@" in digest
    )
    tags = [tag for tag in found.get("RepoTags") or () if tag != "<none>:<none>"]
    names = [split_reference(tag) for tag in tags]
    if not names:
        names = [(name, "<none>") for name in digest_of] or [("<none>", "<none>")]
    containers = found.get("Containers", -1)
    return [
        Row(
            ID=short_id(found["Id"]) if truncate else found["Id"],
            Repository=repository,
            Tag=tag,
            Digest=digest_of.get(repository, "<none>"),
            CreatedSince=values.human_duration(time.time() - created) + " ago",
            CreatedAt=values.local_time(created),
            Size=values.human_size(found.get("Size") or 0, 3),
            VirtualSize=values.human_size(found.get("Size") or 0, 3),
            SharedSize="N/A",
            UniqueSize="N/A",
            Containers="N/A" if containers == -1 else str(containers),
        )
        for repository, tag in names
    ]


@command("images")
@flag("-a", "--all", help="Show intermediate images too")
@flag("--digests", help="Show digests")
@many("-f", "--filter", help="Show those that match (key=value)")
@option("--format", "form", default="", help="table, json, or a template")
@flag("--no-trunc", help="Do not cut anything")
@flag("-q", "--quiet", help="Show ids only")
@click.argument("reference", default="")
def images_command(
    reference: str,
    all: bool,
    digests: bool,
    filter: tuple[str, ...],
    form: str,
    no_trunc: bool,
    quiet: bool,
) -> None:
    """List images."""
    wanted = values.filters(filter)
    if reference:
        wanted.setdefault("reference", []).append(reference)
    found = api().get("/images/json", all=all, filters=wanted)
    rows = [row for one in found for row in image_rows(one, not no_trunc)]
    columns = list(IMAGE_COLUMNS)
    if digests:
        columns.insert(2, ("DIGEST", "Digest"))
    if quiet:
        rows = list({row["ID"]: row for row in rows}.values())
    headers = {"CreatedAt": "CREATED AT", "Digest": "DIGEST"}
    listing(rows, columns, form=form, quiet="ID" if quiet else "", headers=headers)


@command("rmi")
@flag("-f", "--force", help="Remove it even if stopped containers use it")
@flag("--no-prune", help="Keep untagged parents")
@click.argument("images", nargs=-1, required=True)
def rmi_command(images: tuple[str, ...], force: bool, no_prune: bool) -> int:
    """Remove images."""
    client = api()
    code = 0
    for name in images:
        try:
            query = {"force": force, "noprune": no_prune}
            removed = client.json("DELETE", f"/images/{name}", query=query)
        except ApiError as error:
            if not (force and error.status == 404):
                code = 1
            warn(f"engine: error from the daemon: {error.message}")
            continue
        show_removed(removed)
    return code


def show_removed(removed: list[dict[str, str]] | None) -> None:
    """Print what the removal of images removed."""
    for entry in removed or ():
        if entry.get("Untagged"):
            echo(f"Untagged: {entry['Untagged']}")
        if entry.get("Deleted"):
            echo(f"Deleted: {entry['Deleted']}")


@command("tag")
@click.argument("image")
@click.argument("target")
def tag_command(image: str, target: str) -> None:
    """Give an image a further name."""
    repository, tag = split_reference(target)
    api().post(f"/images/{image}/tag", repo=repository, tag=tag or "latest")


@command("history")
@option("--format", "form", default="", help="table, json, or a template")
@flag("-H", "--human", default=True, help="Show sizes and times for humans (true)")
@flag("--no-trunc", help="Do not cut anything")
@flag("-q", "--quiet", help="Show ids only")
@click.argument("image")
def history_command(image: str, form: str, human: bool, no_trunc: bool, quiet: bool) -> None:
    """Show how an image was made."""
    rows = []
    for entry in api().get(f"/images/{image}/history"):
        created = float(entry.get("Created") or 0)
        made_by = str(entry.get("CreatedBy") or "").replace("\t", " ")
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(created))
        since = values.human_duration(time.time() - created) + " ago"
        size = int(entry.get("Size") or 0)
        rows.append(
            Row(
                ID=entry["Id"] if no_trunc else short_id(entry["Id"]),
                CreatedSince=since if human else stamp,
                CreatedAt=stamp,
                CreatedBy=made_by if no_trunc else ellipsis(made_by, 45),
                Size=values.human_size(size, 3) if human else str(size),
                Comment=entry.get("Comment", ""),
            )
        )
    columns = (
        ("IMAGE", "ID"),
        ("CREATED" if human else "CREATED AT", "CreatedSince"),
        ("CREATED BY", "CreatedBy"),
        ("SIZE", "Size"),
        ("COMMENT", "Comment"),
    )
    listing(rows, columns, form=form, quiet="ID" if quiet else "")


def _input(path: str) -> IO[bytes]:
    if path and path != "-":
        try:
            return open(path, "rb")
        except OSError as error:
            raise CliError(f"cannot read {path}: {error.strerror}") from error
    if sys.stdin.isatty():
        raise UsageError("requested to read an archive from stdin, but stdin is a terminal")
    return sys.stdin.buffer


def _messages(answer: Response) -> Iterator[dict[str, Any]]:
    """Yield the messages of a progress stream; an error among them is raised."""
    for message in answer.documents():
        if message.get("error"):
            raise CliError(str(message["error"]))
        yield message


@command("import")
@many("-c", "--change", help="Apply a Dockerfile instruction")
@option("-m", "--message", default="", help="Message")
@option("--platform", default="", help="Platform (os/architecture)")
@click.argument("source")
@click.argument("reference", default="")
def import_command(
    source: str, reference: str, change: tuple[str, ...], message: str, platform: str
) -> None:
    """Make an image from a tar archive of a root file system (a file, or - for stdin)."""
    repository, tag = split_reference(reference)
    query = {
        "fromSrc": "-",
        "repo": repository,
        "tag": tag,
        "message": message,
        "changes": list(change),
        "platform": platform,
    }
    with _input(source) as file:
        answer = api().open(
            "POST",
            "/images/create",
            query=query,
            stream=read_pieces(file),
            headers={"Content-Type": "application/x-tar"},
        )
        with answer:
            for entry in _messages(answer):
                if str(entry.get("status", "")).startswith("sha256:"):
                    echo(entry["status"])


@command("load")
@option("-i", "--input", "path", default="", help="Read a file instead of stdin")
@flag("-q", "--quiet", help="Show no progress")
@option("--platform", default="", help="Accepted; all that fits is loaded")
def load_command(path: str, quiet: bool, platform: str) -> None:
    """Load images from an archive of docker save, of OCI, or of engine save."""
    with _input(path) as file:
        answer = api().open(
            "POST",
            "/images/load",
            query={"quiet": "1"},
            stream=read_pieces(file),
            headers={"Content-Type": "application/x-tar"},
        )
        with answer:
            for entry in _messages(answer):
                text = str(entry.get("stream") or "")
                if text.strip():
                    echo(text.rstrip("\n"))


@command("save")
@option("-o", "--output", default="", help="Write to a file instead of stdout")
@option("--platform", default="", help="Accepted; all is saved")
@click.argument("images", nargs=-1, required=True)
def save_command(images: tuple[str, ...], output: str, platform: str) -> None:
    """Write images as an archive that docker load and OCI tools read."""
    if output and not os.path.isdir(os.path.dirname(os.path.abspath(output))):
        raise UsageError(f"invalid output path: the directory of {output} does not exist")
    if not output and sys.stdout.isatty():
        raise UsageError("cowardly refusing to save to a terminal. Use the -o flag or redirect")
    with api().open("GET", "/images/get", query={"names": list(images)}) as answer:
        write_stream(iter(answer), output)
