"""Steady steps: the steps of one shape, near the peak batch, away from changes.

Rule (the contract of every time budget here): one shape = (kind, graph batch, query length); a real batch of
at least 90 % of the rank's peak; in runs not broken by a step of another kind; without the first 5 and the
last 2 steps of a run. Drafts are grouped under their decode and break nothing.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_atomtrace.trace.data import RankData, Step

__all__ = ["RUNS", "runs", "steady_steps"]

#: Kinds whose steps come in runs of one shape; the others are few and each of its own size.
RUNS = ("decode", "eager_decode", "draft")


def runs(rank: RankData, kind: str) -> list[list[Step]]:
    """Steps of `kind` in time order, cut where a step of another kind lies between.

    For a kind other than draft, drafts are passed over; for drafts, decodes are: they alternate.
    """
    transparent = {"draft", "dspark", "dspark_ctx_kv", "dspark_sched"}
    if kind in transparent:
        transparent = transparent | {"decode", "eager_decode"}
    found: list[list[Step]] = [[]]
    for step in rank.steps:
        if step.kind == kind:
            found[-1].append(step)
        elif step.kind not in transparent and found[-1]:
            found.append([])
    return [run for run in found if run]


def steady_steps(
    rank: RankData,
    kind: str,
    *,
    bs: int | None = None,
    skip_first: int = 5,
    skip_last: int = 2,
    near_peak: float = 0.9,
) -> list[Step]:
    """Steady steps of `kind` on one rank, in time order; empty if there are none.

    `bs` asks for one real batch size, which then also is the peak. Several shapes may pass (a list of
    capture sizes near the peak): the most frequent wins, ties by the larger batch, since steps of two shapes
    are not one distribution. Prefills have no stable shape in `tok`, so they share one by kind alone.
    """
    candidates = [step for run in runs(rank, kind) for step in _inner(run, skip_first, skip_last)]
    everything = [step for step in rank.steps if step.kind == kind]
    if bs is not None:
        candidates = [step for step in candidates if step.bs == bs]
        everything = [step for step in everything if step.bs == bs]
    if not candidates:
        return []
    peak = max(step.bs for step in everything)
    candidates = [step for step in candidates if step.bs >= near_peak * peak]
    shapes = Counter(step.label.shape for step in candidates)
    if not shapes:
        return []
    best = max(shapes, key=lambda shape: (shapes[shape], shape[1], -(shape[2] or 0)))
    return [step for step in candidates if step.label.shape == best]


def _inner(run: list[Step], skip_first: int, skip_last: int) -> list[Step]:
    # Every run loses its ends, also to a change of batch: what follows a prefill is still settling.
    return run[skip_first : len(run) - skip_last]
