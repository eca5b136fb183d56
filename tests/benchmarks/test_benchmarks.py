"""What the benchmarks measure is right: the generated traces, the floor's answer, and the comparison of answers."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from benchmarks.answers import judge
from benchmarks.generate import Size, write_trace
from pytest_atomtrace.trace.load import load

if TYPE_CHECKING:
    from pytest_atomtrace.trace.data import TraceData

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "benchmarks" / "floor" / "build"
SIZE = Size(steps=20, kernels=50, ranks=2, stacks=2)


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_trace(tmp_path_factory.mktemp("traces"), SIZE)


@pytest.fixture(scope="module")
def data(traces: list[Path]) -> TraceData:
    return load(traces[0].parents[1])


def ours(traces: list[Path], jobs: int = 1) -> bytes:
    script = ROOT / "benchmarks" / "contenders" / "ours.py"
    command = [sys.executable, str(script), str(jobs), *map(str, traces)]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=60).stdout


def test_generated_traces_are_healthy_and_have_the_asked_size(data: TraceData) -> None:
    assert list(data.ranks) == ["rank_0", "rank_1"]
    assert data.findings == ()
    for rank in data.ranks.values():
        decodes = [step for step in rank.steps if step.kind == "decode"]
        assert len(decodes) == SIZE.steps
        # The graph's kernels, and the two of the logits that are launched inside the label.
        assert {step.n_kernels for step in decodes} == {SIZE.kernels + 2}
        assert {step.n_graph_launches for step in decodes} == {1}
        assert {step.n_kernels for step in rank.steps if step.kind == "prefill"} == {SIZE.kernels}
        assert set(rank.phase_names()) == {"prefill", "decode", "sample"}


def test_generated_text_is_json_with_flow_arrows_stacks_and_bare_graph_kernels(traces: list[Path]) -> None:
    with gzip.open(traces[0], "rt", encoding="utf-8") as stream:
        events = json.load(stream)["traceEvents"]
    kernels = [event for event in events if event.get("cat") == "kernel"]
    graph = [event for event in kernels if "External id" not in event["args"]]
    assert len(graph) == SIZE.steps * SIZE.kernels
    assert len({event["args"]["correlation"] for event in graph}) == SIZE.steps
    assert sum(event["ph"] == "f" for event in events) == len(kernels)
    assert any(event.get("cat") == "python_function" for event in events)


def test_equal_seeds_give_equal_text_and_others_do_not(tmp_path: Path) -> None:
    small = Size(steps=2, kernels=5)
    texts = [
        gzip.decompress(write_trace(tmp_path / str(n), small, seed=seed)[0].read_bytes())
        for n, seed in enumerate((1, 1, 2))
    ]
    assert texts[0] == texts[1] != texts[2]


@pytest.fixture(scope="module")
def floor_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("floor") / "floor"
    # Quick to build is what counts here.
    quick = {**os.environ, "CXXFLAGS": "-O0"}
    built = subprocess.run([str(BUILD), str(target)], env=quick, capture_output=True, text=True, timeout=100)
    if built.returncode == 3:
        pytest.skip(built.stderr.strip())
    assert built.returncode == 0, built.stderr
    return target


@pytest.mark.parametrize("processes", [1, 2])
def test_the_floor_gives_our_answer(traces: list[Path], floor_program: Path, processes: int) -> None:
    for files in (traces, traces[:1]):
        command = [str(floor_program), "-j", str(processes), *map(str, files)]
        floor = subprocess.run(command, check=True, capture_output=True, timeout=60).stdout
        assert json.loads(floor) == json.loads(ours(files))


def test_a_wrong_answer_is_told_apart_from_a_right_one_that_covers_less(traces: list[Path]) -> None:
    reference = json.loads(ours(traces))
    without_steps = [{"kernels": rank["kernels"]} for rank in reference]
    assert judge("common", json.dumps(reference).encode(), reference).right
    assert judge("common", json.dumps(without_steps).encode(), reference).text == "kernels by name"
    name = next(iter(without_steps[0]["kernels"]))
    count, total = without_steps[0]["kernels"][name]
    without_steps[0]["kernels"] = {**without_steps[0]["kernels"], name: [count, total + 1]}
    verdict = judge("common", json.dumps(without_steps).encode(), reference)
    assert (verdict.right, verdict.text) == (False, "counts right, kernel time off by +0.0 %")
