"""`atomtrace kernels` in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_atomtrace.report.document import simulated_note
from pytest_atomtrace.report.tables import Column, paragraph, percent, span_of, table
from pytest_atomtrace.trace.names import short_name
from pytest_atomtrace.units import format_duration

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pytest_atomtrace.report.tables import Line
    from pytest_atomtrace.verdicts.kernel_view import KernelLine, KernelView

__all__ = ["kernel_lines"]

_WHAT = {None: "GPU activities", "kernel": "kernels", "memory": "copies and fills", "op": "CPU ops"}


def kernel_lines(view: KernelView, *, width: int, limit: int) -> Iterator[Line]:
    """The table, what its shares are of, or the nearest names; `limit` 0 shows every row."""
    what = _WHAT[view.layer]
    ranks = view.ranks[0] if len(view.ranks) == 1 else f"{len(view.ranks)} ranks"
    during = f" during {view.during}" if view.during else ""
    if not view.rows:
        yield from _nothing(view, f"{what}{during} on {ranks}", width)
        return
    if view.simulated:
        yield "yellow", simulated_note()
    match = f" matching {view.pattern}" if view.pattern else ""
    yield "title", f"{what[:1].upper()}{what[1:]}{match}{during} on {ranks}"
    rows = view.rows[:limit] if limit else view.rows
    drawn = list(table(_columns(view), [_row(view, row) for row in rows], width=width))
    yield from drawn
    yield from _foot(view, len(rows), during, ranks, width)
    # A pattern is made from a name, and a name with dots in it matches nothing.
    if any("…" in text for _, text in drawn):
        yield from paragraph("Names with … are cut to the width; --json has them whole.", width=width)


def _columns(view: KernelView) -> list[Column]:
    columns = [Column("name", left=True, shorten=short_name), Column("family", left=True, drop=2), Column("calls")]
    if view.per_step:
        columns.append(Column("calls/step"))
    if view.layer == "op":
        return [*columns, Column("by phase", left=True)]
    columns += [Column("total"), Column("mean", drop=1), Column("share")]
    return columns if view.during else [*columns, Column("by phase", left=True, drop=3)]


def _row(view: KernelView, row: KernelLine) -> list[str]:
    cells = [row.name, row.family, f"{row.calls:,}"]
    if view.per_step:
        cells.append(span_of(row.calls_per_step_min, row.calls_per_step_max))
    if row.total_ns is None or row.mean_ns is None or row.share is None:
        return [*cells, _phases(row.by_phase)]
    cells += [format_duration(row.total_ns), format_duration(row.mean_ns), percent(row.share)]
    return cells if view.during else [*cells, _phases(row.by_phase)]


def _phases(by_phase: Mapping[str, int]) -> str:
    return ", ".join(f"{phase} {number:,}" for phase, number in by_phase.items())


def _foot(view: KernelView, shown: int, during: str, ranks: str, width: int) -> Iterator[Line]:
    more = f"{shown} of {len(view.rows)} names shown (--limit 0 shows all). " if shown < len(view.rows) else ""
    total = f"{len(view.rows)} name{'s' * (len(view.rows) != 1)}, {view.calls:,} calls"
    if view.layer != "op":
        total += f", {format_duration(view.total_ns)} in sum"
    yield "", total
    notes = more
    if view.layer == "op":
        notes += "A CPU op's duration is the host's; see the kernels that it launched for GPU time."
    else:
        notes += f"Shares are of {format_duration(view.whole_ns)}, the summed durations of all {_WHAT[view.layer]}"
        notes += f"{during} on {ranks}; overlaps count twice."
    if view.per_step:
        unit = f"{view.step_kind} step" if view.during == view.step_kind else f"{view.step_kind} iteration"
        unit = unit if view.during else f"{view.step_kind} step"
        steps = f"{view.steps} {'steady ' if view.steady else ''}{unit}{'s' * (view.steps != 1)}"
        notes += f" Calls per step: smallest and largest number in {steps}."
        if not view.steady:
            notes += " (There are no steady steps, so all inner ones count.)"
    yield from paragraph(notes, width=width)


def _nothing(view: KernelView, where: str, width: int) -> Iterator[Line]:
    if view.pattern is None:
        yield "", f"No {where}."
        return
    yield "yellow", f"Nothing matches {view.pattern} among {where}."
    if not view.nearest:
        yield "", "No name is near it."
        return
    yield "", "Nearest names:"
    for name in view.nearest:
        yield from paragraph(name, width=width, indent=2, style="")
