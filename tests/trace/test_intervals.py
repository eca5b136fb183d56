"""Identities of interval arithmetic, against a count of single nanoseconds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_atomtrace.trace import intervals
from pytest_atomtrace.trace.stepmath import grouped_union, step_figures

if TYPE_CHECKING:
    from pytest_atomtrace.trace.intervals import Int64

pairs = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 15)), max_size=14)


def _arrays(rows: list[tuple[int, int]]) -> tuple[Int64, Int64]:
    start = np.array([row[0] for row in rows], np.int64)
    return start, start + np.array([row[1] for row in rows], np.int64)


def _instants(rows: list[tuple[int, int]]) -> set[int]:
    return {at for start, length in rows for at in range(start, start + length)}


@given(pairs)
def test_the_union_counts_every_instant_once(rows: list[tuple[int, int]]) -> None:
    start, end = _arrays(rows)
    assert intervals.union_length(start, end) == len(_instants(rows)) <= int((end - start).sum())


@given(pairs)
def test_busy_and_idle_make_the_span(rows: list[tuple[int, int]]) -> None:
    rows = [row for row in rows if row[1]]
    start, end = _arrays(rows)
    low, high = intervals.gaps(start, end)
    assert intervals.union_length(start, end) + int((high - low).sum()) == intervals.span(start, end)


@given(pairs, pairs)
def test_subtraction_and_intersection_split_a_union(a: list[tuple[int, int]], b: list[tuple[int, int]]) -> None:
    low, high = intervals.subtract(*_arrays(a), *_arrays(b))
    left = {at for start, end in zip(low.tolist(), high.tolist(), strict=True) for at in range(start, end)}
    assert left == _instants(a) - _instants(b)
    assert intervals.overlap_length(*_arrays(a), *_arrays(b)) == len(_instants(a) & _instants(b))


@given(pairs)
def test_clipping_leaves_no_overlap_and_adds_nothing(rows: list[tuple[int, int]]) -> None:
    start, end = _arrays(sorted(rows))
    clipped = intervals.clip_overlaps(start, end)
    assert (clipped <= end).all()
    assert (clipped[:-1] <= start[1:]).all()
    assert intervals.union_length(start, clipped) == int((clipped - start).sum())


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 15), st.integers(0, 3)), max_size=20))
def test_unions_of_groups_that_interleave_are_each_their_own(rows: list[tuple[int, int, int]]) -> None:
    rows = sorted(rows, key=lambda row: (row[2], row[0]))
    start, end = _arrays([row[:2] for row in rows])
    group = np.array([row[2] for row in rows], np.int32)
    expected = [len(_instants([row[:2] for row in rows if row[2] == number])) for number in range(4)]
    assert grouped_union(group, start, end, 4).tolist() == expected


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 15), st.integers(-1, 3), st.integers(0, 2)), max_size=20))
@settings(max_examples=200)
def test_step_figures_agree_with_a_plain_loop(rows: list[tuple[int, int, int, int]]) -> None:
    rows = sorted(rows)
    start, end = _arrays([row[:2] for row in rows])
    step = np.array([row[2] for row in rows], np.int32)
    stream = np.array([row[3] for row in rows], np.int32)
    figures = step_figures(step, start, end - start, stream, 4)
    ends = list(end.tolist())
    for place, row in enumerate(rows):
        later = [other[0] for other in rows[place + 1 :] if other[3] == row[3]]
        ends[place] = min([ends[place], *later[:1]])
    for number in range(4):
        mine = [place for place, row in enumerate(rows) if row[2] == number]
        assert figures.kernels[number] == len(mine)
        if not mine:
            continue
        instants = {at for place in mine for at in range(rows[place][0], ends[place])}
        assert figures.busy_ns[number] == len(instants)
        assert figures.sum_ns[number] == sum(rows[place][1] for place in mine)
        assert figures.first_ns[number] == min(rows[place][0] for place in mine)
        assert figures.last_ns[number] == max(ends[place] for place in mine)
        assert figures.span_ns[number] <= figures.last_ns[number] - figures.first_ns[number]
