"""Step times of a case as series and distributions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_atomtrace.report.detail import Distribution, StepSeries
from pytest_atomtrace.verdicts.step_grid import counted_steps
from pytest_atomtrace.verdicts.steps import Timing
from pytest_atomtrace.verdicts.times import STATISTICS, needed_steps

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_atomtrace.trace.data import RankData, Step
    from pytest_atomtrace.verdicts.trace import Trace

__all__ = ["distributions_of", "series_of"]

# More points than a wide screen has pixels; a series is thinned so that each stretch keeps its extremes.
MOST_STEPS = 4_000
BINS = 40
# Round bin widths, times a power of ten.
_ROUND = (1, 2, 5, 10)


def series_of(trace: Trace) -> tuple[StepSeries, ...]:
    """Every kind of step on every rank, kinds in the order in which they first appear."""
    found = []
    for rank in trace.data.ranks.values():
        by_kind: dict[str, list[Step]] = {}
        for step in rank.steps:
            by_kind.setdefault(step.kind, []).append(step)
        for kind, steps in by_kind.items():
            steady = {step.index for step in trace.steady_steps(rank, kind)}
            found.append(_series(rank.name, kind, steps, steady))
    kinds = list(dict.fromkeys(one.kind for one in found))
    return tuple(sorted(found, key=lambda one: kinds.index(one.kind)))


def _series(rank: str, kind: str, steps: Sequence[Step], steady: set[int]) -> StepSeries:
    kept = _thinned(steps)
    return StepSeries(
        rank=rank,
        kind=kind,
        step=tuple(step.index for step in kept),
        gpu_busy_ns=tuple(step.gpu_busy_ns for step in kept),
        bs=tuple(step.bs for step in kept),
        steady=tuple(int(step.index in steady) for step in kept),
        left_out=len(steps) - len(kept),
    )


def _thinned(steps: Sequence[Step]) -> Sequence[Step]:
    """At most `MOST_STEPS` of them: the fastest and the slowest of each stretch, in time order."""
    if len(steps) <= MOST_STEPS:
        return steps
    stretches = MOST_STEPS // 2
    kept: list[Step] = []
    for number in range(stretches):
        part = steps[number * len(steps) // stretches : (number + 1) * len(steps) // stretches]
        ends = {step.index: step for step in (min(part, key=_busy), max(part, key=_busy))}
        kept += [ends[index] for index in sorted(ends)]
    return kept


def _busy(step: Step) -> int:
    return step.gpu_busy_ns


def distributions_of(trace: Trace) -> tuple[Distribution, ...]:
    """GPU busy times per kind and rank, over the steps that figures rest on."""
    seen = dict.fromkeys(step.kind for rank in trace.data.ranks.values() for step in rank.steps)
    # What is asked about most comes first.
    kinds = sorted(seen, key=lambda kind: kind != "decode")
    found: list[Distribution] = []
    for kind in kinds:
        counted: list[tuple[RankData, list[Step], bool]] = []
        for rank in trace.data.ranks.values():
            steps, steady = counted_steps(trace, rank, kind)
            if steps:
                counted.append((rank, steps, steady))
        times = [step.gpu_busy_ns for _, steps, _ in counted for step in steps]
        low, width = _bins(times)
        least = trace.settings.steady_min
        found += [_distribution(rank.name, kind, steps, steady, low, width, least) for rank, steps, steady in counted]
    return tuple(found)


def _bins(times: Sequence[int]) -> tuple[int, int]:
    """Start and width of bins that cover `times` with round borders.

    One step that took a hundred times the usual must not squeeze all others into one bin: the bins cover up to twice
    the 99th percentile's distance from the median, and the last bin holds what lies beyond.
    """
    timing = Timing(tuple(times))
    middle, reach = timing.p50_ns, 2 * max(timing.p99_ns - timing.p50_ns, 0)
    low, high = timing.min_ns, min(timing.max_ns, max(middle + reach, timing.p99_ns))
    need = max(1, -(-(high - low + 1) // BINS))
    scale = 10 ** (len(str(need)) - 1)
    width = next(step * scale for step in _ROUND if step * scale >= need)
    return low // width * width, width


def _distribution(
    rank: str, kind: str, steps: Sequence[Step], is_steady: bool, low_ns: int, width_ns: int, least: int
) -> Distribution:
    timing = Timing(tuple(step.gpu_busy_ns for step in steps))
    counts = [0] * (BINS + 2)
    for value in timing.values_ns:
        counts[min(max(0, (value - low_ns) // width_ns), BINS + 1)] += 1
    while len(counts) > 1 and counts[-1] == 0:
        counts.pop()
    return Distribution(
        rank=rank,
        kind=kind,
        is_steady=is_steady,
        steps=timing.n,
        min_ns=timing.min_ns,
        p50_ns=timing.p50_ns,
        p90_ns=timing.p90_ns,
        p99_ns=timing.p99_ns,
        max_ns=timing.max_ns,
        mean_ns=timing.mean_ns,
        firm=tuple(name for name in STATISTICS if is_steady and timing.n >= needed_steps(name, least)),
        low_ns=low_ns,
        width_ns=width_ns,
        counts=tuple(counts),
    )
