"""Order, agreement of ranks, kernel times, occupancy and launch cost on small traces with known numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_atomtrace import Case, ConfigError, InconclusiveError, InsufficientStepsError, Trace, load_trace
from pytest_atomtrace.trace.layout import tp_groups
from tests.traces import LAYERS, PER_LAYER, Recipe, write_ranks

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def trace_of(tmp_path: Path, *recipes: Recipe) -> Trace:
    return load_trace(write_ranks(tmp_path / "traces", *(recipes or (Recipe(), Recipe()))))


def test_an_order_that_repeats_in_every_step_passes(tmp_path: Path) -> None:
    trace = trace_of(tmp_path)
    trace.assert_kernel_order(list(PER_LAYER))
    trace.assert_kernel_order(["mfma_moe1_*", "mfma_moe2_*"])


def test_a_broken_order_shows_the_calls_around_the_place(tmp_path: Path) -> None:
    swapped = {"mfma_moe1_a_t32": "mfma_moe2_a_t32", "mfma_moe2_a_t32": "mfma_moe1_a_t32"}
    trace = trace_of(tmp_path, Recipe(), Recipe(renamed=swapped))
    with pytest.raises(AssertionError) as caught:
        trace.assert_kernel_order(["mfma_moe1_*", "mfma_moe2_*"])
    text = str(caught.value)
    assert text.splitlines()[0] == (
        "The order mfma_moe1_* -> mfma_moe2_* breaks in decode step 6 of rank_1: call 1 of 8 is mfma_moe2_a_t32."
    )
    assert "1  stream 7  mfma_moe2_a_t32  (expected mfma_moe1_*)  <-" in text


def test_an_order_of_a_kernel_that_is_never_called_names_it(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"never +no_such"):
        trace_of(tmp_path).assert_kernel_order(["attention_kernel", "no_such_kernel"])


def test_one_name_is_no_order(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at least two names"):
        trace_of(tmp_path).assert_kernel_order(["attention_kernel"])


def test_equal_ranks_agree(tmp_path: Path) -> None:
    trace_of(tmp_path, Recipe(), Recipe(), Recipe()).assert_ranks_agree(skew="1 %")


def test_a_rank_with_another_kernel_is_named_with_its_peers_count(tmp_path: Path) -> None:
    other = Recipe(renamed={"attention_kernel": "attention_fallback"})
    with pytest.raises(AssertionError) as caught:
        trace_of(tmp_path, Recipe(), other, Recipe()).assert_ranks_agree()
    assert "rank_1 differs from its 2 peers during decode" in str(caught.value)
    assert f"rank_1: attention_kernel 0 a step, others {LAYERS}" in str(caught.value)
    assert f"rank_1: attention_fallback {LAYERS} a step, others 0" in str(caught.value)


def test_a_slower_rank_breaks_the_skew_but_not_the_counts(tmp_path: Path) -> None:
    trace = trace_of(tmp_path, Recipe(), Recipe(), Recipe(duration_us=11.0))
    trace.assert_ranks_agree()
    trace.assert_ranks_agree(skew="11 %")
    with pytest.raises(AssertionError, match=r"rank_2 works 10\.0 % longer per decode step than the middle rank"):
        trace.assert_ranks_agree(skew="5 %")


def test_waiting_in_a_collective_is_not_a_ranks_own_work(tmp_path: Path) -> None:
    collective = "void aiter::cross_device_reduce_2stage<std::bfloat16_t, 8, false>(aiter::RankData*)"
    waiting = Recipe(extra=(collective,))
    trace = trace_of(tmp_path, waiting, waiting, waiting)
    trace.assert_ranks_agree(skew="1 %")


def test_ranks_of_different_engines_are_not_peers() -> None:
    assert tp_groups(["rank_0", "rank_1"]) == {"all": ["rank_0", "rank_1"]}
    assert list(tp_groups(["dp0_tp0", "dp0_tp1", "dp1_tp0"])) == ["dp0", "dp1"]
    assert list(tp_groups(["pp0_rank_0", "pp1_rank_0"])) == ["pp0_", "pp1_"]


def test_a_kernels_time_per_step_and_share(tmp_path: Path) -> None:
    trace = trace_of(tmp_path, Recipe(), Recipe(duration_us=12.0))
    trace.assert_kernel_time("mfma_moe1_*", per_step="48 us", share="34 %")
    with pytest.raises(AssertionError) as caught:
        trace.assert_kernel_time("mfma_moe1_*", per_step="40 us")
    assert str(caught.value).splitlines()[0] == (
        "mfma_moe1_* takes 48.00 us per decode step on rank_1, over the budget of 40.00 us by 20.0 %."
    )
    with pytest.raises(AssertionError, match=r"takes 33\.3 % of a decode step"):
        trace.assert_kernel_time("mfma_moe1_*", share="30 %")


def test_a_familys_time_covers_its_kernels(tmp_path: Path) -> None:
    trace = trace_of(tmp_path)
    trace.assert_kernel_time("family:moe_gemm", per_step=f"{2 * LAYERS * 10} us")
    with pytest.raises(AssertionError, match=r"family:moe_gemm takes 80\.00 us"):
        trace.assert_kernel_time("family:moe_gemm", per_step="79 us")
    with pytest.raises(ConfigError, match="did you mean 'moe_gemm'"):
        trace.assert_kernel_time("family:moe_gem", per_step="1 s")


def test_a_budget_for_a_kernel_that_never_runs_is_no_pass(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="has no call in the steady decode steps"):
        trace_of(tmp_path).assert_kernel_time("no_such_kernel", per_step="1 s")


def test_occupancy_counts_the_time_between_steps(tmp_path: Path) -> None:
    # A step is launched every 400 us and works 120 us: busy 30 % of the run.
    trace = trace_of(tmp_path)
    trace.assert_gpu_busy(at_least="30 %")
    with pytest.raises(AssertionError, match=r"The GPU is busy 3\d\.\d % of the steady decode run on rank_0"):
        trace.assert_gpu_busy(at_least="40 %")


def test_gaps_between_steps_are_counted(tmp_path: Path) -> None:
    trace = trace_of(tmp_path)
    trace.assert_gaps(longer_than="300 us", at_most=0)
    with pytest.raises(AssertionError, match=r"32 gaps longer than 100\.0 us lie in the steady decode run of rank_0"):
        trace.assert_gaps(longer_than="100 us", at_most=5)


def test_the_cost_of_graph_launches(tmp_path: Path) -> None:
    trace = trace_of(tmp_path)
    trace.assert_launch_time(mean="20 us")
    with pytest.raises(AssertionError, match=r"hipGraphLaunch costs 20\.00 us on the host on average on rank_0"):
        trace.assert_launch_time(mean="15 us")
    with pytest.raises(InconclusiveError, match="Launch calls seen: hipGraphLaunch, hipLaunchKernel"):
        trace.assert_launch_time(mean="1 s", api="hipExtLaunchKernel")


def test_iterations_and_periods_need_the_next_label(tmp_path: Path) -> None:
    steady = trace_of(tmp_path, Recipe()).decode.steady()
    assert steady.period.p50_ns == 400_000
    assert steady.iteration.p50_ns == steady.gpu_busy.p50_ns
    assert steady.cpu_span.p50_ns == 50_000


def test_per_token_without_the_workloads_figures_is_inconclusive(tmp_path: Path) -> None:
    with pytest.raises(InconclusiveError, match="per_token needs the tokens gained per step"):
        trace_of(tmp_path, Recipe()).assert_step_time("decode", p50="1 s", metric="per_token")


def test_per_token_divides_by_what_a_sequence_gains(tmp_path: Path) -> None:
    bare = trace_of(tmp_path, Recipe())
    # 4 sequences in 40 steps gain 480 tokens after their first: 3 each step.
    trace = Trace(bare.data, bench={"output_tokens": 484, "completed": 4})
    assert trace.accepted_length == pytest.approx(3.0)
    assert trace.decode.steady().per_token.p50_ns == round(trace.decode.steady().iteration.p50_ns / 3)


def test_prefill_time_per_thousand_tokens_needs_more_steps(tmp_path: Path) -> None:
    with pytest.raises(InsufficientStepsError, match="prefill_per_ktok of prefill needs 4"):
        trace_of(tmp_path, Recipe()).assert_step_time("prefill", mean="1 s", metric="prefill_per_ktok")
    with pytest.raises(ConfigError, match="one figure a window"):
        trace_of(tmp_path, Recipe()).assert_step_time("decode", mean="1 s", metric="prefill_per_ktok")


def test_the_late_rank_is_named_and_not_the_waiting_ones(tmp_path: Path) -> None:
    # rank_2 works 20 us longer before the collective, in which the others then wait for it.
    collective = "void aiter::cross_device_reduce_2stage<std::bfloat16_t, 8, false>(aiter::RankData*)"
    early = Recipe(extra=(collective,), extra_us=30.0)
    late = Recipe(extra=(collective,), extra_us=10.0, duration_us=10.0 + 20.0 / (3 * LAYERS))
    trace = trace_of(tmp_path, early, early, late)
    with pytest.raises(AssertionError) as caught:
        trace.assert_step_time("decode", p50="1 us")
    assert "rank_2 comes last to 100 % of the collectives; per step the others wait for it 20.00 us" in str(
        caught.value
    )


@pytest.mark.parametrize(
    "ask",
    [
        lambda trace: trace.assert_step_time("decode", p50="9 ms"),
        lambda trace: trace.assert_step_time("prefill", mean="9 ms", metric="prefill_per_ktok"),
        lambda trace: trace.assert_kernel_time("attention_kernel", during="decode", share="90 %"),
        lambda trace: trace.assert_gpu_busy("decode", at_least="1 %"),
        lambda trace: trace.assert_gaps(longer_than="1 s", at_most=9),
        lambda trace: trace.assert_launch_time(mean="1 s"),
        lambda trace: trace.assert_ranks_agree(skew="50 %"),
    ],
)
def test_random_weights_have_no_times(tmp_path: Path, ask: Callable[[Trace], None]) -> None:
    trace = trace_of(tmp_path)
    trace.case = Case(model="org/model", tp=2, load_dummy=True)
    with pytest.raises(ConfigError, match=r"load_dummy runs on random weights.*only counts do"):
        ask(trace)


def test_random_weights_have_counts_order_and_agreement(tmp_path: Path) -> None:
    trace = trace_of(tmp_path)
    trace.case = Case(model="org/model", tp=2, load_dummy=True)
    trace.assert_kernel_called("attention_kernel", during="decode", per_step=LAYERS)
    trace.assert_kernel_order(list(PER_LAYER))
    trace.assert_ranks_agree()
