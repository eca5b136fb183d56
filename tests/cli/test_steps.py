"""`atomtrace steps`."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING

from tests.traces import NAME, Recipe, events, write_ranks

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Result


def test_one_row_a_step_with_its_figures(atomtrace: Callable[..., Result], tmp_path: Path) -> None:
    result = atomtrace("steps", write_ranks(tmp_path, Recipe(slow={20: 2.0})))
    row = " ".join(result.row("#21"))
    assert row == "#21 decode[bs=4 tok=4 d=4] 12 1 240.0 us 240.0 us 400.0 us steady"
    assert "edge" in result.row("#0")
    assert sum(line.split()[-1] == "steady" for line in result.out.splitlines() if line.strip().startswith("#")) == 33


def test_quantiles_are_over_the_steady_steps(atomtrace: Callable[..., Result], tmp_path: Path) -> None:
    traces = write_ranks(tmp_path, Recipe(slow={0: 9.0, 20: 2.0}))
    rows = atomtrace("steps", traces, "--kind", "decode", "--json").json["quantiles"]
    busy = next(row for row in rows if row["metric"] == "gpu_busy")
    # Step 0 of the run is nine times as slow and does not count: a run's first steps are not steady.
    assert (busy["steps"], busy["steady"]) == (33, True)
    assert (busy["min_ns"], busy["p50_ns"], busy["max_ns"]) == (120_000, 120_000, 240_000)


def test_rows_are_of_the_slowest_rank_unless_one_is_named(atomtrace: Callable[..., Result], tmp_path: Path) -> None:
    traces = write_ranks(tmp_path, Recipe(), Recipe(duration_us=11.0))
    document = atomtrace("steps", traces, "--steady", "--json").json
    assert document["shown_rank"] == "rank_1"
    assert {row["rank"] for row in document["rows"]} == {"rank_1"}
    assert {row["rank"] for row in document["quantiles"]} == {"rank_0", "rank_1"}
    named = atomtrace("steps", traces, "--rank", "rank_0", "--json").json
    assert named["shown_rank"] == "rank_0"


def test_no_steady_step_says_so(atomtrace: Callable[..., Result], tmp_path: Path) -> None:
    result = atomtrace("steps", write_ranks(tmp_path, Recipe(decode_steps=3)), "--steady", "--kind", "decode")
    assert result.code == 0
    assert "No steady step" in result.out


def annotated(directory: Path) -> Path:
    """GPU annotations on decodes 3 and later, each 500 us wide: ATOM's first decode is our fourth."""
    rows = events(Recipe(slow={3: 3.0}))
    labels = [row for row in rows if row["name"].startswith("decode[")]
    for number, row in enumerate(labels):
        row["args"] = {"External id": 1000 + number}
        if number >= 3:
            note = {**row, "cat": "gpu_user_annotation", "ts": row["ts"] + 2000, "dur": 500.0, "pid": 0, "tid": 7}
            rows.append(note)
    path = directory / "rank_0" / NAME
    path.parent.mkdir(parents=True)
    path.write_bytes(gzip.compress(json.dumps({"traceEvents": rows}).encode()))
    return directory


def test_first_shows_what_parse_trace_picks_beside_the_median(atomtrace: Callable[..., Result], tmp_path: Path) -> None:
    traces = annotated(tmp_path)
    first = atomtrace("steps", traces, "--first", "--json").json["first"]
    assert (first["step"], first["window_ns"], first["gpu_busy_ns"]) == (4, 500_000, 360_000)
    assert (first["median_steps"], first["median_busy_ns"]) == (33, 120_000)
    text = atomtrace("steps", traces, "--first").out
    assert "+200.0 %" in text
    assert "ATOM's choice" in text


def test_first_without_annotations_says_that_parse_trace_gives_up(
    atomtrace: Callable[..., Result], tmp_path: Path
) -> None:
    traces = write_ranks(tmp_path, Recipe())
    assert atomtrace("steps", traces, "--first", "--json").json["first"]["window_ns"] is None
    assert "parse_trace.py would stop with an error" in atomtrace("steps", traces, "--first").out


def test_a_real_decode_is_one_row(atomtrace: Callable[..., Result], real: Path) -> None:
    (row,) = atomtrace("steps", real / "vllm_gpt-oss_decode_graph.json.gz", "--json").json["rows"]
    assert (row["kind"], row["kernels"], row["graph_launches"], row["edge"]) == ("decode", 425, 1, True)
