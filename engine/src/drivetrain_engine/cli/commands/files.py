"""``cp``, ``export``, ``diff``, ``commit``: a container's files."""

from __future__ import annotations

import base64
import json
import os
import sys
from collections.abc import Iterator
from typing import IO, Any

import click

from drivetrain_engine.cli import archives
from drivetrain_engine.cli.client import Client
from drivetrain_engine.cli.errors import ApiError, CliError, UsageError
from drivetrain_engine.cli.flags import command, flag, many, option
from drivetrain_engine.cli.output import echo, warn
from drivetrain_engine.cli.session import api
from drivetrain_engine.cli.streams import write_all

_KINDS = {0: "C", 1: "A", 2: "D"}


def write_stream(pieces: Iterator[bytes], output: str) -> None:
    """Write to a file, which exists only when all of it came; or to stdout, if no terminal."""
    if not output or output == "-":
        if sys.stdout.isatty():
            raise UsageError("refusing to write an archive to a terminal: use -o or redirect")
        sys.stdout.flush()
        for piece in pieces:
            write_all(1, piece)
        return
    partial = f"{output}.partial{os.getpid()}"
    try:
        with open(partial, "wb") as file:
            for piece in pieces:
                file.write(piece)
        os.replace(partial, output)
    except BaseException:
        if os.path.exists(partial):
            os.unlink(partial)
        raise


def read_pieces(file: IO[bytes]) -> Iterator[bytes]:
    """Yield a file's content piece by piece."""
    while data := file.read(1 << 18):
        yield data


@command("export")
@option("-o", "--output", default="", help="Write to a file instead of stdout")
@click.argument("container")
def export_command(container: str, output: str) -> None:
    """Write a container's file system as a tar archive."""
    if not output and sys.stdout.isatty():
        raise UsageError("cowardly refusing to save to a terminal. Use the -o flag or redirect")
    with api().open("GET", f"/containers/{container}/export") as answer:
        write_stream(iter(answer), output)


@command("diff")
@click.argument("container")
def diff_command(container: str) -> None:
    """Show what changed in a container's file system (A added, C changed, D deleted)."""
    for change in api().get(f"/containers/{container}/changes") or ():
        echo(f"{_KINDS[change['Kind']]} {change['Path']}")


@command("commit")
@option("-a", "--author", default="", help="Author")
@many("-c", "--change", help="Apply a Dockerfile instruction")
@option("-m", "--message", default="", help="Message")
@flag("-p", "--pause", default=True, help="Pause the container meanwhile (true)")
@click.argument("container")
@click.argument("reference", default="")
def commit_command(
    container: str, reference: str, author: str, change: tuple[str, ...], message: str, pause: bool
) -> None:
    """Make an image from a container's changes."""
    repository, tag = split_reference(reference)
    query = {
        "container": container,
        "repo": repository,
        "tag": tag,
        "author": author,
        "comment": message,
        "changes": list(change),
        "pause": None if pause else "0",
    }
    echo(api().json("POST", "/commit", query=query, body={})["Id"])


def split_reference(reference: str) -> tuple[str, str]:
    """Return name and tag; the tag of none is empty."""
    name, separator, tag = reference.rpartition(":")
    if separator and "/" not in tag:
        return name, tag
    return reference, ""


@command("cp")
@flag("-a", "--archive", help="Keep user and group ids")
@flag("-L", "--follow-link", help="Follow the symbolic link that the source is")
@flag("-q", "--quiet", help="Accepted; there is no progress to hide")
@click.argument("source")
@click.argument("target")
def cp_command(source: str, target: str, archive: bool, follow_link: bool, quiet: bool) -> None:
    """Copy between a container (CONTAINER:PATH) and the host (a path, or - for a tar stream)."""
    source_container, source_path = split_path(source)
    target_container, target_path = split_path(target)
    if source_container and target_container:
        raise UsageError("copying between containers is not supported")
    if not source_container and not target_container:
        raise UsageError("must specify at least one container source: CONTAINER:PATH")
    if source_container:
        _from_container(api(), source_container, source_path, target_path, follow_link)
    else:
        _to_container(api(), source_path, target_container, target_path, archive, follow_link)


def split_path(text: str) -> tuple[str, str]:
    """Return container and path; the container of a local path is empty."""
    if text.startswith(("/", ".")) or ":" not in text:
        return "", text
    container, _, path = text.partition(":")
    return container, path


def _stat(client: Client, container: str, path: str) -> dict[str, Any]:
    answer = client.open("HEAD", f"/containers/{container}/archive", query={"path": path})
    return _decode_stat(answer.headers)


def _decode_stat(headers: dict[str, str]) -> dict[str, Any]:
    text = headers.get("x-docker-container-path-stat", "")
    return dict(json.loads(base64.b64decode(text))) if text else {}


def _from_container(client: Client, container: str, path: str, target: str, follow: bool) -> None:
    if follow:
        found = _stat(client, container, path)
        if found.get("linkTarget"):
            path = found["linkTarget"]
    url = f"/containers/{container}/archive"
    try:
        answer = client.open("GET", url, query={"path": path})
    except ApiError as error:
        raise CliError(error.message) from error
    with answer:
        if target == "-":
            write_stream(iter(answer), "-")
            return
        stat = _decode_stat(answer.headers)
        archives.unpack(iter(answer), path, stat, target)
    warn(f"Successfully copied {container}:{path} to {target}")


def _to_container(
    client: Client, path: str, container: str, target: str, archive: bool, follow: bool
) -> None:
    query: dict[str, object] = {"noOverwriteDirNonDir": "true"}
    if archive:
        query["copyUIDGID"] = "true"
    if path == "-":
        stream = read_pieces(sys.stdin.buffer)
        directory = target
    else:
        directory, name = _place(client, container, path, target)
        stream = archives.pack(path, name, follow)
    query["path"] = directory
    try:
        client.request(
            "PUT",
            f"/containers/{container}/archive",
            query=query,
            stream=stream,
            headers={"Content-Type": "application/x-tar"},
        )
    except ApiError as error:
        raise CliError(error.message) from error
    if path != "-":
        warn(f"Successfully copied {path} to {container}:{target}")


def _place(client: Client, container: str, path: str, target: str) -> tuple[str, str]:
    """Return the directory to unpack in and the name to give, by the rules of cp(1)."""
    if not os.path.lexists(path):
        raise CliError(f"lstat {os.path.abspath(path)}: no such file or directory")
    target = target or "/"
    try:
        stat = _stat(client, container, target)
        if stat.get("linkTarget"):
            stat = _stat(client, container, str(stat["linkTarget"]))
    except ApiError as error:
        if error.status != 404:
            raise
        stat = {}
    is_directory = bool(int(stat.get("mode", 0)) & (1 << 31))  # Go's os.ModeDir
    if not stat and target.endswith("/") and not os.path.isdir(path):
        raise CliError(f"the destination directory {target} does not exist in {container}")
    contents = path.endswith(("/.", "\\.")) or path == "."
    if is_directory:
        name = "." if contents else os.path.basename(os.path.abspath(path))
        return target, name
    if stat and os.path.isdir(path):
        raise CliError(f"cannot copy directory {path} to file {container}:{target}")
    clean = target.rstrip("/")
    return os.path.dirname(clean) or "/", os.path.basename(clean)
