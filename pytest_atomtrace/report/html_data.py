"""What the page's scripts draw, in few bytes: names once, steps and bars as differences and runs of equal values.

Scripts on the page undo exactly this encoding (``assets/core.js``); nothing is rounded.
"""

from __future__ import annotations

import json
from itertools import groupby
from typing import TYPE_CHECKING

from pytest_atomtrace.report.escape import clipped_text, printable
from pytest_atomtrace.trace.names import short_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pytest_atomtrace.report.detail import CaseDetail, Distribution, Lane, StepSeries, StepTimeline
    from pytest_atomtrace.report.document import ReportDocument

__all__ = ["MOST_NAME", "payload", "script_safe"]

# Kernel names of 10,000 characters exist (nested template arguments); nobody reads beyond this.
MOST_NAME = 4_000
# Ends a script element, starts a comment in one, or ends a line of a program, inside a string too.
_UNSAFE = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


def payload(document: ReportDocument) -> dict[str, object]:
    """One entry per case of the document, in its order."""
    details = {detail.slug: detail for detail in document.details}
    return {"cases": [_case(details.get(row.slug)) for row in document.cases]}


def script_safe(value: object) -> str:
    """JSON that cannot leave the script element that it stands in."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    for character, escape in _UNSAFE.items():
        text = text.replace(character, escape)
    # A name with half a surrogate pair could not be written as UTF-8.
    return text.encode("utf-8", "backslashreplace").decode()


def _case(detail: CaseDetail | None) -> dict[str, object]:
    if detail is None or detail.problem:
        return {}
    budgets = [
        [one.kind, one.metric, one.statistic, one.limit_ns, one.measured_ns]
        for one in detail.budgets
        if one.metric == "gpu_busy"
    ]
    bands = detail.baseline.bands if detail.baseline is not None else ()
    names: dict[tuple[str, str], int] = {}
    lines = [_timeline(one, names) for one in detail.timelines]
    return {
        "main": detail.main,
        "focus": detail.focus,
        "series": [_series(one) for one in detail.series],
        "bins": [_bins(one) for one in detail.distributions],
        "budgets": budgets,
        "bands": [[one.metric, one.low_ns, one.high_ns, one.mean_ns, one.limit_ns] for one in bands],
        "names": [[clipped_text(printable(raw), MOST_NAME), printable(short_name(raw)), of] for raw, of in names],
        "timelines": lines,
    }


def _series(one: StepSeries) -> dict[str, object]:
    return {
        "rank": printable(one.rank),
        "kind": one.kind,
        "step": _runs(_differences(one.step)),
        "busy": _differences(one.gpu_busy_ns),
        "bs": _runs(one.bs),
        "steady": _runs(one.steady),
        "left_out": one.left_out,
    }


def _bins(one: Distribution) -> dict[str, object]:
    return {
        "rank": printable(one.rank),
        "kind": one.kind,
        "low": one.low_ns,
        "width": one.width_ns,
        "counts": list(one.counts),
        "marks": [one.p50_ns, one.p90_ns, one.p99_ns],
        "firm": list(one.firm),
        "steady": one.is_steady,
        "max": one.max_ns,
    }


def _timeline(one: StepTimeline, names: dict[tuple[str, str], int]) -> dict[str, object]:
    numbers = [names.setdefault(pair, len(names)) for pair in zip(one.names, one.families, strict=True)]
    return {
        "which": one.which,
        "rank": printable(one.rank),
        "kind": one.kind,
        "steady": one.is_steady,
        "step": one.step,
        "label": printable(one.label),
        "begin": one.begin_ns,
        "length": one.end_ns - one.begin_ns,
        "busy": one.gpu_busy_ns,
        "span": one.gpu_span_ns,
        "kernels": one.kernels,
        "left_out": one.left_out,
        "lanes": [_lane(lane, numbers) for lane in one.lanes],
    }


def _lane(lane: Lane, numbers: Sequence[int]) -> dict[str, object]:
    """Starts count from the end of the bar before: zeros where kernels abut, as nearly all in a graph do."""
    ends = [0]
    ends += [start + dur for start, dur in zip(lane.start_ns, lane.dur_ns, strict=True)]
    return {
        "stream": lane.stream,
        "busy": lane.busy_ns,
        "gap": [start - end for start, end in zip(lane.start_ns, ends, strict=False)],
        "dur": list(lane.dur_ns),
        "name": [numbers[name] for name in lane.name],
        "call": list(lane.call),
    }


def _differences(values: Sequence[int]) -> list[int]:
    return [value - before for value, before in zip(values, [0, *values], strict=False)]


def _runs(values: Iterable[int]) -> list[int]:
    """Value, count, value, count, ..."""
    found: list[int] = []
    for value, run in groupby(values):
        found += [value, sum(1 for _ in run)]
    return found
