"""``pull``, ``push``, ``login``, ``logout``."""

from __future__ import annotations

import getpass
import sys
from typing import Any

import click

from drivetrain_engine.cli import registryauth
from drivetrain_engine.cli.client import Client, Response
from drivetrain_engine.cli.commands.files import split_reference
from drivetrain_engine.cli.errors import CliError, UsageError
from drivetrain_engine.cli.flags import command, flag, option
from drivetrain_engine.cli.output import echo, warn
from drivetrain_engine.cli.session import api

#: What is shown of a layer without a terminal: states, and not every step within one.
_STATES = frozenset(
    {"Pulling fs layer", "Already exists", "Download complete", "Pull complete", "Preparing",
     "Layer already exists", "Pushed"}
)  # fmt: skip


class _Progress:
    """Shows a progress stream: on a terminal a line per layer, else a line per change of state."""

    def __init__(self) -> None:
        self._lines: dict[str, int] = {}
        self._terminal = sys.stdout.isatty()

    def show(self, document: dict[str, Any]) -> None:
        status, layer = str(document.get("status") or ""), str(document.get("id") or "")
        if not status:
            return
        text = f"{layer}: {status}" if layer else status
        detail = document.get("progressDetail") or {}
        if detail.get("total"):
            text += f" {detail['current'] / 1e6:.1f} MB/{detail['total'] / 1e6:.1f} MB"
        if layer and self._terminal:
            self._replace(layer, text)
        elif not layer or status in _STATES or status.startswith("Pulling from"):
            echo(text)
            self._lines.clear()

    def _replace(self, layer: str, text: str) -> None:
        if layer not in self._lines:
            self._lines[layer] = len(self._lines)
            echo(text)
            return
        up = len(self._lines) - self._lines[layer]
        sys.stdout.write(f"\x1b[{up}A\r\x1b[2K{text}\x1b[{up}B\r")
        sys.stdout.flush()


def _follow(answer: Response, quiet: bool) -> None:
    progress = _Progress()
    for document in answer.documents():
        if document.get("error"):
            raise CliError(str(document["error"]))
        if not quiet:
            progress.show(document)


def pull_image(client: Client, name: str, *, platform: str, quiet: bool, tags: bool = False) -> str:
    """Pull an image, showing how it goes; return the name with its tag or digest.

    Args:
        client: of the daemon.
        name: as the user gave it.
        platform: such as ``linux/arm64``, or empty.
        quiet: show nothing.
        tags: all tags of the repository.
    """
    rest, at, digest = name.partition("@")
    if at:
        repository, tag = rest, digest
    else:
        repository, tag = split_reference(name)
        if tags and tag:
            raise UsageError("tag can't be used with --all-tags/-a")
        tag = "" if tags else tag or "latest"
    query = {"fromImage": repository, "tag": tag, "platform": platform}
    headers = registryauth.header(registryauth.registry_of(repository))
    with client.open("POST", "/images/create", query=query, headers=headers) as answer:
        _follow(answer, quiet)
    return name if at or tags else f"{repository}:{tag}"


@command("pull")
@flag("-a", "--all-tags", help="Pull all tags of the repository")
@flag("-q", "--quiet", help="Show the name only")
@option("--platform", default="", help="Platform (os/architecture)")
@click.argument("name")
def pull_command(name: str, all_tags: bool, quiet: bool, platform: str) -> None:
    """Bring an image from a registry."""
    if not all_tags and not quiet and "@" not in name and not split_reference(name)[1]:
        echo("Using default tag: latest")
    echo(pull_image(api(), name, platform=platform, quiet=quiet, tags=all_tags))


@command("push")
@flag("-a", "--all-tags", help="Push all tags of the repository")
@flag("-q", "--quiet", help="Show the name only")
@click.argument("name")
def push_command(name: str, all_tags: bool, quiet: bool) -> None:
    """Send an image to the registry of its name."""
    repository, tag = split_reference(name)
    if all_tags and tag:
        raise UsageError("tag can't be used with --all-tags/-a")
    if not all_tags and not tag:
        tag = "latest"
        if not quiet:
            echo("Using default tag: latest")
    headers = registryauth.header(registryauth.registry_of(repository))
    path = f"/images/{repository}/push"
    with api().open("POST", path, query={"tag": tag}, headers=headers) as answer:
        _follow(answer, quiet)
    if quiet:
        echo(f"{repository}:{tag}" if tag else repository)


@command("login")
@option("-u", "--username", default="", help="Username")
@option("-p", "--password", default="", help="Password; --password-stdin is safer")
@flag("--password-stdin", help="Take the password from stdin")
@click.argument("server", default="")
def login_command(server: str, username: str, password: str, password_stdin: bool) -> None:
    """Check and remember the credentials for a registry."""
    if password and password_stdin:
        raise UsageError("--password and --password-stdin are mutually exclusive")
    if password_stdin:
        if not username:
            raise UsageError("must provide --username with --password-stdin")
        password = sys.stdin.read().rstrip("\r\n")
    elif password:
        warn("WARNING! Using --password via the CLI is insecure. Use --password-stdin.")
    elif not sys.stdin.isatty():
        raise UsageError("cannot ask for a password without a terminal: use --password-stdin")
    username = username or input("Username: ")
    password = password or getpass.getpass("Password: ")
    registry = server or registryauth.HUB
    body = {"username": username, "password": password, "serveraddress": registry}
    answer = api().json("POST", "/auth", body=body)
    token = str(answer.get("IdentityToken") or "")
    path = registryauth.remember(registry, username, password, token)
    warn(f"WARNING! Your credentials are stored unencrypted in '{path}'.")
    echo(str(answer.get("Status") or "Login Succeeded"))


@command("logout")
@click.argument("server", default="")
def logout_command(server: str) -> None:
    """Forget the credentials for a registry."""
    registry = server or registryauth.HUB
    if not registryauth.forget(registry):
        echo(f"Not logged in to {registry}")
        return
    echo(f"Removing login credentials for {registry}")
