"""GPU figures of all steps at once: sorted columns in, one number per step out. Pure numpy."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["OVERLAP_TOLERANCE_NS", "StepFigures", "clipped_ends", "distinct", "grouped_union", "step_figures"]

_I32: TypeAlias = "NDArray[np.int32]"
_I64: TypeAlias = "NDArray[np.int64]"

# kineto rounds both ends of an interval to ns, so abutting kernels may seem to overlap by two.
OVERLAP_TOLERANCE_NS = 2
_BATCH_ROWS = 1 << 15
_COUNTED_SPREAD = 1 << 12
_FOREVER = np.iinfo(np.int64).max


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
    """Ends cut back to the next start on the same stream, for rows sorted by start; `end` itself is changed.

    One stream runs one kernel at a time; an overlap there is an artifact and the earlier kernel gives way.
    """
    following: dict[int, int] = {}
    # From the end, by parts that fit the cache: each needs the first start after it on every stream.
    for high in range(len(start), 0, -_BATCH_ROWS):
        low = max(0, high - _BATCH_ROWS)
        part = stream[low:high]
        for number in distinct(part).tolist():
            rows = np.flatnonzero(part == number) + low
            starts = start[rows]
            limit = np.append(starts[1:], following.get(number, _FOREVER))
            end[rows] = np.minimum(end[rows], limit)
            following[number] = int(starts[0])
    return end


def distinct(stream: _I32 | _I64) -> _I64:
    """Sorted streams. There are a handful, with small numbers: counting is ten times as quick as np.unique."""
    if not len(stream):
        return np.empty(0, dtype=np.int64)
    low, high = int(stream.min()), int(stream.max())
    if high - low >= _COUNTED_SPREAD:
        return np.unique(stream).astype(np.int64)
    return (np.flatnonzero(np.bincount(stream - low)) + low).astype(np.int64, copy=False)


def grouped_union(group: _I32, start: _I64, end: _I64, count: int) -> _I64:
    """Union length of the intervals of each group, for rows sorted by group, then start."""
    out = np.zeros(count, np.int64)
    if not len(group):
        return out
    # Groups may interleave in time, so each is moved to a stretch of its own before one running maximum
    # serves them all.
    low = int(start.min())
    stretch = int(end.max()) - low + 1
    # In place where it can be: with a million rows, new pages cost more than the arithmetic.
    right = group.astype(np.int64)
    right *= stretch
    right -= low
    left = start + right
    right += end
    left[1:] = np.maximum(left[1:], np.maximum.accumulate(right)[:-1])
    right -= left
    covered = np.maximum(right, 0, out=right)
    heads = _heads(group)
    out[group[heads]] = np.add.reduceat(covered, heads)
    return out


def _heads(group: _I32) -> NDArray[np.int64]:
    return np.flatnonzero(np.append(True, group[1:] != group[:-1])).astype(np.int64, copy=False)


def step_figures(step: _I32, start: _I64, dur: _I64, stream: _I32, count: int) -> StepFigures:
    """Figures of `count` steps from kernel rows sorted by start; rows with step -1 only clip others."""
    right = clipped_ends(start, start + dur, stream)
    figures = StepFigures(*(np.zeros(count, np.int64) for _ in range(7)))
    rows = np.flatnonzero(step >= 0).astype(np.int32)
    group = step[rows]
    if not len(rows):
        return figures
    # Launches queue up, so rows nearly always come step by step; only interleaved steps need the sort.
    if (group[1:] < group[:-1]).any():
        rows = rows[np.argsort(group, kind="stable")]
        group = step[rows]
    heads = _heads(group)
    # A few steps at a time: their rows stay in the cache, and temporaries stay small for any trace.
    for low, high in _batches(heads, len(rows)):
        part = rows[low:high]
        _fill(figures, group[low:high], start[part], dur[part], right[part], stream[part])
    return figures


def _batches(heads: _I64, total: int) -> list[tuple[int, int]]:
    cuts = [0]
    for head in heads.tolist():
        if head - cuts[-1] >= _BATCH_ROWS:
            cuts.append(head)
    return list(pairwise([*cuts, total]))


def _fill(figures: StepFigures, group: _I32, left: _I64, length: _I64, right: _I64, stream: _I32) -> None:
    heads = _heads(group)
    owner = group[heads]
    figures.kernels[owner] = np.diff(np.append(heads, len(group)))
    figures.first_ns[owner] = left[heads]
    figures.last_ns[owner] = np.maximum.reduceat(right, heads)
    figures.sum_ns[owner] = np.add.reduceat(length, heads)
    cut = left + length - right
    cut[cut <= OVERLAP_TOLERANCE_NS] = 0
    figures.overlap_ns[owner] = np.add.reduceat(cut, heads)
    local = np.repeat(np.arange(len(owner), dtype=np.int32), np.diff(np.append(heads, len(group))))
    figures.busy_ns[owner] = grouped_union(local, left, right, len(owner))
    figures.span_ns[owner] = figures.last_ns[owner] - _busiest_first(local, left, right, stream, len(owner))


def _busiest_first(local: _I32, left: _I64, right: _I64, stream: _I32, count: int) -> _I64:
    """Start of each group's first kernel on the stream where that group is busiest.

    A side stream may begin early (a prefetch waiting for nothing), which is not where the step begins.
    """
    streams = distinct(stream)
    width = len(streams)
    if width == 1:
        return left[_heads(local)]
    cell = local.astype(np.int64) * width + np.searchsorted(streams, stream)
    # Sums below 2**53 are exact as floats.
    busy = np.bincount(cell, weights=right - left, minlength=count * width)
    # Kernels of no length must still beat a stream without any.
    busy[np.bincount(cell, minlength=count * width) == 0] = -1
    first = np.zeros(count * width, np.int64)
    # Backwards, so that each cell ends with its earliest row.
    first[cell[::-1]] = left[::-1]
    found: _I64 = first.reshape(count, width)[np.arange(count), busy.reshape(count, width).argmax(axis=1)]
    return found
