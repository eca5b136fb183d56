"""`atomtrace ab` as lines: a table as benchstat's, what the difference is made of, and what each side loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_atomtrace.report.tables import Column, facts, table
from pytest_atomtrace.units import format_duration
from pytest_atomtrace.verdicts.attribution_text import attribution_rows
from pytest_atomtrace.verdicts.evidence import count_of
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
    launches, windows = count_of(found.launches, "launch", "launches"), count_of(found.windows, "window")
    sizes = f"{launches} a side, {windows} each, in turn"
    yield from facts([("case", found.case), ("samples", sizes)], width=width)
    yield "", ""
    columns = [Column("per decode step", left=True), Column("A"), Column("+-"), Column("B"), Column("+-")]
    columns += [Column("delta"), Column("p")]
    styles = [_style(row) for row in found.rows]
    yield from table(columns, [_cells(row) for row in found.rows], width=width, styles=styles)
    yield from _how_told(found)
    if any(row.differs for row in found.rows):
        yield "", ""
        for key, lines in attribution_rows(found.explained):
            for number, line in enumerate(line for line in lines if line):
                yield "", f"{key if number == 0 else '':<9} {line}"
    yield "", ""
    yield from _loaded(found)


def _how_told(found: SideBySide) -> Iterator[Line]:
    """What the marks mean, and what so many launches can tell."""
    if found.test == "none":
        yield (
            "yellow",
            "One launch a side cannot tell a difference from the noise of launches, so nothing here is a verdict: "
            "--launches 5.",
        )
        return
    yield "dim", f"Medians over n = {found.launches} launches a side; ~ is no difference at p < {LEVEL:g}."
    if found.test == "welch":
        yield (
            "yellow",
            f"n = {found.launches} is small: only what is large beside the spread can reach p < {LEVEL:g}, "
            "and a ~ does not say that there is no difference. Take --launches 5.",
        )


def _style(row: Row) -> str:
    return ("red" if row.change > 0 else "green") if row.differs else ""


def _cells(row: Row) -> list[str]:
    # Of one launch a side the number is shown for what it is, marked as no finding.
    change = f"{row.change * 100:+.1f} %"
    delta = f"{change} ?" if row.p is None else change if row.differs else "~"
    return [
        row.metric.removeprefix("decode."),
        format_duration(row.a_ns),
        _percent(row.a_spread),
        format_duration(row.b_ns),
        _percent(row.b_spread),
        delta,
        "-" if row.p is None else f"{row.p:.3f}",
    ]


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share * 100:.1f} %"


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
