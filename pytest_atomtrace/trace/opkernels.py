"""Kernels that an op launches where Python dispatches it: by thread nesting and launch correlation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pytest_atomtrace.trace.data import KERNEL

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_atomtrace.trace.rankevents import RankEvents

__all__ = ["kernels_under_op"]


def kernels_under_op(events: RankEvents, matches: Callable[[str], bool]) -> dict[str, int]:
    """Kernel names and calls whose launch lies inside a matching op on the same thread, in order of first start.

    `events` are one rank's events read with ``detail=True``; the columns of `RankData` hold no ops.
    """
    ops, calls, gpu = events.ops, events.calls, events.gpu
    wanted = np.array([matches(name) for name in events.names] or [False], np.bool_)
    inside = np.zeros(len(calls), np.bool_)
    asked = np.flatnonzero(wanted[ops.name_id]) if len(ops) else np.empty(0, np.int64)
    for thread in np.unique(ops.where[asked]).tolist():
        mine = asked[ops.where[asked] == thread]
        mine = mine[np.argsort(ops.start_ns[mine], kind="stable")]
        starts = ops.start_ns[mine]
        # A recursive op nests in itself: the farthest end so far covers the inner one's.
        ends = np.maximum.accumulate(starts + ops.dur_ns[mine])
        here = np.flatnonzero(calls.where == thread)
        found = np.searchsorted(starts, calls.start_ns[here], side="right") - 1
        inside[here] = (found >= 0) & (calls.start_ns[here] < ends[np.maximum(found, 0)])
    launched = np.unique(calls.link[inside & (calls.link >= 0)])
    rows = np.flatnonzero(np.isin(gpu.link, launched) & (gpu.extra == KERNEL))
    rows = rows[np.argsort(gpu.start_ns[rows], kind="stable")]
    counts: dict[str, int] = {}
    for number in gpu.name_id[rows].tolist():
        name = events.names[number]
        counts[name] = counts.get(name, 0) + 1
    return counts
