"""The median and the worst step of a case, kernel by kernel, and what the worst one spent its time on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pytest_atomtrace.report.detail import Lane, StepContrast, StepTimeline
from pytest_atomtrace.trace.data import KERNEL
from pytest_atomtrace.trace.families import family
from pytest_atomtrace.verdicts.step_grid import counted_steps
from pytest_atomtrace.verdicts.summary import slowest_rank

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_atomtrace.trace.data import RankData, Step
    from pytest_atomtrace.verdicts.trace import Trace

__all__ = ["contrast_of", "timelines_of"]

# An eager prefill of a deep model has some 10,000 kernels; what is beyond that nobody reads bar by bar.
MOST_BARS = 12_000
MOST_CONTRASTS = 40
# Every kernel differs by some nanoseconds; what explains a slow step is of the size of the largest difference.
TELLING = 0.02


def timelines_of(trace: Trace, kind: str) -> tuple[StepTimeline, ...]:
    """The median step of the slowest rank and the worst step of any rank, one if they are the same step."""
    found = []
    median = _median(trace, slowest_rank(trace, kind), kind) if kind else None
    worst = _worst(trace, kind) if kind else None
    for which, one in (("median", median), ("worst", worst)):
        if one is not None and not (which == "worst" and median and one[:2] == median[:2]):
            found.append(_timeline(which, kind, *one))
    return tuple(found)


def contrast_of(trace: Trace, kind: str) -> tuple[tuple[StepContrast, ...], str]:
    """Kernels of the worst step against the median step of the same rank, largest difference first; the rank."""
    worst = _worst(trace, kind) if kind else None
    median = _median(trace, worst[0], kind) if worst is not None else None
    if worst is None or median is None or worst[1] is median[1]:
        return (), ""
    rank = worst[0]
    slow = {name: (calls, ns) for name, calls, ns in trace.kernels_of_step(rank, worst[1])}
    usual = {name: (calls, ns) for name, calls, ns in trace.kernels_of_step(rank, median[1])}
    rows = []
    for name in dict.fromkeys([*slow, *usual]):
        calls_a, ns_a = usual.get(name, (0, 0))
        calls_b, ns_b = slow.get(name, (0, 0))
        if ns_a != ns_b or calls_a != calls_b:
            rows.append(StepContrast(name, family(name), calls_a, calls_b, ns_a, ns_b))
    rows.sort(key=lambda row: (-abs(row.delta_ns), row.name))
    telling = [row for row in rows if abs(row.delta_ns) >= TELLING * abs(rows[0].delta_ns)]
    return tuple(telling[:MOST_CONTRASTS]), rank.name


def _median(trace: Trace, rank: RankData, kind: str) -> tuple[RankData, Step, bool] | None:
    steps, steady = counted_steps(trace, rank, kind)
    if not steps:
        return None
    ordered = sorted(steps, key=lambda step: (step.gpu_busy_ns, step.index))
    return rank, ordered[(len(ordered) - 1) // 2], steady


def _worst(trace: Trace, kind: str) -> tuple[RankData, Step, bool] | None:
    slowest: tuple[RankData, Step, bool] | None = None
    for rank in trace.data.ranks.values():
        steps, steady = counted_steps(trace, rank, kind)
        for step in steps:
            if slowest is None or step.gpu_busy_ns > slowest[1].gpu_busy_ns:
                slowest = (rank, step, steady)
    return slowest


def _timeline(which: str, kind: str, rank: RankData, step: Step, is_steady: bool) -> StepTimeline:
    rows = step.rows.astype(np.int64)
    left_out = max(0, len(rows) - MOST_BARS)
    if left_out:
        longest = np.argsort(-rank.dur_ns[rows], kind="stable")[:MOST_BARS]
        rows = rows[np.sort(longest)]
    start, dur = rank.start_ns[rows], rank.dur_ns[rows]
    begin = int(start.min()) if len(rows) else step.first_ns
    names, name = _interned(rank, rows)
    streams = np.unique(rank.stream[rows])
    busiest = sorted(streams.tolist(), key=lambda stream: -int(dur[rank.stream[rows] == stream].sum()))
    return StepTimeline(
        which=which,
        rank=rank.name,
        kind=kind,
        is_steady=is_steady,
        step=step.index,
        label=step.label.text,
        begin_ns=begin,
        end_ns=int((start + dur).max()) if len(rows) else step.last_ns,
        gpu_busy_ns=step.gpu_busy_ns,
        gpu_span_ns=step.gpu_span_ns,
        kernels=step.n_kernels,
        names=tuple(text for text, _ in names),
        families=tuple(of for _, of in names),
        lanes=_lanes(busiest, rank.stream[rows].tolist(), (start - begin).tolist(), dur.tolist(), name),
        left_out=left_out,
    )


def _interned(
    rank: RankData, rows: np.ndarray[tuple[int, ...], np.dtype[np.int64]]
) -> tuple[list[tuple[str, str]], list[int]]:
    places: dict[tuple[int, bool], int] = {}
    names: list[tuple[str, str]] = []
    found = []
    for number, kind in zip(rank.name_id[rows].tolist(), rank.kind[rows].tolist(), strict=True):
        key = (number, kind == KERNEL)
        if key not in places:
            places[key] = len(names)
            text = rank.names[number]
            names.append((text, family(text) if kind == KERNEL else "copy"))
        found.append(places[key])
    return names, found


def _lanes(
    streams: Sequence[int], stream: Sequence[int], start: Sequence[int], dur: Sequence[int], name: Sequence[int]
) -> tuple[Lane, ...]:
    calls: dict[int, int] = {}
    call = []
    for one in name:
        call.append(calls.get(one, 0))
        calls[one] = call[-1] + 1
    lanes = []
    for number in streams:
        mine = [place for place, one in enumerate(stream) if one == number]
        lanes.append(
            Lane(
                stream=number,
                busy_ns=sum(dur[place] for place in mine),
                start_ns=tuple(start[place] for place in mine),
                dur_ns=tuple(dur[place] for place in mine),
                name=tuple(name[place] for place in mine),
                call=tuple(call[place] for place in mine),
            )
        )
    return tuple(lanes)
