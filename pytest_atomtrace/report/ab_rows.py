"""`atomtrace ab` as lines: a table as benchstat's, what the difference is made of, and what each side loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_atomtrace.report.tables import Column, facts, table
from pytest_atomtrace.units import format_duration
from pytest_atomtrace.verdicts.attribution_text import attribution_rows
from pytest_atomtrace.verdicts.side_by_side import LEVEL

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_atomtrace.report.tables import Line
    from pytest_atomtrace.verdicts.side_by_side import Row, SideBySide

__all__ = ["ab_lines"]

_LOADED = 12
_MIDDLE = 60


def ab_lines(found: SideBySide, *, width: int) -> Iterator[Line]:
    """Lay the comparison out."""
    sizes = f"{found.launches} launches a side, {found.windows} window{'s' * (found.windows > 1)} each, in turn"
    yield from facts([("case", found.case), ("samples", sizes)], width=width)
    yield "", ""
    columns = [Column("per decode step", left=True), Column("A"), Column("+-"), Column("B"), Column("+-")]
    columns += [Column("delta"), Column("p")]
    styles = [_style(row) for row in found.rows]
    yield from table(columns, [_cells(row) for row in found.rows], width=width, styles=styles)
    yield "dim", f"Medians over launches; ~ is no difference at p < {LEVEL:g}."
    if any(row.differs for row in found.rows):
        yield "", ""
        for key, lines in attribution_rows(found.explained):
            for number, line in enumerate(line for line in lines if line):
                yield "", f"{key if number == 0 else '':<9} {line}"
    yield "", ""
    yield from _loaded(found)


def _style(row: Row) -> str:
    return ("red" if row.change > 0 else "green") if row.differs else ""


def _cells(row: Row) -> list[str]:
    delta = f"{row.change * 100:+.1f} %" if row.differs else "~"
    return [
        row.metric.removeprefix("decode."),
        format_duration(row.a_ns),
        f"{row.a_spread * 100:.1f} %",
        format_duration(row.b_ns),
        f"{row.b_spread * 100:.1f} %",
        delta,
        f"{row.p:.3f}",
    ]


def _loaded(found: SideBySide) -> Iterator[Line]:
    differing = {key: pair for key, pair in found.loaded.items() if pair[0] != pair[1]}
    equal = len(found.loaded) - len(differing)
    if not differing:
        yield "yellow", f"Both sides ran the same: all {equal} facts about packages, libraries and variables are equal."
        return
    yield "", f"The sides differ in {len(differing)} of {len(found.loaded)} facts seen of the running servers:"
    for key, (a, b) in list(differing.items())[:_LOADED]:
        yield "", f"  {key}: {_short(a)} | {_short(b)}"
    if len(differing) > _LOADED:
        yield "", f"  and {len(differing) - _LOADED} more"


def _short(text: str) -> str:
    return text if len(text) <= _MIDDLE else f"{text[: _MIDDLE // 2]}...{text[-_MIDDLE // 2 :]}"
