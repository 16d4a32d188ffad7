"""``engine``: without a subcommand the daemon in the foreground, with one a client of it."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

import click

from drivetrain_engine.cli.daemonflags import daemon_flags, given_settings
from drivetrain_engine.cli.errors import ApiError, CliError
from drivetrain_engine.cli.flags import GoGroup, option
from drivetrain_engine.cli.session import Session

_PACKAGE = "drivetrain_engine.cli.commands"

#: Subcommand -> module; the function there is named after the command, with ``_command`` behind.
COMMANDS = {
    **dict.fromkeys(("run", "create", "start", "attach", "exec"), "run"),
    **dict.fromkeys(
        ("stop", "restart", "kill", "rm", "wait", "pause", "unpause", "rename", "update"),
        "lifecycle",
    ),
    **dict.fromkeys(("ps", "top", "stats", "port", "logs"), "looking"),
    **dict.fromkeys(("cp", "export", "diff", "commit"), "files"),
    **dict.fromkeys(("images", "rmi", "tag", "history", "import", "load", "save"), "images"),
    **dict.fromkeys(("pull", "push", "login", "logout"), "registry"),
    **dict.fromkeys(("events", "info", "version", "inspect", "system"), "system"),
    "container": "groups",
    "image": "groups",
    "network": "networks",
    "volume": "volumecontents",
    "driver": "drivers",
    "storage": "storage",
}
_NEW_CONTAINER = {"run", "create", "container"}


def load(name: str) -> click.Command:
    """Import the module of a subcommand and return it."""
    module = importlib.import_module(f"{_PACKAGE}.{COMMANDS[name]}")
    command: click.Command = getattr(module, f"{name}_command")
    return command


class Engine(GoGroup):
    """The group: subcommands are imported when they are called for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of ours, then those of extensions."""
        return sorted(set(COMMANDS) | set(_extension_commands()))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a subcommand."""
        if cmd_name in COMMANDS:
            return load(cmd_name)
        return _extension_commands().get(cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Name the closest subcommand when there is no such one."""
        name = args[0]
        if self.get_command(ctx, name) is None:
            import difflib

            near = difflib.get_close_matches(name, self.list_commands(ctx), n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise CliError(f"{name!r} is not an engine command{hint}; see `engine --help`")
        return super().resolve_command(ctx, args)


def _extension_commands() -> dict[str, click.Command]:
    """Return the commands of installed extensions; without any, nothing is imported for them."""
    from importlib.metadata import entry_points

    if not entry_points(group="drivetrain.extension"):
        return {}
    from drivetrain.registry import Registry

    found: dict[str, click.Command] = {}
    for extension in Registry().extensions():
        for commands in extension.call.extension_commands():
            listed = commands if isinstance(commands, (list, tuple)) else [commands]
            found.update({str(command.name): command for command in listed})
    return found


@click.group(
    cls=Engine,
    invoke_without_command=True,
    context_settings={"help_option_names": ["--help"], "allow_interspersed_args": False},
)
@daemon_flags
@option("-v", "--version", is_flag=True, help="Print the version and quit")
@click.pass_context
def engine(ctx: click.Context, /, version: bool, **parameters: Any) -> None:
    """Drivetrain, a container engine whose drivers are pip packages.

    Without a command: run the daemon in the foreground. With one: talk to the daemon, and start
    one in the background when none answers.
    """
    if version:
        from importlib.metadata import version as version_of

        click.echo(f"engine version {version_of('drivetrain-engine')}")
        return
    given = given_settings(ctx, parameters)
    name = ctx.invoked_subcommand
    if name is None:
        from drivetrain_engine.cli.foreground import run_daemon

        run_daemon(given)
        return
    ctx.obj = Session(given, new_container=name in _NEW_CONTAINER)


def _fail(error: Exception, prefix: str = "engine: ") -> int:
    sys.stdout.flush()
    sys.stderr.write(f"{prefix}{error}\n")
    return int(getattr(error, "exit_code", 1))


def _wants_traceback(arguments: list[str]) -> bool:
    return "--debug" in arguments or "-D" in arguments or bool(os.environ.get("ENGINE_DEBUG"))


def run(arguments: list[str]) -> int:
    """Run a command line and return its exit status."""
    try:
        result = engine.main(args=arguments, prog_name="engine", standalone_mode=False)
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.UsageError as error:
        usage = error.ctx.get_usage() + "\n" if error.ctx else ""
        path = error.ctx.command_path if error.ctx else "engine"
        text = error.format_message()
        return _fail(CliError(f"{text}\n\n{usage}Run `{path} --help` for more", 125), "engine: ")
    except click.Abort:
        return 130
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # What read us went away; Python must not complain about that when it flushes at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141
    except Exception as error:
        if _wants_traceback(arguments):
            raise
        if isinstance(error, ApiError):
            return _fail(error, "engine: error from the daemon: ")
        if isinstance(error, CliError) or hasattr(error, "exit_code"):
            return _fail(error)
        if isinstance(error, OSError):
            return _fail(CliError(str(error)))
        return _fail(
            CliError(f"{type(error).__name__}: {error} (a fault of ours; --debug shows where)")
        )


def main() -> None:
    """Run ``engine`` as a process."""
    code = run(sys.argv[1:])
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        code = 141
    # The stdin thread of an attached command may sit in a read; do not wait for it.
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
