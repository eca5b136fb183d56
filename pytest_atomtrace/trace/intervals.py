"""Arithmetic of time intervals on int64 nanosecond arrays. Pure: no trace, no step.

An interval is half open, `[start, end)`. Functions take two equally long arrays and allow any order unless
said otherwise. Identities that hold: union + gaps = span; union <= sum; union of clipped <= union.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Int64", "clip_overlaps", "gaps", "merge", "overlap_length", "span", "subtract", "union_length"]

Int64: TypeAlias = "NDArray[np.int64]"


def merge(start: Int64, end: Int64) -> tuple[Int64, Int64]:
    """Disjoint, sorted intervals covering the same instants; touching intervals become one."""
    keep = end > start
    start, end = start[keep], end[keep]
    if not len(start):
        return start, end
    order = np.argsort(start, kind="stable")
    start, end = start[order], end[order]
    reach = np.maximum.accumulate(end)
    first = np.empty(len(start), np.bool_)
    first[0] = True
    np.greater(start[1:], reach[:-1], out=first[1:])
    heads = np.flatnonzero(first)
    last = np.append(heads[1:], len(start)) - 1
    return start[heads], reach[last]


def union_length(start: Int64, end: Int64) -> int:
    """Length of the union, in ns."""
    low, high = merge(start, end)
    return int((high - low).sum())


def span(start: Int64, end: Int64) -> int:
    """From the first start to the last end, in ns; 0 for no interval."""
    return int(end.max() - start.min()) if len(start) else 0


def gaps(start: Int64, end: Int64) -> tuple[Int64, Int64]:
    """Idle intervals between the first start and the last end."""
    low, high = merge(start, end)
    return high[:-1], low[1:]


def subtract(start: Int64, end: Int64, start_b: Int64, end_b: Int64) -> tuple[Int64, Int64]:
    """The part of the first union outside the second, as disjoint sorted intervals."""
    low, high = merge(start, end)
    low_b, high_b = merge(start_b, end_b)
    if not len(low) or not len(low_b):
        return low, high
    # Cut both unions at every boundary of either; a piece survives if only the first union covers it.
    cuts = np.unique(np.concatenate((low, high, low_b, high_b)))
    left, right = cuts[:-1], cuts[1:]
    survives = _covered(left, low, high) & ~_covered(left, low_b, high_b)
    return merge(left[survives], right[survives])


def _covered(at: Int64, low: Int64, high: Int64) -> NDArray[np.bool_]:
    index = np.searchsorted(low, at, side="right") - 1
    inside: NDArray[np.bool_] = (index >= 0) & (at < high[np.maximum(index, 0)])
    return inside


def overlap_length(start: Int64, end: Int64, start_b: Int64, end_b: Int64) -> int:
    """Length of the intersection of the two unions, in ns."""
    low, high = subtract(start, end, start_b, end_b)
    return union_length(start, end) - int((high - low).sum())


def clip_overlaps(start: Int64, end: Int64) -> Int64:
    """Ends cut back to the next start, for intervals **sorted by start** on one stream.

    One stream runs one kernel at a time, so an overlap there is an artifact of clock rounding or of a lost
    end; the earlier interval gives way.
    """
    if not len(start):
        return end
    limit = np.append(start[1:], end[-1:])
    return np.minimum(end, limit, dtype=np.int64)
