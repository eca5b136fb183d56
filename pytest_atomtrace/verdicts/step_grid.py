"""Kernels by step: calls and time of every name in each of some steps of one rank."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from pytest_atomtrace.trace.data import KERNEL, PHASES
from pytest_atomtrace.trace.intervals import clip_overlaps, merge
from pytest_atomtrace.trace.stepmath import distinct

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pytest_atomtrace.trace.data import RankData, Step
    from pytest_atomtrace.verdicts.trace import Trace

__all__ = ["ITERATION_PHASES", "StepGrid", "counted_steps", "iteration_grid", "step_grid"]

_I64: TypeAlias = "NDArray[np.int64]"

# Phases that no label holds: their activities are counted per iteration, by the time of the launch.
ITERATION_PHASES = frozenset({"sample", "iteration"})


@dataclass(frozen=True)
class StepGrid:
    """One row per (name, layer) that occurs, one column per step.

    `total_ns` are plain sums of durations. `exposed_ns` gives every instant to one kernel, the one on the busiest
    of the streams that work in it, so that a column of it adds up to the step's GPU busy time: what a side stream
    does behind the main one has a sum and no exposure. Copies have none.
    """

    keys: tuple[tuple[str, str], ...]
    calls: _I64
    total_ns: _I64
    exposed_ns: _I64

    @property
    def steps(self) -> int:
        """How many steps."""
        return int(self.calls.shape[1])

    def row(self, name: str, layer: str = "kernel") -> int:
        """Row of a name, -1 if no step has it."""
        return self._places.get((name, layer), -1)

    @cached_property
    def _places(self) -> dict[tuple[str, str], int]:
        return {key: place for place, key in enumerate(self.keys)}


def counted_steps(trace: Trace, rank: RankData, kind: str) -> tuple[list[Step], bool]:
    """Steps on which figures per step rest, and whether they are steady ones.

    Steady steps where there are any; else all inner steps of the kind; else whatever there is. A trace of one
    step has no steady step and is still worth looking at.
    """
    steady = trace.steady_steps(rank, kind)
    if steady:
        return steady, True
    of_kind = [step for step in rank.steps if step.kind == kind]
    return [step for step in of_kind if not step.edge] or of_kind, False


def step_grid(rank: RankData, steps: Sequence[Step]) -> StepGrid:
    """Grid of the activities that `steps` own."""
    column = np.full(len(rank.steps) + 1, -1, np.int64)
    column[[step.index for step in steps]] = np.arange(len(steps))
    # The last entry catches step -1, the activities of no step.
    return _grid(rank, column[rank.step], len(steps))


def iteration_grid(rank: RankData, steps: Sequence[Step], phases: frozenset[str]) -> StepGrid:
    """Grid of the activities of `phases` launched from each step's start to the next main step's start."""
    main = [s for s in rank.steps if s.kind != "draft" and not s.kind.startswith("dspark")]
    starts = np.array([step.cpu_start_ns for step in main], np.int64)
    column = np.full(len(main) + 1, -1, np.int64)
    place = {step.index: number for number, step in enumerate(main)}
    column[[place[step.index] for step in steps]] = np.arange(len(steps))
    owner = np.searchsorted(starts, rank.launch_ns, side="right") - 1
    owner[rank.launch_ns < 0] = -1
    wanted = np.isin(rank.phase, [PHASES.index(phase) for phase in phases])
    return _grid(rank, np.where(wanted, column[owner], -1), len(steps))


def _grid(rank: RankData, column: _I64, width: int) -> StepGrid:
    rows = np.flatnonzero(column >= 0)
    code = rank.name_id[rows].astype(np.int64) * 2 + (rank.kind[rows] != KERNEL)
    # Codes are few and small: counting finds them many times quicker than sorting a million rows.
    codes = np.flatnonzero(np.bincount(code, minlength=1))
    number = np.zeros(2 * len(rank.names) + 2, np.int64)
    number[codes] = np.arange(len(codes))
    cell = number[code] * width + column[rows]
    size = len(codes) * width
    calls = np.bincount(cell, minlength=size).astype(np.int64)
    # Sums of integer ns stay exact in float64 up to 2**53 ns.
    total = np.bincount(cell, weights=rank.dur_ns[rows], minlength=size).astype(np.int64)
    kernels = rank.kind[rows] == KERNEL
    mine = rows[kernels]
    start = rank.start_ns[mine]
    shown = np.zeros(len(rows), np.int64)
    shown[kernels] = _exposed(column[mine], start, start + rank.dur_ns[mine], rank.stream[mine].astype(np.int64))
    exposed = np.bincount(cell, weights=shown, minlength=size).astype(np.int64)
    shape = (len(codes), width)
    keys = tuple((rank.names[c // 2], "memory" if c % 2 else "kernel") for c in codes.tolist())
    return StepGrid(keys, calls.reshape(shape), total.reshape(shape), exposed.reshape(shape))


def _exposed(step: _I64, start: _I64, end: _I64, stream: _I64) -> _I64:
    """The part of each kernel that counts for its step's union: none of what a busier stream covers."""
    exposed = np.zeros(len(start), np.int64)
    if not len(start):
        return exposed
    # Steps may interleave in time, so each is moved to a stretch of its own.
    shift = step * (int(end.max()) - int(start.min()) + 1)
    start, end = start + shift, end + shift
    streams = distinct(stream)
    rows_of = [np.flatnonzero(stream == number) for number in streams.tolist()]
    busy = np.array([int((end[rows] - start[rows]).sum()) for rows in rows_of])
    low = high = np.zeros(0, np.int64)
    for place in np.argsort(-busy, kind="stable").tolist():
        rows = rows_of[place]
        rows = rows[np.argsort(start[rows], kind="stable")]
        left, right = start[rows], clip_overlaps(start[rows], end[rows])
        exposed[rows] = right - left - (_covered(right, low, high) - _covered(left, low, high))
        if len(streams) > 1:
            low, high = merge(np.concatenate((low, left)), np.concatenate((high, right)))
    return exposed


def _covered(at: _I64, low: _I64, high: _I64) -> _I64:
    """How much of the time before each instant the disjoint, sorted intervals cover."""
    if not len(low):
        return np.zeros(len(at), np.int64)
    before = np.concatenate((np.zeros(1, np.int64), np.cumsum(high - low)))
    place = np.searchsorted(low, at, side="right") - 1
    inside = np.minimum(at, high[place]) - low[place]
    return np.where(place >= 0, before[np.maximum(place, 0)] + inside, 0)
