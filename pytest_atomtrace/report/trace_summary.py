"""`atomtrace summary` in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_atomtrace.report.document import simulated_note
from pytest_atomtrace.report.tables import (
    Column,
    clipped,
    facts,
    paragraph,
    percent,
    signed_percent,
    span_of,
    table,
)
from pytest_atomtrace.trace.names import short_name
from pytest_atomtrace.units import format_duration

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pytest_atomtrace.report.tables import Line
    from pytest_atomtrace.trace.finding import Finding
    from pytest_atomtrace.verdicts.summary import Spread, Summary

__all__ = ["health_line", "summary_lines"]

_CLOCKS = (
    "GPU busy: union of a step's kernel intervals, the time in which the GPU worked on it. Host label: the step's "
    "annotation on the CPU; under graph replay that is the time to launch, not the step."
)
_SPREAD = (Column("mean"), Column("p50", drop=1), Column("min"), Column("max"), Column("total", drop=2))


def summary_lines(summary: Summary, *, width: int, limit: int) -> Iterator[Line]:
    """All sections; `limit` rows of kernels (0 for all)."""
    yield from _head(summary, width)
    if not summary.phases:
        text = "No step label on any rank (prefill[..], decode[..], draft[..], execute_.., step[..]), so nothing "
        text += f"can be said per step. See: atomtrace kernels {summary.source}"
        yield from paragraph(text, width=width, style="")
        return
    where = f" on {summary.focus}"
    yield from _phases(summary, where, width)
    yield from _drafts(summary, where, width)
    yield from _iterations(summary, where, width)
    yield from _ranks(summary, width)
    yield from _kernels(summary, where, width, limit)


def health_line(findings: Sequence[Finding], source: str) -> str:
    """``sound``, or the codes that forbid something."""
    fatal = list(dict.fromkeys(f"{f.code} {f.title}" for f in findings if f.fatal))
    noted = list(dict.fromkeys(f"{f.code} {f.title}" for f in findings if not f.fatal))
    more = f"; see atomtrace health {source}" if findings else ""
    notes = f"{len(noted)} note{'s' * (len(noted) > 1)}: {', '.join(noted)}" if noted else ""
    if fatal:
        return f"NOT TO BE BELIEVED: {', '.join(fatal)}" + (f" ({notes})" if notes else "") + more
    return "sound" + (f", {notes}" if notes else "") + more


def _head(summary: Summary, width: int) -> Iterator[Line]:
    if summary.simulated:
        yield "yellow", simulated_note()
    events = sum(rank.events for rank in summary.ranks)
    names = ", ".join(rank.rank for rank in summary.ranks[:8]) + (", ..." if len(summary.ranks) > 8 else "")
    about = [f"{len(summary.ranks)} ({names})", f"{events:,} events"]
    if summary.gpu:
        about.append(f"simulated {summary.gpu}" if summary.simulated else summary.gpu)
    rows = [("trace", summary.source)]
    if summary.slug:
        rows.append(("case", summary.slug))
    rows.append(("ranks", ", ".join(about)))
    yield from facts(rows, width=width)
    fatal = any(finding.fatal for finding in summary.findings)
    for _, line in facts([("health", health_line(summary.findings, summary.source))], width=width):
        yield ("red" if fatal else ""), line


def _spread(spread: Spread) -> list[str]:
    values = (spread.mean_ns, spread.p50_ns, spread.min_ns, spread.max_ns, spread.total_ns)
    return [format_duration(value) for value in values]


def _phases(summary: Summary, where: str, width: int) -> Iterator[Line]:
    columns = [
        Column("phase", left=True),
        Column("steps"),
        Column("batch", drop=4),
        Column("kernels", drop=3),
        Column("clock", left=True),
        *_SPREAD,
    ]
    rows = []
    for phase in summary.phases:
        batch, kernels = span_of(phase.bs_min, phase.bs_max), span_of(phase.kernels_min, phase.kernels_max)
        rows.append([phase.kind, f"{phase.steps:,}", batch, kernels, "GPU busy", *_spread(phase.gpu_busy)])
        rows.append(["", "", "", "", "host label", *_spread(phase.host_label)])
    yield "", ""
    yield "title", f"Phases{where}"
    yield from table(columns, rows, width=width, styles=["", "dim"] * len(summary.phases))
    yield from paragraph(_CLOCKS, width=width)


def _drafts(summary: Summary, where: str, width: int) -> Iterator[Line]:
    if not summary.drafts:
        return
    columns = [Column("draft", left=True), Column("steps"), Column("clock", left=True)]
    columns += [*_SPREAD, Column("to first")]
    rows = []
    for draft in summary.drafts:
        later = f"{draft.slower_than_first_ns / 1000:+.1f} us" if draft is not summary.drafts[0] else ""
        rows.append([draft.position, f"{draft.steps:,}", "GPU busy", *_spread(draft.gpu_busy), later])
        rows.append(["", "", "host label", *_spread(draft.host_label), ""])
    yield "", ""
    yield "title", f"Drafts{where}"
    yield from table(columns, rows, width=width, styles=["", "dim"] * len(summary.drafts))
    first = summary.drafts[0].gpu_busy.mean_ns
    if len(summary.drafts) > 1 and summary.drafts[1].gpu_busy.mean_ns < 0.99 * first:
        yield from paragraph("The first draft is the slowest: it also prepares the chain's inputs.", width=width)


def _iterations(summary: Summary, where: str, width: int) -> Iterator[Line]:
    found = summary.iterations
    if found is None or found.busy is None or found.period is None:
        return
    columns = [Column("iteration", left=True), *_SPREAD]
    rows = [["GPU busy, all launched", *_spread(found.busy)], ["host, start to start", *_spread(found.period)]]
    yield "", ""
    drafts = f", {found.with_drafts} with drafts" if found.with_drafts else ""
    yield "title", f"Iterations{where}: {found.iterations} decodes{drafts}"
    yield from table(columns, rows, width=width, styles=["", "dim"])
    if not found.with_drafts:
        return
    yield "", ""
    columns = [
        Column("step"),
        Column("decode", left=True, shorten=clipped, least=24),
        Column("drafts"),
        Column("decode GPU"),
        Column("drafts GPU"),
        Column("together"),
        Column("host together", drop=1),
    ]
    rows = [
        [
            f"#{one.step}",
            one.label,
            str(one.drafts),
            format_duration(one.decode_busy_ns),
            format_duration(one.drafts_busy_ns),
            format_duration(one.decode_busy_ns + one.drafts_busy_ns),
            format_duration(one.decode_host_ns + one.drafts_host_ns),
        ]
        for one in found.first[:5]
    ]
    yield from table(columns, rows, width=width)
    if found.iterations > len(rows):
        yield "dim", f"The first {len(rows)} of {found.iterations}; all: atomtrace steps {summary.source}"


def _ranks(summary: Summary, width: int) -> Iterator[Line]:
    if len(summary.ranks) < 2 or summary.main is None:
        return
    columns = [
        Column("rank", left=True),
        Column("steps", left=True, drop=1),
        Column("kernels"),
        Column("streams", drop=2),
        Column(f"{summary.main} p50"),
        Column("max"),
        Column("to fastest"),
        Column("in flight at start", drop=3),
    ]
    fastest = min((rank.main_p50_ns for rank in summary.ranks if rank.main_p50_ns is not None), default=0)
    rows = []
    for rank in summary.ranks:
        p50 = rank.main_p50_ns
        rows.append(
            [
                rank.rank,
                ", ".join(f"{kind} {number}" for kind, number in rank.steps.items()),
                f"{rank.kernels:,}",
                str(rank.streams),
                format_duration(p50) if p50 is not None else "-",
                format_duration(rank.main_max_ns) if rank.main_max_ns is not None else "-",
                signed_percent(p50 / fastest - 1) if p50 is not None and fastest else "-",
                percent(rank.unattributed_share),
            ]
        )
    yield "", ""
    yield "title", f"Ranks by GPU busy per {summary.main} step"
    yield from table(columns, rows, width=width)


def _kernels(summary: Summary, where: str, width: int, limit: int) -> Iterator[Line]:
    steady = "steady " if summary.main_steady else ""
    over = f"over {summary.main_steps} {steady}{summary.main} step{'s' * (summary.main_steps != 1)}{where}"
    numbers = [Column("calls/step"), Column("time/step"), Column("share")]
    yield "", ""
    yield "title", f"Families {over}"
    columns = [Column("family", left=True), Column("names"), *numbers]
    rows = [
        [
            one.family,
            str(one.names),
            span_of(one.calls_per_step_min, one.calls_per_step_max),
            format_duration(one.time_per_step_ns),
            percent(one.share),
        ]
        for one in summary.families
    ]
    yield from table(columns, rows, width=width)
    yield "", ""
    yield "title", f"Kernels {over}"
    columns = [Column("kernel", left=True, shorten=short_name), Column("family", left=True, drop=1)]
    columns += [*numbers[:2], Column("mean", drop=2), numbers[2]]
    rows = [
        [
            one.name,
            one.family,
            span_of(one.calls_per_step_min, one.calls_per_step_max),
            format_duration(one.time_per_step_ns),
            format_duration(one.mean_ns),
            percent(one.share),
        ]
        for one in (summary.kernels[:limit] if limit else summary.kernels)
    ]
    yield from table(columns, rows, width=width)
    rest = len(summary.kernels) - len(rows)
    shares = f"Shares are of the summed kernel time of these steps. {rest} more: " if rest > 0 else "More: "
    yield from paragraph(f"{shares}atomtrace kernels {summary.source} --during {summary.main}", width=width)
