"""Times of selected steps by metric."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_atomtrace.errors import InconclusiveError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_atomtrace.trace.data import RankData, Step

__all__ = ["METRICS", "measure"]

_OF_A_STEP: dict[str, Callable[[Step], int]] = {
    "gpu_busy": lambda step: step.gpu_busy_ns,
    "gpu_span": lambda step: step.gpu_span_ns,
    "kernel_sum": lambda step: step.kernel_sum_ns,
    "cpu_span": lambda step: step.cpu_span_ns,
}

METRICS: dict[str, str] = {
    "gpu_busy": "union of the step's kernel intervals over all streams",
    "gpu_span": "from the first kernel on the step's busiest stream to the last kernel's end",
    "iteration": "all GPU activity launched from one label's start to the next one's (sampling, drafts, copies)",
    "per_token": "iteration divided by the tokens that a sequence gains per step",
    "period": "start to start of consecutive labels on the host",
    "kernel_sum": "plain sum of kernel durations",
    "cpu_span": "the label on the host: launch time under graphs",
}


def measure(
    metric: str, rank: RankData, steps: Sequence[Step], *, accepted_length: float | None = None
) -> tuple[int, ...]:
    """Nanoseconds by one of `METRICS`, in the steps' order.

    ``iteration``, ``per_token`` and ``period`` need the next label too, so the last step of a run has none.

    Raises:
        InconclusiveError: ``per_token`` without a known accepted length.

    """
    value = _OF_A_STEP.get(metric)
    if value is not None:
        return tuple(value(step) for step in steps)
    from pytest_atomtrace.trace.metrics import iterations

    if not steps:
        return ()
    wanted = {step.index for step in steps}
    found = [one for one in iterations(rank, kind=steps[0].kind) if one.step.index in wanted]
    if metric == "period":
        return tuple(one.period_ns for one in found)
    if metric == "iteration":
        return tuple(one.busy_ns for one in found)
    if accepted_length is None:
        raise InconclusiveError(
            "per_token needs the tokens gained per step, which the workload's figures give (bench.json beside the "
            "capture); this trace comes without them"
        )
    return tuple(round(one.busy_ns / accepted_length) for one in found)
