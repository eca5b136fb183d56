"""What one line of the summary says about a case."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_atomtrace.verdicts.steps import Timing
from pytest_atomtrace.verdicts.times import needed_steps

if TYPE_CHECKING:
    from pytest_atomtrace.verdicts.view import TraceView

__all__ = ["case_facts"]


def case_facts(trace: TraceView) -> dict[str, object]:
    """Ranks, steps, decode times of the slowest rank and health, as builtin types.

    ``p99_firm`` is false where fewer steady steps than a p99 needs are there.
    """
    ranks = list(trace.data.ranks.values())
    steady = {rank.name: trace.steady_steps(rank, "decode") for rank in ranks}
    timings = {name: Timing(tuple(s.gpu_busy_ns for s in steps)) for name, steps in steady.items() if steps}
    fewest = min((len(steps) for steps in steady.values()), default=0)
    facts: dict[str, object] = {
        "slug": trace.case.slug if trace.case else str(trace.directory),
        "engine": trace.engine,
        "directory": str(trace.directory),
        "ranks": len(ranks),
        "steps": max((len(rank.steps) for rank in ranks), default=0),
        "steady": fewest,
        "health": [f.code for f in trace.health if f.fatal],
        # H14 says that GPU annotations were not believed, as on most real machines: a note, no warning.
        "warnings": [f.code for f in trace.health if not f.fatal and f.code != "H14"],
    }
    if timings:
        worst = max(timings, key=lambda name: timings[name].p50_ns)
        facts |= {
            "worst_rank": worst,
            "p50_ns": timings[worst].p50_ns,
            "p99_ns": max(timing.p99_ns for timing in timings.values()),
            "p99_firm": fewest >= needed_steps("p99", trace.settings.steady_min),
        }
    return facts
