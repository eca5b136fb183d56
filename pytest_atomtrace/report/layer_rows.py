"""`atomtrace layers` in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_atomtrace.report.document import simulated_note
from pytest_atomtrace.report.tables import Column, clipped, facts, paragraph, percent, table
from pytest_atomtrace.trace.names import short_name
from pytest_atomtrace.units import format_duration

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_atomtrace.report.tables import Line
    from pytest_atomtrace.verdicts.layer_view import LayerBlock, LayerLine, LayerView

__all__ = ["layer_lines"]

_MODULE_ROOM = 30
_SHOWN = 10


def layer_lines(view: LayerView, *, width: int, kernels: bool) -> Iterator[Line]:
    """One table a group of equal layers, then what belongs to no layer, and with `kernels` every kernel."""
    if view.simulated:
        yield "yellow", simulated_note()
    busy = format_duration(view.gpu_busy_ns)
    rows = [
        ("trace", view.source),
        ("step", f"#{view.step} {view.label} on {view.rank}"),
        ("window", f"{format_duration(view.window_ns)} ({view.window}), GPU busy {busy}"),
    ]
    if view.capture:
        rows.append(("capture", view.capture))
    yield from facts(rows, width=width)
    if not view.blocks:
        yield "yellow", "No kernel of this step lies in a module named layers.<N>."
    for block in view.blocks:
        yield "", ""
        yield from _block(block, width)
    yield from _rest(view, width)
    if kernels:
        yield "", ""
        yield from _kernels(view, width)
    found = ", ".join(f"{how} {number:,}" for how, number in view.how.items())
    yield "", ""
    yield from paragraph(f"Origins of kernels: {found}.", width=width)


def _block(block: LayerBlock, width: int) -> Iterator[Line]:
    each = " each" if len(block.layers) > 1 else ""
    share = percent(block.share_of_step)
    yield "title", f"{block.label}: {format_duration(block.time_ns)}{each}, {share} of the step"
    columns = [*_COLUMNS, Column("of layer"), Column("of step", drop=1)]
    rows = []
    module = ""
    for row in block.rows:
        shares = [percent(row.share_of_layer or 0.0), percent(row.share_of_step)]
        rows.append([*_cells(row, shown=row.module != module), *shares])
        module = row.module
    yield from table(columns, rows, width=width)


_COLUMNS = (
    Column("module", left=True),
    Column("kernel", left=True, shorten=short_name, least=28),
    Column("stream", drop=2),
    Column("time"),
)


def _cells(row: LayerLine, *, shown: bool) -> list[str]:
    return [_ending(row.module) if shown else "", row.kernel, str(row.stream), format_duration(row.time_ns)]


def _kernels(view: LayerView, width: int) -> Iterator[Line]:
    yield "title", "Every kernel in time order"
    columns = [
        Column("at"),
        Column("time"),
        Column("stream", drop=3),
        Column("kernel", left=True, shorten=short_name, least=28),
        Column("op", left=True),
        Column("module", left=True, drop=2),
        Column("found by", left=True, drop=4),
    ]
    rows = [
        [
            format_duration(one.start_ns),
            format_duration(one.time_ns),
            str(one.stream),
            one.kernel,
            clipped(one.op, _MODULE_ROOM),
            _ending(one.module),
            one.how,
        ]
        for one in view.kernels
    ]
    yield from table(columns, rows, width=width)


def _ending(module: str) -> str:
    # The end of a module's path tells modules apart, its start is the same for all.
    return module if len(module) <= _MODULE_ROOM else f"…{module[1 - _MODULE_ROOM :]}"


def _rest(view: LayerView, width: int) -> Iterator[Line]:
    for title, rows in (("of no layer", view.outside), ("of unknown origin", view.unmatched)):
        if not rows:
            continue
        total = sum(row.time_ns for row in rows)
        yield "", ""
        yield "title", f"{len(rows)} kernel{'s' * (len(rows) != 1)} {title}: {format_duration(total)} in sum"
        longest = sorted(rows, key=lambda row: -row.time_ns)[:_SHOWN]
        cells = [[*_cells(row, shown=True), percent(row.share_of_step)] for row in longest]
        yield from table([*_COLUMNS, Column("of step")], cells, width=width)
        if len(rows) > _SHOWN:
            yield "dim", f"The longest {_SHOWN}; --kernels shows all in time order."
