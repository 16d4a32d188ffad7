"""Results, and the table that shows them beside their budgets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_HEAD = ("work", "engine", "peer", "", "ratio", "budget", "")


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        work: what was measured.
        unit: of ``ours`` and ``theirs``.
        ours: our figure; ``None``: not measured, ``note`` says why.
        theirs: the peer's; ``None``: it is missing, ``note`` says why, or has no counterpart.
        peer: its name.
        ratio: budget as a part of the peer's figure; ``None``: there is none.
        limit: budget in ``unit``; ``None``: there is none.
        more: more is better, the budgets are lower bounds.
        note: what a reader has to know.
    """

    work: str
    unit: str
    ours: float | None
    theirs: float | None = None
    peer: str = "dockerd"
    ratio: float | None = None
    limit: float | None = None
    more: bool = False
    note: str = ""

    @property
    def quotient(self) -> float | None:
        """Ours divided by theirs."""
        return self.ours / self.theirs if self.ours is not None and self.theirs else None

    @property
    def kept(self) -> bool | None:
        """Whether the budget is kept; ``None``: there is none, or nothing to compare."""
        pairs = ((self.quotient, self.ratio), (self.ours, self.limit))
        found = [
            figure >= bound if self.more else figure <= bound
            for figure, bound in pairs
            if figure is not None and bound is not None
        ]
        return all(found) if found else None

    def cells(self) -> tuple[str, ...]:
        """Return the row's texts."""
        sign = "≥" if self.more else "≤"
        budgets = [f"{sign} {self.ratio:g} ×"] if self.ratio is not None else []
        budgets += [f"{sign} {self.limit:g} {self.unit}"] if self.limit is not None else []
        quotient = self.quotient
        verdict = {True: "ok", False: "MISSED", None: ""}[self.kept]
        return (
            self.work,
            "-" if self.ours is None else f"{_figure(self.ours)} {self.unit}",
            "-" if self.theirs is None else f"{_figure(self.theirs)} {self.unit}",
            self.peer if self.theirs is not None else "",
            "" if quotient is None else f"{quotient:.2f}",
            ", ".join(budgets),
            f"{verdict}  {self.note}".strip(),
        )


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def show(rows: Sequence[Row]) -> str:
    """Return the table as text."""
    cells = [_HEAD, *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(_HEAD))]
    lines = []
    for line in cells:
        first, *figures, last = [
            text.ljust(width) if column in (0, 3, 5, 6) else text.rjust(width)
            for column, (text, width) in enumerate(zip(line, widths, strict=True))
        ]
        lines.append("  ".join((first, *figures, last)).rstrip())
    lines.insert(1, "-" * max(map(len, lines)))
    return "\n".join(lines)
