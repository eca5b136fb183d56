"""Rows of an export, one rank at a time: columns of builtin lists and numpy arrays by the schema's names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from pytest_atomtrace.trace.data import KERNEL, PHASES
from pytest_atomtrace.trace.families import family
from pytest_atomtrace.trace.labels import KINDS
from pytest_atomtrace.trace.metrics import iterations, span_is_launch_bound
from pytest_atomtrace.trace.names import base_name
from pytest_atomtrace.verdicts.step_grid import StepGrid, counted_steps, iteration_grid, step_grid

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pytest_atomtrace.trace.data import RankData, Step
    from pytest_atomtrace.verdicts.trace import Trace

__all__ = ["Columns", "Words", "activity_columns", "kernel_columns", "step_columns"]

Columns: TypeAlias = "dict[str, object]"

_ACTIVITY_ROWS = 1 << 17


@dataclass(frozen=True)
class Words:
    """A column of text as places in a list of words, so that a million names are a million small numbers."""

    places: np.ndarray
    words: Sequence[str]

    def __len__(self) -> int:
        return len(self.places)


def step_columns(trace: Trace, rank: RankData) -> Columns:
    """Every step of a rank."""
    steps = rank.steps
    kinds = list(dict.fromkeys(step.kind for step in steps))
    steady = {step.index for kind in kinds for step in trace.steady_steps(rank, kind)}
    whole = {one.step.index: one for kind in kinds if _has_iterations(kind) for one in iterations(rank, kind=kind)}
    base = rank.base_time_ns or None
    return {
        "step": [step.index for step in steps],
        "kind": [step.kind for step in steps],
        "label": [step.label.text for step in steps],
        "bs": [step.bs for step in steps],
        "graph_bs": [step.graph_bs for step in steps],
        "tok": [step.label.tok for step in steps],
        "steady": [step.index in steady for step in steps],
        "edge": [step.edge for step in steps],
        "start_ns": [step.cpu_start_ns for step in steps],
        "base_unix_ns": [base] * len(steps),
        "host_ns": [step.cpu_span_ns for step in steps],
        "gpu_start_ns": [step.first_ns if step.n_kernels else None for step in steps],
        "gpu_end_ns": [step.last_ns if step.n_kernels else None for step in steps],
        "gpu_busy_ns": [step.gpu_busy_ns for step in steps],
        "gpu_span_ns": [step.gpu_span_ns for step in steps],
        "kernel_sum_ns": [step.kernel_sum_ns for step in steps],
        "iteration_ns": [whole[step.index].busy_ns if step.index in whole else None for step in steps],
        "period_ns": [whole[step.index].period_ns if step.index in whole else None for step in steps],
        "n_kernels": [step.n_kernels for step in steps],
        "n_graph_launches": [step.n_graph_launches for step in steps],
        "launch_bound": [span_is_launch_bound(step) for step in steps],
        "overlap_ns": [step.overlap_ns for step in steps],
        "source": [step.source for step in steps],
        "decode_index": [step.decode_index if step.decode_index >= 0 else None for step in steps],
        "draft_index": [step.label.draft_index for step in steps],
    }


def _has_iterations(kind: str) -> bool:
    return kind != "draft" and not kind.startswith("dspark")


def kernel_columns(trace: Trace, rank: RankData) -> Columns:
    """Every name in every phase of a rank, in the order of phases, longest first."""
    rows = sorted(_kernel_rows(rank), key=lambda row: (row.phase, -row.total_ns, row.name, row.layer))
    per_step = [_PerStep.of(trace, rank, PHASES[phase]) for phase in range(len(PHASES))]
    figures = [per_step[row.phase].figures(row.name, row.layer) for row in rows]
    return {
        "phase": [PHASES[row.phase] for row in rows],
        "name": [row.name for row in rows],
        "base_name": [base_name(row.name) for row in rows],
        "layer": [row.layer for row in rows],
        "family": [family(row.name) if row.layer == "kernel" else "copy" for row in rows],
        "calls": [row.calls for row in rows],
        "total_ns": [row.total_ns for row in rows],
        "steps": [per_step[row.phase].steps for row in rows],
        "steady": [per_step[row.phase].steady for row in rows],
        **{key: [one[key] for one in figures] for key in _PER_STEP},
    }


@dataclass(frozen=True)
class _KernelRow:
    phase: int
    name: str
    layer: str
    calls: int
    total_ns: int


def _kernel_rows(rank: RankData) -> Iterator[_KernelRow]:
    memory = rank.kind != KERNEL
    code = (rank.name_id.astype(np.int64) * 2 + memory) * len(PHASES) + rank.phase
    calls = np.bincount(code, minlength=1)
    # Sums of integer ns stay exact in float64 up to 2**53 ns.
    total = np.bincount(code, weights=rank.dur_ns, minlength=1)
    for place in np.flatnonzero(calls).tolist():
        name, phase = divmod(place, len(PHASES))
        layer = "memory" if name % 2 else "kernel"
        yield _KernelRow(phase, rank.names[name // 2], layer, int(calls[place]), int(total[place]))


_PER_STEP = ("calls_per_step", "calls_per_step_min", "calls_per_step_max", "ns_per_step", "exposed_ns_per_step")


@dataclass(frozen=True)
class _PerStep:
    """Calls and times per step in one phase; `steps` None where the phase has no steps to count by."""

    steps: int | None
    steady: bool | None
    grid: StepGrid | None

    @classmethod
    def of(cls, trace: Trace, rank: RankData, phase: str) -> _PerStep:
        # What is sampled belongs to the decode before it.
        kind = "decode" if phase == "sample" else phase
        steps, steady = counted_steps(trace, rank, kind) if kind in KINDS else ([], False)
        if not steps:
            return cls(None, None, None)
        return cls(len(steps), steady, _grid(rank, steps, phase))

    def figures(self, name: str, layer: str) -> Mapping[str, object]:
        if self.grid is None:
            return dict.fromkeys(_PER_STEP)
        row = self.grid.row(name, layer)
        if row < 0:
            return dict.fromkeys(_PER_STEP, 0)
        calls, width = self.grid.calls[row], self.grid.steps
        return {
            "calls_per_step": float(calls.mean()),
            "calls_per_step_min": int(calls.min()),
            "calls_per_step_max": int(calls.max()),
            "ns_per_step": int(self.grid.total_ns[row].sum()) / width,
            "exposed_ns_per_step": int(self.grid.exposed_ns[row].sum()) / width,
        }


def _grid(rank: RankData, steps: Sequence[Step], phase: str) -> StepGrid:
    return iteration_grid(rank, steps, frozenset({phase})) if phase == "sample" else step_grid(rank, steps)


def activity_columns(rank: RankData) -> Iterator[Columns]:
    """Every GPU activity of a rank in time order, in pieces of bounded size."""
    for first in range(0, len(rank.name_id), _ACTIVITY_ROWS):
        part = slice(first, first + _ACTIVITY_ROWS)
        yield {
            "phase": Words(rank.phase[part].astype(np.int32), PHASES),
            "step": np.ma.masked_less(rank.step[part].astype(np.int64), 0),
            "name": _words(rank.name_id[part], rank.names),
            "layer": Words((rank.kind[part] != KERNEL).astype(np.int32), ("kernel", "memory")),
            "stream": rank.stream[part].astype(np.int64),
            "start_ns": rank.start_ns[part],
            "dur_ns": rank.dur_ns[part],
            "launch_ns": np.ma.masked_less(rank.launch_ns[part], 0),
            "correlation": rank.correlation[part],
            "graph": rank.graph[part],
        }


def _words(ids: np.ndarray, names: Sequence[str]) -> Words:
    """Only the names that the piece has: a rank's list holds its launches' names too."""
    used, places = np.unique(ids, return_inverse=True)
    return Words(places.astype(np.int32), [names[place] for place in used.tolist()])
