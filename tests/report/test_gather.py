"""What is gathered for a case is what its trace holds, and a capture that cannot be read says why."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_atomtrace.report.gather_steps import MOST_STEPS
from tests.report.pages import CASE, capture, check, detailed, document, row, write_baseline
from tests.traces import Recipe

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_atomtrace.report.detail import CaseDetail

# 12 kernels of 10 us a decode step; step 20 of rank_1 takes three times as long.
USUAL, ODD = Recipe(), Recipe(duration_us=11.0, slow={20: 3.0})


@pytest.fixture
def detail(tmp_path: Path) -> CaseDetail:
    return detailed(document(row(capture(tmp_path / "1", USUAL, ODD))), tmp_path).details[0]


def test_series_hold_every_step_of_every_rank_with_its_busy_time(detail: CaseDetail) -> None:
    decode = {one.rank: one for one in detail.series if one.kind == "decode"}
    assert list(decode) == ["rank_0", "rank_1"]
    assert decode["rank_0"].gpu_busy_ns == (120_000,) * 40
    assert decode["rank_1"].gpu_busy_ns[20] == 396_000
    assert set(decode["rank_1"].bs) == {4}
    assert sum(decode["rank_0"].steady) == 33
    assert [one.kind for one in detail.series if one.rank == "rank_0"] == ["prefill", "decode"]


def test_quantiles_are_of_steady_steps_and_say_which_are_firm(detail: CaseDetail) -> None:
    one = next(one for one in detail.distributions if (one.kind, one.rank) == ("decode", "rank_1"))
    assert (one.steps, one.p50_ns, one.max_ns) == (33, 132_000, 396_000)
    assert one.is_steady
    assert one.firm == ("p50", "mean", "max")
    assert sum(one.counts) == 33
    place = (132_000 - one.low_ns) // one.width_ns
    assert one.counts[place] == 32


def test_an_outlier_does_not_squeeze_all_other_steps_into_one_bin(tmp_path: Path) -> None:
    spread = {step: 1 + step / 1000 for step in range(300)}
    recipe = Recipe(decode_steps=300, slow={**spread, 200: 100.0})
    found = detailed(document(row(capture(tmp_path / "1", recipe))), tmp_path).details[0]
    one = next(one for one in found.distributions if one.kind == "decode")
    assert sum(count > 0 for count in one.counts) > 15
    assert one.counts[-1] >= 1


def test_the_median_step_is_of_the_slowest_rank_and_the_worst_step_of_any(detail: CaseDetail) -> None:
    median, worst = detail.timelines
    assert (median.which, median.rank, median.gpu_busy_ns) == ("median", "rank_1", 132_000)
    assert (worst.which, worst.rank, worst.gpu_busy_ns) == ("worst", "rank_1", 396_000)
    assert worst.label == "decode[bs=4 tok=4 d=4]"
    assert (worst.kernels, len(worst.lanes)) == (12, 1)
    lane = worst.lanes[0]
    assert [worst.names[name] for name in lane.name[:3]] == [
        "attention_kernel",
        "mfma_moe1_a_t32",
        "mfma_moe2_a_t32",
    ]
    assert lane.call[:4] == (0, 0, 0, 1)
    assert lane.dur_ns == (33_000,) * 12
    assert worst.end_ns - worst.begin_ns == 396_000


def test_the_worst_step_is_told_apart_kernel_by_kernel(tmp_path: Path) -> None:
    recipe = Recipe(replaced={15: "attention_kernel"}, slow={15: 2.0})
    found = detailed(document(row(capture(tmp_path / "1", recipe, USUAL))), tmp_path).details[0]
    assert found.contrast_rank == "rank_0"
    by_name = {one.name: one for one in found.contrast}
    assert by_name["mfma_moe1_a_t32"].delta_ns == 40_000
    assert (by_name["stand_in_kernel"].median_calls, by_name["stand_in_kernel"].worst_calls) == (0, 1)


def test_kernels_and_families_are_per_step(detail: CaseDetail) -> None:
    assert (detail.main, detail.focus, detail.main_steps, detail.main_is_steady) == ("decode", "rank_1", 33, True)
    assert {one.calls_min for one in detail.kernels} == {one.calls_max for one in detail.kernels} == {4}
    families = {one.family: one for one in detail.families}
    assert families["moe_gemm"].calls_max == 8
    assert sum(one.share for one in detail.families) == pytest.approx(1.0)


def test_a_trace_without_steps_still_lists_its_kernels(tmp_path: Path) -> None:
    found = detailed(document(row(capture(tmp_path / "1", Recipe(labels=False)))), tmp_path).details[0]
    assert (found.problem, found.main, found.series, found.timelines) == ("", "", (), ())
    assert sum(one.calls_max for one in found.kernels) == 12 * 41
    assert [one.code for one in found.health if one.fatal] == ["H07"]


def test_budgets_come_from_what_checks_judged_the_tightest_first(tmp_path: Path) -> None:
    roomy = {"kind": "decode", "metric": "gpu_busy", "p50_ns": 120_000, "p50_budget_ns": 240_000}
    tight = {"kind": "decode", "metric": "gpu_busy", "p50_ns": 120_000, "p50_budget_ns": 100_000, "rank": "rank_1"}
    plain = document(row(), checks=(check("over", facts=tight),), passed=(check("fine", outcome="pass", facts=roomy),))
    first, second = detailed(plain, tmp_path).details[0].budgets
    assert (first.limit_ns, first.measured_ns, first.outcome, first.rank) == (100_000, 120_000, "fail", "rank_1")
    assert (second.limit_ns, second.outcome, second.used) == (240_000, "pass", 0.5)


def test_a_long_series_keeps_its_extremes_and_says_what_is_left_out(tmp_path: Path) -> None:
    steps = MOST_STEPS + 1_000
    recipe = Recipe(decode_steps=steps, layers=1, slow={777: 9.0, 3_333: 0.1})
    one = next(
        one
        for one in detailed(document(row(capture(tmp_path / "1", recipe))), tmp_path).details[0].series
        if one.kind == "decode"
    )
    assert len(one.step) + one.left_out == steps
    assert len(one.step) <= MOST_STEPS
    assert (max(one.gpu_busy_ns), min(one.gpu_busy_ns)) == (270_000, 3_000)
    assert list(one.step) == sorted(one.step)


@pytest.mark.parametrize(
    ("directory", "outcome", "said"),
    [
        ("", "infra", "There is no capture of this case: it failed before there was one."),
        ("", "skip", "There is no capture of this case: its checks were skipped."),
        ("gone", "fail", "The capture cannot be read: "),
    ],
    ids=["failed capture", "skipped", "deleted"],
)
def test_a_case_without_a_readable_capture_says_why(tmp_path: Path, directory: str, outcome: str, said: str) -> None:
    place = str(tmp_path / directory) if directory else ""
    found = detailed(document(row(place, outcome=outcome)), tmp_path).details[0]
    assert found.problem.startswith(said)
    assert found.commands
    assert found.series == ()


def test_a_damaged_manifest_or_trace_is_a_sentence_and_not_an_exception(tmp_path: Path) -> None:
    broken = capture(tmp_path / "1", USUAL)
    next(broken.glob("rank_0/*.gz")).write_bytes(b"no gzip")
    strange = capture(tmp_path / "2", USUAL, schema=99)
    problems = [one.problem for one in detailed(document(row(broken), row(strange)), tmp_path).details]
    assert "is not JSON" in problems[0]
    assert "schema 99" in problems[1]


def test_the_baseline_gives_a_band_a_limit_and_what_changed(tmp_path: Path) -> None:
    place = capture(tmp_path / "1", USUAL, Recipe(times={"mfma_moe1_a_t32": 5.0}))
    write_baseline(tmp_path, place)
    found = detailed(document(row(place)), tmp_path).details[0].baseline
    assert found is not None
    assert found.problem == ""
    band = found.bands[0]
    assert (band.metric, band.low_ns, band.mean_ns, band.high_ns) == ("decode.gpu_busy", 118_000, 120_000, 122_000)
    assert (band.now_ns, band.result, band.launches) == (280_000, "regression", 5)
    assert band.mean_ns < band.limit_ns < band.now_ns
    assert [(one.sort, one.after, one.ranks) for one in found.changes] == [("grew", ("mfma_moe1_a_t32",), ())]
    assert found.changes[0].delta_ns == 160_000


def test_a_baseline_of_other_hardware_is_not_compared(tmp_path: Path) -> None:
    place = capture(tmp_path / "1", USUAL, USUAL)
    (tmp_path / "baselines" / "gfx950").mkdir(parents=True)
    (tmp_path / "baselines" / "gfx950" / f"{CASE.slug}.json").write_text("{}")
    found = detailed(document(row(place)), tmp_path).details[0].baseline
    assert found is not None
    assert "There is a baseline for gfx950" in found.problem
    assert found.bands == ()


@pytest.mark.parametrize(
    ("keep", "outcome", "there"),
    [("all", "pass", True), ("failed", "pass", False), ("failed", "fail", True), ("none", "fail", False)],
)
def test_commands_on_a_capture_that_does_not_stay_are_not_shown(keep: str, outcome: str, *, there: bool) -> None:
    from pytest_atomtrace.report.gather_facts import commands_of

    found = [one.line for one in commands_of(row("/x/runs/r1/captures/c/1", outcome=outcome), keep)]
    assert any(line.startswith("pytest -k ") for line in found)
    assert any("--atom-replay" in line for line in found) == there
