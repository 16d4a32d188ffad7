"""What every subcommand gets: the given global options, and a client of a daemon that runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import click

from drivetrain_engine.cli.address import (
    DEFAULT_CONFIG_FILE,
    Address,
    Tls,
    choose_hosts,
    parse_address,
)
from drivetrain_engine.cli.client import Client
from drivetrain_engine.cli.errors import CliError, NoDaemon, UsageError

#: Options that only say which daemon is meant, or what this process does.
_OURS = {"hosts", "debug", "config-file", "tls", "tlsverify", "tlscacert", "tlscert", "tlskey"}


class Session:
    """One run of the command line.

    Args:
        given: the global options on the command line, by ``daemon.json`` key.
        new_container: the command makes a container, so ``--storage-driver`` is its own.
    """

    def __init__(self, given: Mapping[str, object], new_container: bool = False) -> None:
        self.given = dict(given)
        self.new_container = new_container

    @cached_property
    def config_file(self) -> str:
        """The configuration file that counts."""
        return str(self.given.get("config-file") or DEFAULT_CONFIG_FILE)

    @cached_property
    def config(self) -> dict[str, object]:
        """Its content; empty when there is none."""
        return read_config(self.config_file)

    def setting(self, key: str, default: str = "") -> str:
        """Return a setting from the flags or from the file."""
        return str(self.given.get(key) or self.config.get(key) or default)

    def _tls(self) -> Tls | None:
        verify = bool(self.given.get("tlsverify") or self.config.get("tlsverify"))
        if not (verify or self.given.get("tls") or self.config.get("tls")):
            return None
        return Tls(
            verify,
            self.setting("tlscacert"),
            self.setting("tlscert"),
            self.setting("tlskey"),
        )

    @cached_property
    def address(self) -> Address:
        """Where the daemon is."""
        return parse_address(choose_hosts(self.given, self.config)[0], self._tls())

    @cached_property
    def client(self) -> Client:
        """A client of the daemon; starts one when none answers on the unix socket."""
        client = Client(self.address)
        if self.address.scheme == "unix" and not _listens(self.address):
            from drivetrain_engine.cli.embedded import start

            start(self, client)
        else:
            self._refuse_contradictions(client)
        return client

    @cached_property
    def existing(self) -> Client | None:
        """A client if a daemon runs, without starting one."""
        client = Client(self.address)
        return client if client.alive() else None

    def _refuse_contradictions(self, client: Client) -> None:
        asked = {key: value for key, value in self.given.items() if key not in _OURS}
        if self.new_container:
            asked.pop("storage-driver", None)
        if not asked:
            return
        from drivetrain_engine.cli.embedded import contradictions

        info = client.get("/info")
        faults = contradictions(asked, info)
        if faults:
            raise UsageError(
                f"a daemon runs at {self.address} already, with other options: "
                + "; ".join(faults)
                + ". Leave them out, stop that daemon, or start another one with its own"
                " --data-root and --exec-root"
            )


def _listens(address: Address) -> bool:
    try:
        address.connect().close()
    except NoDaemon as error:
        if isinstance(error.__cause__, PermissionError):
            raise
        return False
    return True


def read_config(path: str) -> dict[str, object]:
    """Return the content of a configuration file; empty when it does not exist.

    Raises:
        CliError: it cannot be read, or is no JSON object.
    """
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise CliError(f"cannot read {path}: {error.strerror}") from error
    try:
        content = json.loads(text) if text.strip() else {}
    except ValueError as error:
        raise CliError(f"the configuration file {path} is no valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise CliError(f"the configuration file {path} has to be a JSON object")
    return content


def session() -> Session:
    """Return the session of the running command."""
    found: Any = click.get_current_context().find_object(Session)
    if found is None:
        found = Session({})
    return found  # type: ignore[no-any-return]


def api() -> Client:
    """Return the client of the running command."""
    return session().client
