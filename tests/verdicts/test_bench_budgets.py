"""Budgets on what the client saw, and shapes that nobody tuned."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_atomtrace import ConfigError, InconclusiveError, Trace
from pytest_atomtrace.settings import Settings
from pytest_atomtrace.trace.load import load
from pytest_atomtrace.units import format_duration
from pytest_atomtrace.verdicts.bench import bench_of
from pytest_atomtrace.verdicts.bench_budgets import parse_limits
from pytest_atomtrace.verdicts.tuned import untuned_shapes
from tests.traces import Recipe, write_ranks
from tests.verdicts.launches import CASE

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_atomtrace.verdicts.outcome import Verdict

HONEST = {
    "workload": "builtin",
    "requests": 64,
    "completed": 64,
    "output_tokens": 8192,
    "output_tokens_per_s": 1500.0,
    "ttft_ms": {"mean": 500.0, "p50": 450.0, "p99": 1200.0},
    "tpot_ms": {"mean": 10.0, "p50": 10.0, "p99": 12.0},
    "itl_ms": {"mean": 10.0, "p50": 10.0, "p99": 30.0},
    "acceptance": {"rate": 0.65, "length": 2.95, "draft_tokens": 3000, "accepted_tokens": 1950},
}
PROFILED = {**HONEST, "tpot_ms": {"mean": 20.0, "p50": 20.0, "p99": 24.0}}


@pytest.fixture
def verdicts() -> list[Verdict]:
    return []


@pytest.fixture
def data(tmp_path: Path) -> Any:
    return load(write_ranks(tmp_path / "traces", Recipe(), Recipe()))


def trace_of(data: Any, verdicts: list[Verdict], bench: dict[str, object], **more: Any) -> Trace:
    return Trace(data, case=CASE, bench=bench, record=verdicts.append, **more)


def test_budgets_are_judged_on_the_pass_without_the_profiler(data: Any, verdicts: list[Verdict]) -> None:
    trace = trace_of(data, verdicts, {**PROFILED, "unprofiled": HONEST})
    trace.assert_bench(
        ttft={"p50": "500 ms", "p99": "1.2 s"}, tpot="10 ms", itl="12 ms", throughput="1,500 tok/s",
        completed="100 %", acceptance="65 %",
    )  # fmt: skip
    trace.assert_bench(acceptance="2.9 tok/fwd")
    assert [verdict.outcome.value for verdict in verdicts] == ["pass", "pass"]
    assert verdicts[0].facts["mean_tpot"] == 10_000_000
    assert verdicts[0].facts["profiled"] is False


@pytest.mark.parametrize(
    ("budgets", "sentence"),
    [
        ({"tpot": "9.5 ms"}, "The workload misses its budget: mean tpot 10.00 ms (wanted <= 9.500 ms)."),
        ({"ttft": {"p99": "1 s"}}, "The workload misses its budget: p99 ttft 1.200 s (wanted <= 1.000 s)."),
        ({"throughput": "1501 tok/s"}, "misses its budget: throughput 1,500.0 tok/s (wanted >= 1501 tok/s)."),
        ({"acceptance": "70 %"}, "misses its budget: acceptance rate 65.0 % (wanted >= 70 %)."),
        ({"acceptance": "3 tok/fwd"}, "misses its budget: acceptance length 2.95 tok/fwd (wanted >= 3 tok/fwd)."),
        ({"tpot": "9 ms", "itl": "9 ms"}, "and 1 more."),
    ],
)
def test_a_missed_budget_says_which_by_what_and_shows_all_figures(
    data: Any, verdicts: list[Verdict], budgets: dict[str, Any], sentence: str
) -> None:
    trace = trace_of(data, verdicts, {**PROFILED, "unprofiled": HONEST})
    with pytest.raises(AssertionError) as failed:
        trace.assert_bench(**budgets)
    assert sentence in str(failed.value).splitlines()[0]
    assert "64 of 64 requests, 8,192 tokens, without the profiler" in str(failed.value)
    assert verdicts[-1].outcome.value == "fail"


def test_times_under_the_profiler_are_no_answer_and_counts_are(data: Any, verdicts: list[Verdict]) -> None:
    trace = trace_of(data, verdicts, PROFILED)
    trace.assert_bench(completed="100 %", acceptance="60 %")
    for budget in ({"tpot": "1 s"}, {"throughput": "1 tok/s"}):
        with pytest.raises(InconclusiveError, match="--atom-bench=on"):
            trace.assert_bench(**budget)


def test_what_the_workload_does_not_tell_is_no_answer(data: Any, verdicts: list[Verdict]) -> None:
    without = {key: value for key, value in HONEST.items() if key != "acceptance"}
    trace = trace_of(data, verdicts, {"unprofiled": without, **without})
    with pytest.raises(InconclusiveError, match="drafts nothing"):
        trace.assert_bench(acceptance="1 %")
    with pytest.raises(InconclusiveError, match="e2el: its client did not measure it"):
        trace.assert_bench(e2el="1 s")
    with pytest.raises(InconclusiveError, match=r"bench\.json"):
        trace_of(data, verdicts, {}).assert_bench(completed="100 %")
    some = {**HONEST, "completed": 60}
    with pytest.raises(InconclusiveError, match="4 of 64 requests failed"):
        trace_of(data, verdicts, {**PROFILED, "unprofiled": some}).assert_bench(tpot="1 s")
    with pytest.raises(AssertionError, match=r"completed 93\.8 %"):
        trace_of(data, verdicts, {**PROFILED, "unprofiled": some}).assert_bench(completed="100 %")


@pytest.mark.parametrize(
    ("budgets", "problem"),
    [
        ({}, "no budget given"),
        ({"tpot": "12"}, 'write "12 ms"'),
        ({"tpot": {}}, "no statistic"),
        ({"tpot": {"p42": "1 ms"}}, "'p42' is not one of mean, p50, p99"),
        ({"throughput": "1500"}, "is not a throughput like"),
        ({"completed": "64"}, "is not a share"),
        ({"acceptance": 2.8}, "is not a share"),
        ({"speed": "1 ms"}, "is no figure of the workload"),
    ],
)
def test_a_budget_without_its_unit_is_refused_with_the_form(budgets: dict[str, object], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        parse_limits(budgets)


@given(ns=st.integers(1, 10**12))
def test_a_duration_budget_is_read_as_it_is_written(ns: int) -> None:
    [limit] = parse_limits({"tpot": f"{ns} ns"})
    assert (limit.value, limit.text, limit.name) == (ns, f"<= {format_duration(ns)}", "mean tpot")


def test_figures_of_either_client_have_the_same_names() -> None:
    assert bench_of({}) is None
    bench = bench_of({**PROFILED, "unprofiled": HONEST})
    assert bench is not None
    assert bench.tpot is not None
    assert (bench.profiled, bench.tpot.p99_ns, bench.acceptance_length) == (False, 12_000_000, 2.95)
    assert bench.e2el is None


# Tuned shapes

LOG = {
    "untuned": [{"op": "bf16", "m": 64, "n": 512, "k": 7168, "lines": 8, "in_window": False}],
    "moe_defaults": [{"stages": "2", "shape": "(256, 64)", "lines": 8, "in_window": False}],
}
SHAPES = ("bf16 M=64 N=512 K=7168", "fused_moe 2stage (256, 64)")


def test_untuned_shapes_fail_by_op_and_size(data: Any, verdicts: list[Verdict]) -> None:
    trace_of(data, verdicts, {}, manifest={"log": {"untuned": [], "moe_defaults": []}}).assert_tuned()
    assert untuned_shapes({"log": LOG}) == SHAPES
    with pytest.raises(AssertionError) as failed:
        trace_of(data, verdicts, {}, manifest={"log": LOG}).assert_tuned()
    first, *lines = str(failed.value).splitlines()
    assert first == "2 shapes have no tuned config."
    assert lines[0].split(None, 1)[1] == SHAPES[0]
    assert [verdict.outcome.value for verdict in verdicts] == ["pass", "fail"]


def test_without_a_server_log_nothing_can_be_said(data: Any, verdicts: list[Verdict]) -> None:
    with pytest.raises(InconclusiveError, match="no server log was read"):
        trace_of(data, verdicts, {}).assert_tuned()


def test_what_the_baseline_lists_is_known(data: Any, verdicts: list[Verdict], tmp_path: Path) -> None:
    settings = Settings(baselines=str(tmp_path / "baselines"))
    trace = trace_of(data, verdicts, {}, manifest={"log": LOG}, settings=settings)
    with pytest.raises(AssertionError):
        trace.assert_tuned()
    path = next(iter(_record(trace, tmp_path / "baselines")))
    assert json.loads(path.read_text())["untuned"] == list(SHAPES)
    trace.assert_tuned()
    assert "2 untuned shapes are in the baseline" in verdicts[-1].sentence
    more = {**LOG, "untuned": [*LOG["untuned"], {"op": "a8w8", "m": 1, "n": 2, "k": 3}]}
    with pytest.raises(AssertionError, match="1 shape has no tuned config that the baseline has not got"):
        trace_of(data, verdicts, {}, manifest={"log": more}, settings=settings).assert_tuned()


def _record(trace: Trace, root: Path) -> list[Path]:
    from pytest_atomtrace.verdicts.baseline import Baseline
    from pytest_atomtrace.verdicts.baseline_place import baseline_path
    from pytest_atomtrace.verdicts.baseline_reading import read_baseline
    from pytest_atomtrace.verdicts.fingerprint import fingerprint

    now = fingerprint(trace)
    baseline = Baseline(
        case=CASE.slug, simulated=now.simulated, hardware=now.hardware, profiler=now.profiler, model=now.model,
        recorded={}, untuned=SHAPES,
    )  # fmt: skip
    path = baseline_path(root, now, CASE.slug)
    path.parent.mkdir(parents=True)
    path.write_text(baseline.text())
    assert read_baseline(path, case=CASE.slug) == baseline
    return [path]
