"""`atomtrace kernels`, as checks print it: with --during, --match and --per-step."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import pytest

from pytest_atomtrace import load_trace
from tests.traces import Recipe, write_ranks

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Result


def test_the_command_that_a_failed_check_prints_shows_its_evidence(
    atomtrace: Callable[..., Result], tmp_path: Path
) -> None:
    traces = write_ranks(tmp_path, Recipe(extra=("tail",)), Recipe(extra=("tail",), replaced={17: "tail"}))
    with pytest.raises(AssertionError) as caught:
        load_trace(traces).assert_kernel_called("tail", during="decode", per_step=1)
    printed = next(line for line in str(caught.value).splitlines() if "atomtrace kernels" in line)
    words = shlex.split(printed.partition("atomtrace ")[2])
    result = atomtrace(*words)
    assert result.code == 0
    # 40 + 39 calls; the step without one shows as the smallest number.
    assert result.row("tail")[:4] == ["tail", "unclassified", "79", "0..1"]
    assert "66 steady decode steps" in result.out


def test_calls_per_step_and_shares_name_what_they_are_of(atomtrace: Callable[..., Result], tmp_path: Path) -> None:
    traces = write_ranks(tmp_path, Recipe(), Recipe())
    document = atomtrace("kernels", traces, "--during", "decode", "--match", "mfma_moe1*", "--per-step", "--json").json
    (row,) = document["rows"]
    assert (row["calls"], row["calls_per_step_min"], row["calls_per_step_max"]) == (320, 4, 4)
    assert (row["total_ns"], row["mean_ns"], document["whole_ns"]) == (3_200_000, 10_000, 9_600_000)
    assert row["share"] == pytest.approx(1 / 3)
    assert row["by_rank"] == {"rank_0": 160, "rank_1": 160}
    assert row["by_phase"] == {"decode": 320}
    text = atomtrace("kernels", traces, "--during", "decode").out
    assert "Shares are of 9.600 ms, the summed durations of all GPU activities during decode on 2 ranks" in text


def test_nothing_found_lists_nearest_names_and_exits_1(atomtrace: Callable[..., Result], tmp_path: Path) -> None:
    result = atomtrace("kernels", write_ranks(tmp_path, Recipe()), "--match", "moe_forward_x", "--during", "decode")
    assert result.code == 1
    assert "Nothing matches moe_forward_x among GPU activities during decode on rank_0." in result.out
    assert "aiter::moe_forward  (op: prefill 4)" in result.out


def test_ops_have_calls_and_no_time(atomtrace: Callable[..., Result], tmp_path: Path) -> None:
    traces = write_ranks(tmp_path, Recipe())
    (row,) = atomtrace("kernels", traces, "--layer", "op", "--match", "moe_forward", "--json").json["rows"]
    assert (row["name"], row["calls"], row["total_ns"], row["by_phase"]) == (
        "aiter::moe_forward",
        4,
        None,
        {"prefill": 4},
    )


def test_one_rank_can_be_asked_and_all_ranks_need_not_be_read(atomtrace: Callable[..., Result], tmp_path: Path) -> None:
    traces = write_ranks(tmp_path, Recipe(), Recipe(renamed={"attention_kernel": "other_kernel"}))
    names = {row["name"] for row in atomtrace("kernels", traces, "--rank", "rank_1", "--json").json["rows"]}
    assert names == {"other_kernel", "mfma_moe1_a_t32", "mfma_moe2_a_t32"}


def test_a_kernel_of_one_rank_only_has_zero_as_its_smallest_count(
    atomtrace: Callable[..., Result], tmp_path: Path
) -> None:
    traces = write_ranks(tmp_path, Recipe(), Recipe(extra=("lonely",)))
    (row,) = atomtrace("kernels", traces, "--match", "lonely", "--per-step", "--json").json["rows"]
    assert (row["calls_per_step_min"], row["calls_per_step_max"]) == (0, 1)


def test_limit_cuts_rows_and_says_so(atomtrace: Callable[..., Result], tmp_path: Path) -> None:
    traces = write_ranks(tmp_path, Recipe())
    assert "1 of 3 names shown" in atomtrace("kernels", traces, "--limit", "1").out
    assert "names shown" not in atomtrace("kernels", traces, "--limit", "0").out


def test_iterations_count_what_no_label_holds(atomtrace: Callable[..., Result], real: Path) -> None:
    # Sampling lies behind the decode label, so it is counted from label to label.
    path = real / "sglang_qwen3-8b_decode_graph.json.gz"
    result = atomtrace("kernels", path, "--during", "sample", "--per-step")
    assert result.code == 0
    assert "1 decode iteration." in result.out


def test_real_totals_are_those_of_a_plain_sum(atomtrace: Callable[..., Result], real: Path) -> None:
    document = atomtrace("kernels", real / "vllm_gpt-oss_decode_graph.json.gz", "--layer", "kernel", "--json").json
    assert (document["calls"], document["total_ns"], len(document["rows"])) == (425, 10_674_517, 24)


def test_a_family_can_be_asked_for(atomtrace: Callable[..., Result], tmp_path: Path) -> None:
    traces = write_ranks(tmp_path, Recipe())
    document = atomtrace("kernels", traces, "--match", "family:moe_gemm", "--during", "decode", "--json").json
    assert {row["name"] for row in document["rows"]} == {"mfma_moe1_a_t32", "mfma_moe2_a_t32"}
    assert document["total_ns"] / document["whole_ns"] == pytest.approx(2 / 3)
    none = atomtrace("kernels", traces, "--match", "family:norm")
    assert none.code == 1
    assert "family:moe_gemm" in none.out
    assert "did you mean 'norm'?" in atomtrace("kernels", traces, "--match", "family:norms").err
