"""Whatever shows a simulated trace says so: nobody may take its figures for a GPU's."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING

import pytest

from tests.cli.test_layers import capture_rows, run_trace, write
from tests.traces import NAME, Recipe, events, write_ranks

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Result

_NOTE = "the built-in simulator made its times up"


def simulated(directory: Path) -> Path:
    """A plain trace directory as the simulator's server leaves it: no manifest tells where it is from."""
    document = {"schemaVersion": 1, "simulatedBy": "pytest-atomtrace", "traceEvents": events(Recipe())}
    path = directory / "rank_0" / NAME
    path.parent.mkdir(parents=True)
    path.write_bytes(gzip.compress(json.dumps(document).encode()))
    return directory


@pytest.mark.parametrize("command", ["summary", "health", "kernels", "steps"])
def test_every_view_of_a_simulated_trace_says_so(
    atomtrace: Callable[..., Result], tmp_path: Path, command: str
) -> None:
    made_up = simulated(tmp_path / "sim")
    assert _NOTE in atomtrace(command, made_up).out.splitlines()[0]
    assert atomtrace(command, made_up, "--json").json["simulated"] is True
    real = write_ranks(tmp_path / "real", Recipe())
    assert _NOTE not in atomtrace(command, real).out
    assert atomtrace(command, real, "--json").json["simulated"] is False


def test_layers_say_so_too(atomtrace: Callable[..., Result], tmp_path: Path) -> None:
    traces = run_trace(tmp_path)
    path = traces if traces.is_file() else next(traces.rglob(NAME))
    document = json.loads(gzip.decompress(path.read_bytes()))
    path.write_bytes(gzip.compress(json.dumps({"simulatedBy": "pytest-atomtrace", **document}).encode()))
    captures = write(tmp_path / "captures" / "bs_4_q_1_rank0.json.gz", capture_rows())
    result = atomtrace("layers", path, "--capture-traces", captures)
    assert _NOTE in result.out.splitlines()[0]


def test_a_manifest_of_the_simulator_is_enough(atomtrace: Callable[..., Result], tmp_path: Path) -> None:
    traces = write_ranks(tmp_path, Recipe())
    (traces / "manifest.json").write_text(json.dumps({"engine": "sim", "expected_ranks": ["rank_0"]}))
    assert _NOTE in atomtrace("summary", traces).out


def test_a_difference_names_the_side_that_is_simulated(atomtrace: Callable[..., Result], tmp_path: Path) -> None:
    made_up, real = simulated(tmp_path / "sim"), write_ranks(tmp_path / "real", Recipe())
    assert f"B is simulated: {_NOTE}" in atomtrace("diff", real, made_up).out
    assert f"Simulated: {_NOTE}" in atomtrace("diff", made_up, made_up).out
    assert _NOTE not in atomtrace("diff", real, real).out


def test_traits_mark_the_simulated_columns(atomtrace: Callable[..., Result], tmp_path: Path) -> None:
    result = atomtrace("traits", simulated(tmp_path / "made-up"), write_ranks(tmp_path / "real", Recipe()))
    marked = [line for line in result.out.splitlines() if "(simulated)" in line]
    assert len(marked) == 1
    assert marked[0].startswith("made-up ")


def test_what_the_simulator_exports_says_so_itself(tmp_path: Path) -> None:
    from pytest_atomtrace.simulator.document import Facts, write_document
    from pytest_atomtrace.trace.reader import read_rank

    facts = Facts("MI355X", 1, 0, 1, detailed=False, seed=1, base_ns=0, pid=1, threads=(1,))
    path = tmp_path / NAME.removesuffix(".gz")
    with path.open("wb") as file:
        write_document(file, facts, start_ns=0, name="x", play=lambda *_: 1000)
    assert read_rank(path, rank="rank_0").meta["simulatedBy"] == "pytest-atomtrace"
