"""`atomtrace export` in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_atomtrace.report.tables import Column, table
from pytest_atomtrace.units import format_bytes
from pytest_atomtrace.verdicts.evidence import count_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_atomtrace.report.export import Exported
    from pytest_atomtrace.report.tables import Line

__all__ = ["export_lines"]


def export_lines(found: Exported, *, width: int) -> Iterator[Line]:
    """What was written where, and how to read it."""
    counted = ", ".join(
        count_of(number, noun)
        for number, noun in ((len(found.runs), "run"), (found.captures, "capture"), (found.ranks, "rank"))
    )
    yield "title", f"{counted} exported to {found.out} ({format_bytes(found.bytes)})"
    columns = [Column("table", left=True), Column("rows"), Column("files", left=True)]
    rows = [[name, f"{number:,}", str(found.out / name / "*.parquet")] for name, number in found.rows.items()]
    yield from table(columns, rows, width=width)
    if found.dropped:
        yield "dim", f"Of {count_of(found.dropped, 'capture')} the traces were not kept: a row, no steps or kernels."
    if found.problems:
        yield "yellow", f"{count_of(len(found.problems), 'part')} could not be read and {_verb(found)} left out."


def _verb(found: Exported) -> str:
    return "is" if len(found.problems) == 1 else "are"
