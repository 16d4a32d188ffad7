"""Write docs/reference/: hooks, values and errors from the contract, commands from the CLI.

The contract's docstrings are the reference; this puts each family on one page of Markdown, so
that nothing has to be written twice or can contradict the code.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import click

FAMILIES = ("storage", "network", "log", "volume", "extension")
EXAMPLES = Path(__file__).parents[1] / "docs" / "examples"
TARGET = Path(__file__).parents[1] / "docs" / "reference"
_SECTIONS = ("Args", "Raises", "Returns", "Attributes", "Example", "Yields")


def prose(docstring: str | None) -> str:
    """Return a docstring as Markdown: literals, code blocks, sections."""
    text = inspect.cleandoc(docstring or "")
    text = re.sub(r":[a-z]+:`~?([^`]+)`", r"`\1`", text).replace("``", "`")
    lines: list[str] = []
    for line in text.splitlines():
        if re.fullmatch(r"=+|-+", line.strip()) and lines:
            lines[-1] = f"### {lines[-1]}"
        elif line.strip().rstrip(":") in _SECTIONS and line.strip().endswith(":"):
            lines += [f"**{line.strip().rstrip(':')}**", ""]
        elif match := re.fullmatch(r"    ([\w, *]+): (.*)", line):
            lines.append(f"- `{match[1]}`: {match[2]}")
        else:
            lines.append(line.replace("::", ":") if line.endswith("::") else line)
    return "\n".join(lines)


def signature(function: Any) -> str:
    """Return a hook's signature without ``self`` and without quotes around types."""
    text = str(inspect.signature(function)).replace("'", "")
    return re.sub(r"^\(self(, )?", "(", text)


def hooks_class(module: ModuleType, family: str) -> type:
    """Return the class of a family's hookspecs."""
    found: type = getattr(module, f"{family.capitalize()}Hooks")
    return found


def examples(family: str) -> dict[str, str]:
    """Return the implementation of each hook in ``docs/examples``, by the hook's name."""
    text = (EXAMPLES / f"{family}.py").read_text()
    found: dict[str, str] = {}
    for part in ast.parse(text).body:
        if isinstance(part, ast.ClassDef) and part.name == "Example":
            for method in part.body:
                if isinstance(method, ast.FunctionDef):
                    first = min(mark.lineno for mark in method.decorator_list)
                    lines = text.splitlines()[first - 1 : method.end_lineno]
                    found[method.name] = textwrap.dedent("\n".join(lines))
    return found


def family_page(family: str) -> str:
    """Return the page of one family."""
    module = importlib.import_module(f"drivetrain.{family}")
    shown = examples(family)
    parts = [f"# {family.capitalize()}", prose(module.__doc__), "## Hooks"]
    for name, hook in vars(hooks_class(module, family)).items():
        if not name.startswith("_") and callable(hook):
            parts += [
                f"### {name}",
                f"```python\n{name}{signature(hook)}\n```",
                prose(hook.__doc__),
                f"**Example**\n\n```python\n{shown[name]}\n```",
            ]
    parts.append("## Values")
    for name, value in vars(module).items():
        if not inspect.isclass(value) or value.__module__ != module.__name__:
            continue
        if name.endswith("Hooks"):
            continue
        parts += [f"### {name}", fields(value), prose(value.__doc__)]
    return "\n\n".join(part for part in parts if part) + "\n"


def fields(value: type) -> str:
    """Return the fields of a dataclass or named tuple as code."""
    if dataclasses.is_dataclass(value):
        lines = [f"{field.name}: {field.type}" for field in dataclasses.fields(value)]
    else:
        lines = [f"{name}: {kind}" for name, kind in inspect.get_annotations(value).items()]
    return "```python\n" + "\n".join(lines) + "\n```" if lines else ""


def module_page(name: str, title: str) -> str:
    """Return the page of a module's public classes and functions."""
    module = importlib.import_module(name)
    parts = [f"# {title}", prose(module.__doc__)]
    for key, value in vars(module).items():
        if getattr(value, "__module__", "") != name or key.startswith("_"):
            continue
        parts.append(f"## {key}")
        if inspect.isfunction(value):
            parts.append(f"```python\n{key}{signature(value)}\n```")
        parts.append(prose(value.__doc__))
    return "\n\n".join(part for part in parts if part) + "\n"


def commands(command: click.Command, context: click.Context) -> Iterator[str]:
    """Yield the help of a command and of all below it."""
    yield f"## {context.command_path}\n\n```\n{command.get_help(context)}\n```"
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None, name
            yield from commands(child, click.Context(child, info_name=name, parent=context))


def command_page() -> str:
    """Return the page of the command line."""
    from drivetrain_engine.cli.main import engine

    context = click.Context(engine, info_name="engine", max_content_width=98, terminal_width=98)
    return "# The command line\n\n" + "\n\n".join(commands(engine, context)) + "\n"


def pages() -> dict[str, str]:
    """Return all pages by file name."""
    found = {f"{family}.md": family_page(family) for family in FAMILIES}
    found["errors.md"] = module_page("drivetrain.errors", "Errors")
    found["options.md"] = module_page("drivetrain.options", "Options")
    found["command-line.md"] = command_page()
    return found


def main(target: Path = TARGET) -> None:
    """Write the pages."""
    target.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (target / name).write_text(text, encoding="utf-8")
        print(target / name)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else TARGET)
