"""What commands print: docker's tables, ``--format``, JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any


class Row(dict[str, Any]):
    """One line of a listing by template field; a template naming another field is an error."""

    fixed = True


def echo(text: str = "") -> None:
    """Print one line to stdout."""
    sys.stdout.write(text + "\n")


def warn(text: str) -> None:
    """Print one line to stderr, after what stdout has so far."""
    sys.stdout.flush()
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def short_id(identifier: str) -> str:
    """Return the first 12 digits, without the algorithm."""
    return identifier.rpartition(":")[2][:12]


def ellipsis(text: str, width: int) -> str:
    """Cut to ``width`` characters, the last of them ``…``."""
    return text if len(text) <= width else text[: width - 1] + "…"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print columns, left-justified, three blanks apart, at least ten wide, as docker does."""
    lines = [list(header), *[[str(cell) for cell in row] for row in rows]]
    widths = [max(10, *(len(line[index]) + 3 for line in lines)) for index in range(len(header))]
    for line in lines:
        cells = [cell.ljust(width) for cell, width in zip(line[:-1], widths[:-1], strict=True)]
        echo("".join(cells) + line[-1])


def listing(
    rows: Sequence[Row],
    columns: Sequence[tuple[str, str]],
    *,
    form: str = "",
    quiet: str = "",
    headers: Mapping[str, str] | None = None,
) -> None:
    """Print rows as a table, as ids only, or by a template.

    Args:
        rows: by template field.
        columns: header and template field of each column of the default table.
        form: of ``--format``: empty, ``table``, ``json``, ``table TEMPLATE`` or a template.
        quiet: the field that ``-q`` prints alone.
        headers: of further fields, for ``table TEMPLATE``.
    """
    if quiet and form in ("", "table"):
        for row in rows:
            echo(str(row[quiet]))
        return
    if form in ("", "table"):
        fields = [field for _, field in columns]
        table([name for name, _ in columns], [[str(row[f]) for f in fields] for row in rows])
        return
    if form == "json":
        for row in rows:
            echo(json.dumps(row, ensure_ascii=False, separators=(",", ":")))
        return
    names = {field: name for name, field in columns} | dict(headers or {})
    if form.startswith("table"):
        _template_table(form.removeprefix("table").strip(), rows, names)
        return
    from drivetrain_engine.cli.template import Template

    template = Template(form)
    for row in rows:
        echo(template.render(row))


def _template_table(source: str, rows: Sequence[Row], names: Mapping[str, str]) -> None:
    from drivetrain_engine.cli.template import Template

    template = Template(source.replace("\\t", "\t"))
    fields = {field for row in rows for field in row} | set(names)
    head = template.render(Row({field: names.get(field, field.upper()) for field in fields}))
    lines = [head.split("\t"), *[template.render(row).split("\t") for row in rows]]
    width = max(len(line) for line in lines)
    padded = [line + [""] * (width - len(line)) for line in lines]
    table(padded[0], padded[1:])


def document(value: Any, form: str, default: Callable[[Any], None] | None = None) -> None:
    """Print one object: by ``default``, as JSON, or by a template."""
    if form == "json":
        echo(json.dumps(value, ensure_ascii=False, separators=(",", ":")))
    elif form:
        from drivetrain_engine.cli.template import Template

        echo(Template(form).render(value))
    elif default is not None:
        default(value)
    else:
        echo(json.dumps(value, indent=4, ensure_ascii=False))


def mapping_text(mapping: Mapping[str, str] | None) -> str:
    """Return ``a=b,c=d`` as label columns show it."""
    return ",".join(f"{key}={value}" for key, value in (mapping or {}).items())
