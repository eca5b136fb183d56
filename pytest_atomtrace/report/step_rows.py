"""`atomtrace steps` in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_atomtrace.report.document import simulated_note
from pytest_atomtrace.report.tables import Column, clipped, paragraph, signed_percent, table
from pytest_atomtrace.units import format_duration

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_atomtrace.report.tables import Line
    from pytest_atomtrace.verdicts.step_view import FirstDecode, Quantiles, StepLine, StepView

__all__ = ["step_lines"]

_METRICS = {"gpu_busy": "GPU busy", "gpu_span": "GPU span", "period": "period"}


def step_lines(view: StepView, *, width: int) -> Iterator[Line]:
    """Rows of the shown rank, then quantiles of all, then ATOM's choice if it was asked for."""
    if view.simulated:
        yield "yellow", simulated_note()
    of = f" (of {len(view.ranks)} ranks, the slowest; --rank shows another)" if len(view.ranks) > 1 else ""
    yield "title", f"Steps of {view.shown_rank}{of}"
    if view.rows:
        styles = ["" if row.steady else "dim" for row in view.rows]
        yield from table(_COLUMNS, [_row(row) for row in view.rows], width=width, styles=styles)
        yield from paragraph(_marks(view), width=width)
    else:
        yield "yellow", "No steady step: --steady hides all steps of this trace."
    yield "", ""
    yield "title", "Quantiles (nearest rank)"
    yield from _quantiles(view, width)
    if view.first is not None:
        yield "", ""
        yield from _first(view.first, width)


_COLUMNS = (
    Column("step"),
    Column("label", left=True, shorten=clipped, least=24),
    Column("kernels"),
    Column("graphs", drop=2),
    Column("GPU busy"),
    Column("GPU span"),
    Column("period", drop=1),
    Column("", left=True),
)


def _row(row: StepLine) -> list[str]:
    mark = "steady" if row.steady else "edge" if row.edge else ""
    return [
        f"#{row.step}",
        row.label,
        f"{row.kernels:,}",
        str(row.graph_launches),
        format_duration(row.gpu_busy_ns),
        format_duration(row.gpu_span_ns) + ("!" if row.launch_bound else ""),
        format_duration(row.period_ns) if row.period_ns is not None else "",
        mark + ("~" if row.source == "annotation" else ""),
    ]


def _marks(view: StepView) -> str:
    text = "Graphs: graph launches. Period: host start to the next start, the profiler's cost included."
    if any(row.launch_bound for row in view.rows):
        text += " !: the span exceeds the busy time by over 10 %, so the step waits for launches."
    if any(row.source == "annotation" for row in view.rows):
        text += " ~: no launch records; kernels were found by GPU annotation."
    return text


def _quantiles(view: StepView, width: int) -> Iterator[Line]:
    columns = [
        *([Column("rank", left=True)] if len(view.ranks) > 1 else []),
        Column("kind", left=True),
        Column("over", left=True),
        Column("metric", left=True),
        Column("min", drop=2),
        Column("p50"),
        Column("p90"),
        Column("p99"),
        Column("max"),
        Column("mean", drop=1),
    ]
    rows, styles = [], []
    seen: tuple[str, str] | None = None
    # Of the other ranks one metric tells whether they differ; eight ranks of three kinds would fill two screens.
    for one in (q for q in view.quantiles if q.rank == view.shown_rank or q.metric == "gpu_busy"):
        fresh = (one.rank, one.kind) != seen
        seen = (one.rank, one.kind)
        rows.append(_quantile_row(one, fresh=fresh, ranked=len(view.ranks) > 1))
        styles.append("" if one.metric == "gpu_busy" else "dim")
    yield from table(columns, rows, width=width, styles=styles)
    if any(one.metric == "gpu_busy" and one.steady and one.steps < 200 for one in view.quantiles):
        yield from paragraph("Firm with at least 20 steady steps for p50, 50 for p90, 200 for p99.", width=width)


def _quantile_row(one: Quantiles, *, fresh: bool, ranked: bool) -> list[str]:
    over = f"{one.steps:,} {'steady' if one.steady else 'steps'}"
    values = (one.min_ns, one.p50_ns, one.p90_ns, one.p99_ns, one.max_ns, one.mean_ns)
    head = [one.kind if fresh else "", over if fresh else ""]
    if ranked:
        head.insert(0, one.rank if fresh else "")
    return [*head, _METRICS[one.metric], *(format_duration(value) for value in values)]


def _first(first: FirstDecode, width: int) -> Iterator[Line]:
    yield "title", f"ATOM's choice (parse_trace.py: the first decode) and the median, {first.rank}"
    steady = "steady " if first.median_steady else ""
    over = f"median of {first.median_steps} {steady}step{'s' * (first.median_steps != 1)}"
    columns = [Column("", left=True), Column(f"first (#{first.step})"), Column(over), Column("first is")]
    window = format_duration(first.window_ns) if first.window_ns is not None else "none"
    rows = [
        ["GPU annotation window", window, "", ""],
        _compared("GPU busy", first.gpu_busy_ns, first.median_busy_ns),
        _compared("GPU span", first.gpu_span_ns, first.median_span_ns),
        ["kernels", f"{first.kernels:,}", f"{first.median_kernels:,}", ""],
    ]
    yield from table(columns, rows, width=width)
    yield "dim", first.label
    if first.window_ns is None:
        text = "No decode has a GPU annotation: parse_trace.py would stop with an error; this is the first label."
        yield from paragraph(text, width=width)


def _compared(name: str, first_ns: int, median_ns: int) -> list[str]:
    change = signed_percent(first_ns / median_ns - 1) if median_ns else ""
    return [name, format_duration(first_ns), format_duration(median_ns), change]
