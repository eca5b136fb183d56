"""Figures that span more than one step: iterations, tokens, prefill rate, periods, occupancy, launch cost.

Every function takes one rank; times are ns. Kernels only, unless a name says activity.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from pytest_atomtrace.trace.data import KERNEL
from pytest_atomtrace.trace.intervals import gaps, union_length
from pytest_atomtrace.trace.stepmath import clipped_ends, grouped_union

if TYPE_CHECKING:
    from pytest_atomtrace.trace.data import RankData, Step

__all__ = [
    "SPAN_LIMIT",
    "GpuUse",
    "Iteration",
    "LaunchCost",
    "attributed_share",
    "gpu_use",
    "iterations",
    "launch_cost",
    "per_token_ns",
    "periods_ns",
    "prefill_per_ktok_ns",
    "span_is_launch_bound",
]

# A step whose span exceeds its busy time by more than this waits for launches, and launches carry the
# profiler's cost: its span is no budget.
SPAN_LIMIT = 1.10


@dataclass(frozen=True)
class Iteration:
    """All GPU activity (copies too) launched from one decode label's start to the next one's.

    `busy_ns` is the union over streams, `period_ns` the distance of the label starts on the host.
    """

    step: Step
    busy_ns: int
    period_ns: int
    n_activities: int


@dataclass(frozen=True)
class GpuUse:
    """Occupancy of a stretch of time: busy + idle = span. `gaps_ns` are the idle intervals' lengths.

    Gaps inside one graph do not exist in ROCm traces (kernels abut within 2 ns): these lie between launches.
    """

    busy_ns: int
    span_ns: int
    gaps_ns: tuple[int, ...]

    @property
    def share(self) -> float:
        """Busy share of the span, 0 to 1; 0 for an empty stretch."""
        return self.busy_ns / self.span_ns if self.span_ns else 0.0


@dataclass(frozen=True)
class LaunchCost:
    """Host cost of one API's launches: count, mean and total duration, kernels carried."""

    count: int
    mean_ns: float
    total_ns: int
    nodes: int


def span_is_launch_bound(step: Step) -> bool:
    """True if `gpu_span` says more about the host and the profiler than about the GPU."""
    return step.gpu_busy_ns > 0 and step.gpu_span_ns > SPAN_LIMIT * step.gpu_busy_ns


def iterations(rank: RankData, *, kind: str = "decode") -> tuple[Iteration, ...]:
    """Iterations of a rank: from each `kind` label's start to the next step label that is no draft.

    The last one of a run has no end of its own and is left out, as is one followed by a prefill: what ran
    between belongs to the prefill's preparation too.
    """
    main = [step for step in rank.steps if step.kind != "draft" and not step.kind.startswith("dspark")]
    pairs = [(a, b) for a, b in pairwise(main) if a.kind == kind and b.kind == kind]
    if not pairs:
        return ()
    # Without launch records (steps by annotation) there is no host clock to assign the rest by.
    rows = np.flatnonzero(rank.launch_ns >= 0)
    launched = rank.launch_ns[rows]
    starts = np.array([a.cpu_start_ns for a, _ in pairs], np.int64)
    ends = np.array([b.cpu_start_ns for _, b in pairs], np.int64)
    found = np.searchsorted(starts, launched, side="right") - 1
    inside = (found >= 0) & (launched < ends[np.maximum(found, 0)])
    rows, number = rows[inside], found[inside].astype(np.int32)
    order = np.argsort(number, kind="stable")
    rows, number = rows[order], number[order]
    left = rank.start_ns[rows]
    busy = grouped_union(number, left, left + rank.dur_ns[rows], len(pairs))
    count = np.bincount(number, minlength=len(pairs))
    return tuple(
        Iteration(a, int(busy[n]), b.cpu_start_ns - a.cpu_start_ns, int(count[n])) for n, (a, b) in enumerate(pairs)
    )


def per_token_ns(rank: RankData, *, accepted_length: float) -> tuple[float, ...]:
    """Iteration busy time per accepted token; `accepted_length` is tokens gained per decode and sequence."""
    if accepted_length < 1:
        raise ValueError(f"an iteration yields at least one token, not {accepted_length}")
    return tuple(iteration.busy_ns / accepted_length for iteration in iterations(rank))


def prefill_per_ktok_ns(rank: RankData) -> float | None:
    """GPU busy time per 1,000 prompt tokens over the window's prefills, the first dropped.

    None with fewer than 3 prefills left or labels without `tok`.
    """
    steps = [step for step in rank.steps if step.kind == "prefill"][1:]
    tokens = sum(step.label.tok or 0 for step in steps)
    if len(steps) < 3 or not tokens or any(step.label.tok is None for step in steps):
        return None
    return 1000 * sum(step.gpu_busy_ns for step in steps) / tokens


def periods_ns(rank: RankData, *, kind: str = "decode") -> tuple[int, ...]:
    """Host start-to-start times of consecutive `kind` labels; drafts between do not break a row."""
    return tuple(iteration.period_ns for iteration in iterations(rank, kind=kind))


def gpu_use(rank: RankData, start_ns: int, end_ns: int, *, longer_than_ns: int = 0) -> GpuUse:
    """Occupancy by kernels between two instants of the GPU's clock; gaps longer than `longer_than_ns`."""
    rows = np.flatnonzero((rank.kind == KERNEL) & (rank.start_ns < end_ns))
    left, stream = rank.start_ns[rows], rank.stream[rows]
    right = clipped_ends(left, left + rank.dur_ns[rows], stream)
    left, right = np.maximum(left, start_ns), np.minimum(right, end_ns)
    keep = right > left
    left, right = left[keep], right[keep]
    if not len(left):
        return GpuUse(0, max(end_ns - start_ns, 0), ())
    low, high = gaps(left, right)
    edges = [int(left.min()) - start_ns, end_ns - int(right.max())]
    lengths = [*(high - low).tolist(), *edges]
    idle = tuple(length for length in lengths if length > longer_than_ns)
    return GpuUse(union_length(left, right), end_ns - start_ns, idle)


def launch_cost(rank: RankData, *, api: str = "hipGraphLaunch") -> LaunchCost:
    """Host cost of launches by `api`'s exact name, over the whole window."""
    launches = rank.launches
    wanted = np.array([text == api for text in rank.names] or [False], np.bool_)
    rows = wanted[launches.name_id] if len(launches) else np.zeros(0, np.bool_)
    count = int(rows.sum())
    total = int(launches.dur_ns[rows].sum()) if count else 0
    nodes = int(launches.n_gpu[rows].sum()) if count else 0
    return LaunchCost(count, total / count if count else 0.0, total, nodes)


def attributed_share(rank: RankData) -> dict[str, float]:
    """Share of all kernel time per phase; `unattributed` was in flight when the window opened."""
    from pytest_atomtrace.trace.data import PHASES

    rows = rank.kind == KERNEL
    total = int(rank.dur_ns[rows].sum())
    if not total:
        return {}
    sums = np.bincount(rank.phase[rows], weights=rank.dur_ns[rows], minlength=len(PHASES))
    return {PHASES[n]: float(value) / total for n, value in enumerate(sums.tolist()) if value}
