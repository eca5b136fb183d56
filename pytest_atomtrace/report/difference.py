"""`atomtrace diff` in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_atomtrace.report.document import simulated_note
from pytest_atomtrace.report.shortening import shortened
from pytest_atomtrace.report.tables import Column, facts, paragraph, signed_percent, table
from pytest_atomtrace.trace.names import short_name
from pytest_atomtrace.units import format_duration

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_atomtrace.report.tables import Line
    from pytest_atomtrace.verdicts.diff import Difference, FamilyDelta, KernelDelta, Side

__all__ = ["difference_lines"]

_STYLES = {"grew": "red", "came": "yellow", "went": "yellow", "replaced": "yellow", "shrank": "green"}


def difference_lines(found: Difference, *, width: int, limit: int) -> Iterator[Line]:
    """What the two are not alike in, both sides, the step's difference, families, and the kernels that changed."""
    sides = (("A", found.a), ("B", found.b))
    yield from (("yellow", note) for note in _notes(found))
    if found.unlike:
        yield "yellow", _unlike(found, width)
    rows = [row for key, side in sides for row in ((key, side.source), ("", _side(side, found.during)))]
    yield from facts(rows, width=width)
    yield "", ""
    yield "title", _headline(found)
    for side in (found.a, found.b):
        if not side.sound:
            yield "red", f"{side.source} is not to be believed: atomtrace health {side.source}"
    yield "", ""
    columns = [
        Column("family", left=True),
        Column("calls/step"),
        Column("A", drop=1),
        Column("B"),
        Column("difference"),
        Column("change", drop=2),
        Column("explains"),
    ]
    families = [one for one in found.families if one.changed]
    yield from table(columns, [_family(one) for one in families], width=width)
    if len(families) < len(found.families):
        yield "dim", f"{len(found.families) - len(families)} more families without change"
    changed = [row for row in found.kernels if row.change != "same"]
    same = len(found.kernels) - len(changed)
    yield "", ""
    if not changed:
        yield "green", f"No kernel changed: {same} names, equal calls, times within 1 % or 0.2 us a step."
        return
    shown = changed[:limit] if limit else changed
    columns = [Column("", left=True), Column("kernel", left=True, shorten=short_name, least=28), *columns[1:]]
    styles = [_STYLES.get(row.change, "") for row in shown]
    yield from table(columns, [_kernel(row) for row in shown], width=width, styles=styles)
    yield from _replacements(shown, width)
    yield from _foot(found, len(changed), len(shown), same, width)


def _unlike(found: Difference, width: int) -> str:
    """One line: with the values where they fit, else what differs."""
    head = "A and B are not captures of one case"
    text = f"{head}: {', '.join(f'{one.what} {one.a} / {one.b}' for one in found.unlike)}"
    return text if len(text) <= width else f"{head}: {', '.join(one.what for one in found.unlike)} differ"


def _notes(found: Difference) -> list[str]:
    if found.a.simulated and found.b.simulated:
        return [simulated_note()]
    return [simulated_note(key) for key, side in (("A", found.a), ("B", found.b)) if side.simulated]


def _side(side: Side, during: str) -> str:
    ranks = side.ranks[0] if len(side.ranks) == 1 else f"{len(side.ranks)} ranks"
    steps = f"{side.steps} {'steady ' if side.steady else ''}{during} step{'s' * (side.steps != 1)}"
    return f"{ranks}, {steps}, {side.kernels:,} kernels, GPU busy {format_duration(side.busy_ns)}"


def _headline(found: Difference) -> str:
    change = f" ({signed_percent(found.busy_delta_ns / found.a.busy_ns, 2)})" if found.a.busy_ns else ""
    kernels = found.b.kernels - found.a.kernels
    more = f", {kernels:+,} kernels" if kernels else ", equally many kernels"
    return f"GPU busy per {found.during} step: {_signed(found.busy_delta_ns)}{change}{more}"


def _signed(ns: int) -> str:
    return f"{'+' if ns > 0 else '-' if ns < 0 else ''}{format_duration(abs(ns))}"


def _calls(before: int, after: int) -> str:
    return f"{before:,}" if before == after else f"{before:,} -> {after:,}"


def _share(share: float | None) -> str:
    return signed_percent(share, 0).removeprefix("+") if share is not None else ""


def _change(before: int, delta: int) -> str:
    return signed_percent(delta / before) if before else "new"


def _family(one: FamilyDelta) -> list[str]:
    return [
        one.family,
        _calls(one.before_calls, one.after_calls),
        format_duration(one.before_ns),
        format_duration(one.after_ns),
        _signed(one.delta_ns),
        _change(one.before_ns, one.delta_ns),
        _share(one.explains),
    ]


def _kernel(row: KernelDelta) -> list[str]:
    return [
        row.change,
        row.name,
        _calls(row.before_calls, row.after_calls),
        format_duration(row.before_ns) if row.before_calls else "-",
        format_duration(row.after_ns) if row.after_calls else "-",
        _signed(row.delta_ns),
        _change(row.before_ns, row.delta_ns) if row.after_calls else "gone",
        _share(row.explains),
    ]


def _replacements(rows: list[KernelDelta], width: int) -> Iterator[Line]:
    for row in rows:
        if row.change == "replaced":
            room = max(24, (width - 16) // 2)
            before, after = shortened((row.before_name, row.name), room, short_name)
            yield "", f"replaced: {before} -> {after}"


def _foot(found: Difference, changed: int, shown: int, same: int, width: int) -> Iterator[Line]:
    text = f"Medians per step. {same} more name{'s' * (same != 1)} with equal calls and times within 1 % or 0.2 us."
    if shown < changed:
        text += f" {shown} of {changed} changes shown (--limit 0 shows all)."
    if found.explained is not None:
        text += (
            " A, B and difference are sums of durations. Explains: part of the step's difference; what a side stream "
            f"does behind the main one explains nothing (all kernels together: {100 * found.explained:.0f} %)."
        )
    else:
        text += " The step's difference is below 0.5 %, so shares of it are not given."
    yield from paragraph(text, width=width)
