"""Slices on disk: named by their steps, never over their size, whatever has to be given up for that."""

from __future__ import annotations

import gzip
import hashlib
import json
from typing import TYPE_CHECKING, Any

import pytest

from pytest_atomtrace import load_trace
from pytest_atomtrace.capture.slices import slice_name, write_slice
from pytest_atomtrace.trace.load import load_rank
from pytest_atomtrace.trace.slice import NOTE_KEY
from tests.trace.builder import Kineto

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_atomtrace.trace.data import RankData


def big(tmp_path: Path) -> RankData:
    """Thirty decodes of 40 kernels under many ops and stacks whose names do not compress."""
    trace = Kineto()
    for number in range(30):
        ts = 1000.0 + number * 400
        trace.decode(ts, kernels=40)
        for op in range(60):
            noise = hashlib.sha256(f"{number} {op}".encode()).hexdigest()
            trace.op(f"aten::{noise}", ts + 1 + op, 0.5)
            trace.x(f"{noise[::-1]}.py: f", "python_function", ts + 1 + op, 0.5, 500, 500)
    return load_rank(trace.write(tmp_path / "rank_3"), rank="rank_3")


def note_of(path: Path) -> dict[str, Any]:
    note: dict[str, Any] = json.loads(gzip.decompress(path.read_bytes()))[NOTE_KEY]
    return note


def test_a_slice_is_a_trace_directory_that_names_rank_and_steps(tmp_path: Path) -> None:
    rank = big(tmp_path)
    made = write_slice(rank, [17], tmp_path / "out")
    assert made is not None
    assert made.path == tmp_path / "out" / "rank_3" / "steps-15-19.pt.trace.json.gz"
    assert (made.steps, made.left_out) == ((15, 16, 17, 18, 19), "")
    assert made.size_bytes == made.path.stat().st_size
    part = load_trace(tmp_path / "out").data.ranks["rank_3"]
    assert [step.n_kernels for step in part.steps] == [40] * 5
    note = note_of(made.path)
    assert (note["rank"], note["source"], note["asked"]) == ("rank_3", rank.path.name, [17])
    assert [(row["step"], row["range_ns"]) for row in note["steps"]] == [
        (n, [rank.steps[n].first_ns, rank.steps[n].last_ns]) for n in made.steps
    ]


def test_equal_slices_are_equal_files(tmp_path: Path) -> None:
    rank = big(tmp_path)
    one, two = (write_slice(rank, [17], tmp_path / name) for name in ("a", "b"))
    assert one is not None
    assert two is not None
    assert one.path.read_bytes() == two.path.read_bytes()


@pytest.mark.parametrize(
    ("share", "kept", "left_out"),
    [
        (0.9, (9, 10, 11, 19, 20, 21), "the neighbours but 1 on either side"),
        (0.5, (10, 20), "all neighbours"),
        (0.15, (10,), "steps 20; all neighbours"),
        (0.08, (10,), "steps 20; all neighbours; Python stacks"),
        (0.04, (10,), "steps 20; all neighbours; Python stacks, CPU ops and arrows"),
    ],
)
def test_what_is_too_large_gives_up_what_matters_least_and_says_so(
    tmp_path: Path, share: float, kept: tuple[int, ...], left_out: str
) -> None:
    rank = big(tmp_path)
    whole = write_slice(rank, [10, 20], tmp_path / "whole")
    assert whole is not None
    limit = round(whole.size_bytes * share)
    made = write_slice(rank, [10, 20], tmp_path / "out", limit_bytes=limit)
    assert made is not None
    assert made.size_bytes <= limit
    assert (made.steps, made.left_out) == (kept, left_out)
    assert note_of(made.path)["left_out"] == left_out
    part = load_trace(tmp_path / "out").data.ranks["rank_3"]
    assert [step.n_kernels for step in part.steps] == [40] * len(kept)


def test_a_step_that_is_too_large_by_itself_leaves_no_file(tmp_path: Path) -> None:
    assert write_slice(big(tmp_path), [10], tmp_path / "out", limit_bytes=300) is None
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == []


def test_names_show_gaps_between_steps() -> None:
    assert slice_name([4, 5, 6, 9, 20, 21]) == "steps-4-6_9_20-21.pt.trace.json.gz"
