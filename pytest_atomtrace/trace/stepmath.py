"""GPU figures of all steps at once: sorted columns in, one number per step out. Pure numpy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from pytest_atomtrace.trace.intervals import clip_overlaps

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["OVERLAP_TOLERANCE_NS", "StepFigures", "clipped_ends", "grouped_union", "step_figures"]

_I32: TypeAlias = "NDArray[np.int32]"
_I64: TypeAlias = "NDArray[np.int64]"

# kineto rounds both ends of an interval to ns, so abutting kernels may seem to overlap by two.
OVERLAP_TOLERANCE_NS = 2


@dataclass
class StepFigures:
    """One entry per step; zero where a step has no kernel."""

    first_ns: _I64
    last_ns: _I64
    busy_ns: _I64
    span_ns: _I64
    sum_ns: _I64
    kernels: _I64
    overlap_ns: _I64


def clipped_ends(start: _I64, end: _I64, stream: _I32) -> _I64:
    """Ends cut back to the next start on the same stream, for rows sorted by start.

    One stream runs one kernel at a time; an overlap there is an artifact and the earlier kernel gives way.
    """
    streams = np.unique(stream)
    if len(streams) <= 1:
        return clip_overlaps(start, end)
    clipped = np.empty(len(end), np.int64)
    for number in streams.tolist():
        rows = np.flatnonzero(stream == number)
        clipped[rows] = clip_overlaps(start[rows], end[rows])
    return clipped


def grouped_union(group: _I32, start: _I64, end: _I64, count: int) -> _I64:
    """Union length of the intervals of each group, for rows sorted by group, then start."""
    out = np.zeros(count, np.int64)
    if not len(group):
        return out
    # Groups may interleave in time, so each is moved to a stretch of its own before one running maximum
    # serves them all.
    low = int(start.min())
    stretch = int(end.max()) - low + 1
    shift = group.astype(np.int64) * stretch - low
    left, right = start + shift, end + shift
    reach = np.maximum.accumulate(right)
    covered = right - left
    covered[1:] = right[1:] - np.maximum(left[1:], reach[:-1])
    np.maximum(covered, 0, out=covered)
    heads = _heads(group)
    out[group[heads]] = np.add.reduceat(covered, heads)
    return out


def _heads(group: _I32) -> NDArray[np.int64]:
    return np.flatnonzero(np.append(True, group[1:] != group[:-1])).astype(np.int64, copy=False)


def step_figures(step: _I32, start: _I64, dur: _I64, stream: _I32, count: int) -> StepFigures:
    """Figures of `count` steps from kernel rows sorted by start; rows with step -1 only clip others."""
    clipped = clipped_ends(start, start + dur, stream)
    zeros = [np.zeros(count, np.int64) for _ in range(7)]
    figures = StepFigures(*zeros)
    rows = np.flatnonzero(step >= 0)
    if not len(rows):
        return figures
    rows = rows[np.argsort(step[rows], kind="stable")]
    group = step[rows]
    heads = _heads(group)
    owner = group[heads]
    left, length, right = start[rows], dur[rows], clipped[rows]
    figures.kernels[owner] = np.diff(np.append(heads, len(rows)))
    figures.first_ns[owner] = left[heads]
    figures.last_ns[owner] = np.maximum.reduceat(right, heads)
    figures.sum_ns[owner] = np.add.reduceat(length, heads)
    cut = left + length - right
    cut[cut <= OVERLAP_TOLERANCE_NS] = 0
    figures.overlap_ns[owner] = np.add.reduceat(cut, heads)
    figures.busy_ns[:] = grouped_union(group, left, right, count)
    figures.span_ns[owner] = figures.last_ns[owner] - _busiest_first(group, left, right, stream[rows], owner)
    return figures


def _busiest_first(group: _I32, left: _I64, right: _I64, stream: _I32, owner: _I32) -> _I64:
    """Start of each group's first kernel on the stream where that group is busiest.

    A side stream may begin early (a prefetch waiting for nothing), which is not where the step begins.
    """
    streams, number = np.unique(stream, return_inverse=True)
    if len(streams) == 1:
        return left[_heads(group)]
    width = len(streams)
    cell = group.astype(np.int64) * width + number
    order = np.argsort(cell, kind="stable")
    heads = np.flatnonzero(np.append(True, np.diff(cell[order]) != 0))
    busy = np.add.reduceat((right - left)[order], heads)
    first = left[order][heads]
    cell_group = cell[order][heads] // width
    # Sorted by group, then busy time, ties by the earlier start: the last of each group is the busiest.
    best = np.lexsort((-first, busy, cell_group))
    last = np.flatnonzero(np.append(np.diff(cell_group[best]) != 0, True))
    result = first[best][last]
    assert len(result) == len(owner)
    return result
