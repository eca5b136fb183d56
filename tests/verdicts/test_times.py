"""Time budgets on small traces with known times."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_atomtrace import ConfigError, InsufficientStepsError, Timing, Trace, load_trace
from tests.traces import LAYERS, Recipe, write_ranks

if TYPE_CHECKING:
    from pathlib import Path

STEP_US = 3 * LAYERS * 10


def trace_of(tmp_path: Path, *recipes: Recipe) -> Trace:
    return load_trace(write_ranks(tmp_path / "traces", *recipes))


def test_a_step_within_its_budget_passes(tmp_path: Path) -> None:
    trace = trace_of(tmp_path, Recipe())
    trace.assert_step_time("decode", p50=f"{STEP_US} us")
    assert trace.decode.steady().gpu_busy.p50_ns == STEP_US * 1000


def test_an_exceeded_budget_says_where_by_how_much_and_which_kernels(tmp_path: Path) -> None:
    trace = trace_of(tmp_path, Recipe(), Recipe(duration_us=12.0))
    with pytest.raises(AssertionError) as caught:
        trace.assert_step_time("decode", p50=f"{STEP_US} us")
    text = str(caught.value)
    assert text.splitlines()[0] == (
        "decode p50 is 144.0 us on rank_1, over the budget of 120.0 us by 20.0 % (24.00 us); gpu_busy, 33 steady steps."
    )
    assert "rank_0: p50 120.0 us" in text
    assert "4 x mfma_moe1_a_t32" in text


def test_warm_up_steps_and_the_end_do_not_count(tmp_path: Path) -> None:
    slow = dict.fromkeys([0, 1, 2, 3, 4, 38, 39], 9.0)
    trace_of(tmp_path, Recipe(slow=slow)).assert_step_time("decode", max=f"{STEP_US} us")


def test_one_slow_steady_step_moves_the_maximum_only(tmp_path: Path) -> None:
    trace = trace_of(tmp_path, Recipe(slow={20: 3.0}))
    trace.assert_step_time("decode", p50=f"{STEP_US} us")
    with pytest.raises(AssertionError, match=r"slowest +step 21"):
        trace.assert_step_time("decode", max=f"{STEP_US} us")


@pytest.mark.parametrize(("budget", "steps", "need"), [("p50", 26, 20), ("p90", 56, 50), ("p99", 206, 200)])
def test_a_quantile_needs_enough_steady_steps(tmp_path: Path, budget: str, steps: int, need: int) -> None:
    few = trace_of(tmp_path / "few", Recipe(decode_steps=steps))
    with pytest.raises(InsufficientStepsError, match=f"needs {need} steady steps, the trace has {need - 1}"):
        few.assert_step_time("decode", **{budget: "1 s"})  # type: ignore[arg-type]  # the name of the statistic is the parameter
    enough = trace_of(tmp_path / "enough", Recipe(decode_steps=steps + 1))
    enough.assert_step_time("decode", **{budget: "1 s"})  # type: ignore[arg-type]  # the name of the statistic is the parameter


@pytest.mark.parametrize("text", ["9.5", 9.5, "9.5 m", "9.5 ms or so", "0 ms", "-1 ms", ""])
def test_budgets_need_a_unit(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="p50"):
        trace_of(tmp_path, Recipe()).assert_step_time("decode", p50=text)


def test_a_budget_without_any_limit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no budget given"):
        trace_of(tmp_path, Recipe()).assert_step_time("decode")


def test_an_unknown_metric_gets_a_suggestion(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'gpu_busy'"):
        trace_of(tmp_path, Recipe()).assert_step_time("decode", p50="1 s", metric="gpu_bussy")


@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=200), st.floats(0.001, 1.0))
def test_quantiles_are_values_that_were_measured(values: list[int], q: float) -> None:
    timing = Timing(tuple(values))
    quantile = timing.quantile_ns(q)
    assert quantile in values
    assert sum(v <= quantile for v in values) >= q * len(values) - 1e-6
    assert sum(v < quantile for v in values) < q * len(values) + 1e-6


def test_quantiles_of_a_hundred_steps_are_the_expected_ones() -> None:
    timing = Timing(tuple(range(1, 101)))
    assert (timing.p50_ns, timing.p90_ns, timing.p99_ns, timing.max_ns) == (50, 90, 99, 100)
