"""`atomtrace summary` and `atomtrace health`."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.traces import NAME, Recipe, write_ranks

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Result


def test_both_clocks_of_every_phase_are_named(atomtrace: Callable[..., Result], tmp_path: Path) -> None:
    result = atomtrace("summary", write_ranks(tmp_path, Recipe(slow={20: 2.0})))
    lines = result.out.splitlines()
    decode = next(number for number, line in enumerate(lines) if line.startswith("decode "))
    # 40 steps of 12 kernels of 10 us, one of them twice as slow; the host label is 50 us.
    decode_row, host_row = (" ".join(line.split()) for line in lines[decode : decode + 2])
    assert decode_row == "decode 40 4 12 GPU busy 123.0 us 120.0 us 120.0 us 240.0 us 4.920 ms"
    assert host_row == "host label 50.00 us 50.00 us 50.00 us 50.00 us 2.000 ms"
    prefill = atomtrace("summary", tmp_path, "--json").json["phases"][0]
    assert (prefill["kind"], prefill["gpu_busy"]["total_ns"]) == ("prefill", 360_000)


def test_families_and_kernels_have_calls_per_steady_step(atomtrace: Callable[..., Result], tmp_path: Path) -> None:
    document = atomtrace("summary", write_ranks(tmp_path, Recipe(layers=3)), "--json").json
    assert (document["main"], document["main_steps"], document["main_steady"]) == ("decode", 33, True)
    moe = next(row for row in document["families"] if row["family"] == "moe_gemm")
    assert (moe["names"], moe["calls_per_step_min"], moe["calls_per_step_max"]) == (2, 6, 6)
    assert moe["time_per_step_ns"] == 60_000
    assert moe["share"] == pytest.approx(2 / 3)


def test_the_slowest_rank_is_shown_and_named(atomtrace: Callable[..., Result], tmp_path: Path) -> None:
    traces = write_ranks(tmp_path, Recipe(), Recipe(duration_us=11.0), Recipe())
    result = atomtrace("summary", traces)
    assert "Phases on rank_1" in result.out
    assert "+10.0 %" in next(line for line in result.out.splitlines() if line.startswith("rank_1"))
    assert "Phases on rank_2" in atomtrace("summary", traces, "--rank", "rank_2").out


def test_a_trace_without_labels_says_so_and_where_to_go(atomtrace: Callable[..., Result], tmp_path: Path) -> None:
    result = atomtrace("summary", write_ranks(tmp_path, Recipe(labels=False)))
    assert result.code == 0
    assert "No step label" in result.out
    assert f"atomtrace kernels {tmp_path}" in " ".join(result.out.split())


def with_drafts(directory: Path, steps: int = 30, slow_first_us: float = 3.0) -> Path:
    """Decodes of one kernel, each followed by two drafts; the first draft is the slower one."""
    rows: list[dict[str, Any]] = []

    def add(name: str, cat: str, ts: float, dur: float, **args: object) -> None:
        rows.append({"ph": "X", "cat": cat, "name": name, "pid": 1, "tid": 7, "ts": ts, "dur": dur, "args": args})

    correlation = 0
    for step in range(steps):
        for place, (label, took) in enumerate(
            [
                ("decode[bs=4 tok=12 d=4 spec=2]", 100.0),
                ("draft[0/2 bs=4]", 20.0 + slow_first_us),
                ("draft[1/2 bs=4]", 20.0),
            ]
        ):
            at = 1000.0 + 300 * step + 60 * place
            correlation += 1
            add(label, "user_annotation", at, 50.0)
            add("hipGraphLaunch", "cuda_runtime", at + 5, 20.0, correlation=correlation)
            add(
                f"kernel_{label[:5]}",
                "kernel",
                5000 + 300 * step + 110 * place,
                took,
                stream=1,
                correlation=correlation,
            )
    path = directory / "rank_0" / NAME
    path.parent.mkdir(parents=True)
    path.write_bytes(gzip.compress(json.dumps({"traceEvents": rows}).encode()))
    return directory


def test_drafts_have_a_row_a_place_and_iterations_hold_them(atomtrace: Callable[..., Result], tmp_path: Path) -> None:
    traces = with_drafts(tmp_path)
    document = atomtrace("summary", traces, "--json").json
    drafts = [(row["position"], row["steps"], row["gpu_busy"]["mean_ns"]) for row in document["drafts"]]
    assert drafts == [("draft[0/2]", 30, 23_000), ("draft[1/2]", 30, 20_000)]
    assert [row["slower_than_first_ns"] for row in document["drafts"]] == [0, -3_000]
    found = document["iterations"]
    assert (found["iterations"], found["with_drafts"]) == (30, 30)
    assert found["busy"]["p50_ns"] == 143_000
    assert found["period"]["p50_ns"] == 300_000
    assert found["first"][0]["drafts_busy_ns"] == 43_000
    text = atomtrace("summary", traces).out
    assert "The first draft is the slowest" in text
    assert "Iterations on rank_0: 30 decodes, 30 with drafts" in text


def test_a_sound_trace_may_judge_everything(atomtrace: Callable[..., Result], tmp_path: Path) -> None:
    result = atomtrace("health", write_ranks(tmp_path, Recipe(), Recipe()), "--tp", "2")
    assert result.code == 0
    assert "sound" in result.row("health")
    assert "counts yes, steps yes, times yes, spans yes" in result.out


def test_a_fatal_finding_exits_1_and_is_explained(atomtrace: Callable[..., Result], tmp_path: Path) -> None:
    result = atomtrace("health", write_ranks(tmp_path, Recipe(empty=frozenset({7})), Recipe()))
    assert result.code == 1
    assert "NOT TO BE BELIEVED" in result.out
    assert "H04 empty-steps (fatal for everything)" in result.out
    assert "rank_0: 1 of 41 steps have no GPU activity" in result.out
    assert "->" in result.out
    assert "NOT TO BE BELIEVED: H04" in atomtrace("summary", tmp_path).out


def test_unlabelled_traces_may_still_judge_counts(atomtrace: Callable[..., Result], tmp_path: Path) -> None:
    answers = atomtrace("health", write_ranks(tmp_path, Recipe(labels=False)), "--json").json["answers"]
    assert answers == {"counts": True, "steps": False, "times": False, "spans": False}


def test_a_missing_rank_is_found_against_tp(atomtrace: Callable[..., Result], tmp_path: Path) -> None:
    result = atomtrace("health", write_ranks(tmp_path, Recipe()), "--tp", "2")
    assert result.code == 1
    assert "1 of 2 ranks have no trace: rank_1" in result.out


def test_a_cut_file_is_a_finding_not_an_error(atomtrace: Callable[..., Result], tmp_path: Path) -> None:
    write_ranks(tmp_path, Recipe())
    path = tmp_path / "rank_0" / NAME
    path.write_bytes(path.read_bytes()[:-500])
    result = atomtrace("health", path)
    assert result.code == 1
    assert "H02 truncated (fatal for everything)" in result.out
    assert "the gzip stream ends early" in " ".join(result.out.split())


def test_every_code_has_a_meaning() -> None:
    from pytest_atomtrace.trace.finding import TITLES
    from pytest_atomtrace.verdicts.health_view import MEANINGS

    assert set(TITLES) <= set(MEANINGS)


def a_run(directory: Path) -> Path:
    """Three captures: a sound one, one whose second rank is missing, one that cannot be read."""
    for slug, ranks in (("model-a", ["rank_0"]), ("model-b", ["rank_0", "rank_1"]), ("model-c", ["rank_0"])):
        place = write_ranks(directory / "captures" / slug / "1", Recipe())
        files = {rank: {"file": f"{rank}/{NAME}"} for rank in ranks}
        manifest = {"schema": 1, "slug": slug, "engine": "atom", "ranks": files, "expected_ranks": ranks}
        (place / "manifest.json").write_text(json.dumps(manifest))
    (directory / "captures" / "model-c" / "1" / "rank_0" / NAME).write_bytes(b"no gzip")
    return directory


def test_a_run_is_summed_up_with_a_row_for_each_capture(atomtrace: Callable[..., Result], tmp_path: Path) -> None:
    run = a_run(tmp_path)
    result = atomtrace("summary", run, width=80)
    assert result.code == 0
    assert f"3 captures in {run}" in result.out
    assert "#2 captures/model-b/1" in result.out
    assert result.row("#1  ") == ["#1", "atom", "1", "33", "steady", "decode", "120.0", "us", "120.0", "us", "sound"]
    assert "H01" in " ".join(result.row("#2  "))
    assert "unreadable" in " ".join(result.row("#3  "))
    assert f"atomtrace summary {run}/captures/model-a/1" in result.out
    rows = atomtrace("summary", run, "--json").json["captures"]
    assert [(row["slug"], row["main_p50_ns"]) for row in rows] == [
        ("model-a", 120_000),
        ("model-b", 120_000),
        ("model-c", None),
    ]


def test_the_command_that_a_runs_summary_prints_shows_that_capture(
    atomtrace: Callable[..., Result], tmp_path: Path
) -> None:
    printed = atomtrace("summary", a_run(tmp_path)).row("one of them:")[-3:]
    assert f"{printed[2]}" in atomtrace(*printed[1:]).row("trace")
    refused = atomtrace("summary", tmp_path, "--rank", "rank_0")
    assert refused.code == 2
    assert "name one of them" in refused.err


def test_real_decode_figures(atomtrace: Callable[..., Result], real: Path) -> None:
    document = atomtrace("summary", real / "sglang_qwen3-8b_decode_graph.json.gz", "--json").json
    (phase,) = document["phases"]
    assert (phase["kind"], phase["steps"], phase["bs_max"], phase["kernels_max"]) == ("decode", 1, 32, 550)
    # 555 kernels are in the file, 5 of them launched outside the label; the sum of all is 9,765.437 us.
    assert 9_000_000 < phase["gpu_busy"]["p50_ns"] <= 9_765_437
    assert sum(row["share"] for row in document["kernels"]) == pytest.approx(1)
    assert document["gpu"] == "AMD Instinct MI300X"
