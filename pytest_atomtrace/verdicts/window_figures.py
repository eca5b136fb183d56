"""The figures of one window that baselines keep: step times, iterations, the prefill rate, kernel families."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_atomtrace.trace.metrics import prefill_per_ktok_ns
from pytest_atomtrace.verdicts.measure import measure
from pytest_atomtrace.verdicts.step_profile import StepProfile, profile_steps
from pytest_atomtrace.verdicts.steps import Timing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_atomtrace.verdicts.view import TraceView

__all__ = ["FAMILY_PREFIX", "FAMILY_SHARE", "STEP", "WindowFigures", "measure_window"]

STEP = "decode.gpu_busy"
FAMILY_PREFIX = "decode.family."
# A family below this share of the step moves it by less than the tolerance whatever it does.
FAMILY_SHARE = 0.05


@dataclass(frozen=True)
class WindowFigures:
    """`metrics`: whole nanoseconds by name, of the slowest rank; `profile`: the decode step behind them."""

    metrics: Mapping[str, int]
    profile: StepProfile


def measure_window(trace: TraceView) -> WindowFigures:
    """Measure one window.

    ``decode.gpu_busy`` is the p50 of GPU busy time over steady steps, ``decode.iteration`` of the whole iteration,
    ``draft.gpu_busy`` of drafts, ``prefill.per_ktok`` the busy time per 1,000 prompt tokens, ``decode.family.<name>``
    the exposed time of a kernel family per step (of collectives without waiting). What a window cannot give is left
    out.

    Raises:
        InconclusiveError: no decode steps, too few steady ones, or times that cannot be believed.

    """
    trace.require("times")
    trace.require_kind("decode")
    profile = profile_steps(trace, "decode")
    metrics = {STEP: profile.worst_busy_ns}
    metrics |= {f"{FAMILY_PREFIX}{name}": round(ns) for name, ns in profile.family_ns().items() if round(ns)}
    iteration = _worst(trace, "iteration", "decode")
    if iteration is not None:
        metrics["decode.iteration"] = iteration
    draft = _worst(trace, "gpu_busy", "draft")
    if draft is not None:
        metrics["draft.gpu_busy"] = draft
    rates = [prefill_per_ktok_ns(rank) for rank in trace.data.ranks.values()]
    known = [rate for rate in rates if rate is not None]
    if rates and len(known) == len(rates):
        metrics["prefill.per_ktok"] = round(max(known))
    return WindowFigures(metrics, profile)


def _worst(trace: TraceView, metric: str, kind: str) -> int | None:
    """The slowest rank's p50, None where a rank has too few steps for one."""
    found: list[int] = []
    for rank in trace.data.ranks.values():
        values = measure(metric, rank, trace.steady_steps(rank, kind))
        if len(values) < trace.settings.steady_min:
            return None
        found.append(Timing(values).p50_ns)
    return max(found, default=None)
