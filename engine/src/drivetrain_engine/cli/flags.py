"""Click made to read docker's command lines: ``--rm=false``, options before the first argument."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])
_TRUE = ("1", "t", "true")
_FALSE = ("0", "f", "false")
NO_INTERSPERSED = {"allow_interspersed_args": False}


class PlainOption(click.Option):
    """An option whose help is one line: nothing is unindented, which would import ``inspect``."""

    def __init__(self, *names: Any, help: str | None = None, **settings: Any) -> None:
        super().__init__(*names, **settings)
        self.help = help


#: Declares an option; for all of ours, instead of click's.
option = partial(click.option, cls=PlainOption)


class GoFlags(click.Command):
    """A command whose boolean options also take ``=true`` and ``=false``."""

    def get_help_option(self, ctx: click.Context) -> click.Option | None:
        """Return the option ``--help``; click's own would import ``inspect``."""
        names = self.get_help_option_names(ctx)
        if names and self._help is None:
            self._help = PlainOption(
                [*names, "help"], is_flag=True, is_eager=True, expose_value=False,
                callback=_show_help, help="Show this message and exit.",
            )  # fmt: skip
        return self._help if names else None

    _help: PlainOption | None = None

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take ``--flag=false`` out of ``args``, parse the rest, and set those flags."""
        kept, given = self._booleans(ctx, list(args))
        rest = super().parse_args(ctx, kept)
        for option, value in given.items():
            if option.expose_value and option.name:
                ctx.params[option.name] = value
                ctx.set_parameter_source(option.name, click.core.ParameterSource.COMMANDLINE)
        return rest

    def _booleans(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[list[str], dict[click.Option, bool]]:
        options = {
            name: parameter
            for parameter in self.get_params(ctx)
            if isinstance(parameter, click.Option)
            for name in parameter.opts
        }
        kept: list[str] = []
        given: dict[click.Option, bool] = {}
        while args:
            word = args.pop(0)
            name, separator, value = word.partition("=")
            option = options.get(name)
            if word == "--" or not (word.startswith("-") and len(word) > 1):
                kept.append(word)
                if word == "--" or not ctx.allow_interspersed_args:
                    break
            elif option is not None and option.is_flag and separator:
                given[option] = self._truth(option, name, value)
            elif option is not None and len(name) == 2 and separator:
                kept += [name, value]  # -H=value, which click takes for the value "=value"
            else:
                kept.append(word)
                if args and _wants_value(word, options):
                    kept.append(args.pop(0))
        return kept + args, given

    @staticmethod
    def _truth(option: click.Option, name: str, value: str) -> bool:
        if value.lower() in _TRUE:
            return True
        if value.lower() in _FALSE:
            return False
        raise click.BadParameter(f"{value!r} is not true or false", param=option, param_hint=name)


def _show_help(ctx: click.Context, parameter: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        click.echo(ctx.get_help(), color=ctx.color)
        ctx.exit()


def _wants_value(word: str, options: dict[str, click.Option]) -> bool:
    """Tell whether the next word is the value of the option(s) in ``word``."""
    if word.startswith("--"):
        option = options.get(word)
        return option is not None and not option.is_flag
    for position, letter in enumerate(word[1:], start=1):
        option = options.get("-" + letter)
        if option is not None and not option.is_flag:
            return position == len(word) - 1
    return False


class GoGroup(GoFlags, click.Group):
    """A group with such flags, for itself and for its subcommands."""

    command_class = GoFlags


def command(name: str, *, arguments_last: bool = False, **attributes: Any) -> Callable[[F], Any]:
    """Declare a subcommand; with ``arguments_last`` all behind the first argument is its own."""
    settings: dict[str, Any] = {"help_option_names": ["--help"]}
    if arguments_last:
        settings["allow_interspersed_args"] = False
        settings["ignore_unknown_options"] = False
    return click.command(name, cls=GoFlags, context_settings=settings, **attributes)


def flag(*names: str, help: str, default: bool = False, **more: Any) -> Callable[[F], F]:
    """Declare a boolean option."""
    return option(*names, is_flag=True, default=default, help=help, **more)


def many(*names: str, help: str, **more: Any) -> Callable[[F], F]:
    """Declare an option that may be given several times."""
    return option(*names, multiple=True, help=help, **more)
