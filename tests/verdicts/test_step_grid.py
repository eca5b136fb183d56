"""Kernels by step: what a kernel adds to its step's busy time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_atomtrace import load_trace
from pytest_atomtrace.trace.build import build_rank
from pytest_atomtrace.trace.reader import read_text
from pytest_atomtrace.verdicts.step_grid import step_grid
from tests.traces import Recipe, write_ranks

if TYPE_CHECKING:
    from pytest_atomtrace.trace.data import RankData


def rank_of(kernels: list[tuple[int, int, int, int]], steps: int) -> RankData:
    """A rank whose decodes hold the (step, start, duration, stream) kernels, each with a name of its own."""
    rows: list[dict[str, Any]] = []

    def add(name: str, cat: str, start_ns: int, dur_ns: int, **args: object) -> None:
        times = {"ts": start_ns / 1000, "dur": dur_ns / 1000}
        rows.append({"ph": "X", "cat": cat, "name": name, "pid": 1, "tid": 7, **times, "args": args})

    for step in range(steps):
        add("decode[bs=1 tok=1 d=1]", "user_annotation", 10_000 * step, 5_000)
        add("hipGraphLaunch", "cuda_runtime", 10_000 * step + 100, 50, correlation=step + 1)
    for number, (step, start_ns, dur_ns, stream) in enumerate(kernels):
        add(f"kernel_{number}", "kernel", 90_000 + start_ns, dur_ns, stream=stream, correlation=step + 1)
    text = json.dumps({"traceEvents": rows}).encode()
    return build_rank("rank_0", Path("trace.json"), read_text([text]))


ROWS = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 400), st.integers(0, 60), st.integers(0, 3)), min_size=1, max_size=40
)


@given(ROWS)
@settings(max_examples=200, deadline=None)
def test_exposed_times_add_up_to_the_busy_time_of_every_step(kernels: list[tuple[int, int, int, int]]) -> None:
    # One stream runs one kernel at a time; a stream here belongs to one step, since busy times are per step.
    kernels = [(step, start, dur, 4 * step + stream) for step, start, dur, stream in kernels]
    rank = rank_of(kernels, 4)
    grid = step_grid(rank, rank.steps)
    assert grid.exposed_ns.sum(axis=0).tolist() == [step.gpu_busy_ns for step in rank.steps]
    assert grid.total_ns.sum(axis=0).tolist() == [step.kernel_sum_ns for step in rank.steps]
    assert (grid.exposed_ns >= 0).all()
    assert (grid.exposed_ns <= grid.total_ns).all()


def test_a_side_stream_counts_only_where_the_main_one_rests() -> None:
    rank = rank_of([(0, 0, 100, 1), (0, 150, 100, 1), (0, 80, 100, 2)], 1)
    grid = step_grid(rank, rank.steps)
    exposed = {name: int(grid.exposed_ns[grid.row(name)][0]) for name, _ in grid.keys}
    # The side kernel runs from 80 to 180; the main stream rests from 100 to 150.
    assert exposed == {"kernel_0": 100, "kernel_1": 100, "kernel_2": 50}


def test_calls_are_counted_in_the_step_that_owns_them(tmp_path: Path) -> None:
    traces = write_ranks(tmp_path, Recipe(extra=("tail",), replaced={17: "tail"}))
    rank = load_trace(traces).data.ranks["rank_0"]
    steps = [step for step in rank.steps if step.kind == "decode"]
    grid = step_grid(rank, steps)
    assert [number for number, calls in enumerate(grid.calls[grid.row("tail")]) if not calls] == [17]
    assert grid.row("no_such_kernel") == -1
