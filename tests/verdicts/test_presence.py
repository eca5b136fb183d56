"""Presence, absence and counts per step on small traces."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pytest_atomtrace import (
    Case,
    ConfigError,
    InconclusiveError,
    InsufficientStepsError,
    NoStepsError,
    Trace,
    load_trace,
)
from pytest_atomtrace.trace.load import load
from tests.trace.builder import Kineto
from tests.traces import LAYERS, Recipe, write_ranks

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def trace_of(tmp_path: Path, *recipes: Recipe) -> Trace:
    return load_trace(write_ranks(tmp_path / "traces", *(recipes or (Recipe(), Recipe()))))


def failure(trace: Trace, name: str, **question: object) -> str:
    with pytest.raises(AssertionError) as caught:
        trace.assert_kernel_called(name, **question)  # type: ignore[arg-type]
    return str(caught.value)


def test_a_kernel_that_every_step_calls_passes(tmp_path: Path) -> None:
    trace = trace_of(tmp_path)
    trace.assert_kernel_called("mfma_moe1_*", during="decode", per_step=LAYERS)
    with pytest.raises(AssertionError):
        trace.assert_kernel_called("mfma_moe1_*", during="decode", per_step=LAYERS + 1)


def test_one_missing_call_names_rank_step_and_counts(tmp_path: Path) -> None:
    trace = trace_of(tmp_path, Recipe(extra=("tail",)), Recipe(extra=("tail",), replaced={17: "tail"}))
    text = failure(trace, "tail", during="decode", per_step=1)
    # Step 0 of the rank is the prefill, so the 17th decode is step 18.
    assert text.splitlines()[0] == (
        "tail is called 0 times in decode step 18 of rank_1, expected 1 in every steady step "
        "(1 of 66 steps differ, on rank_1)."
    )
    assert "rank_1 step 18: decode[bs=4 tok=4 d=4]" in text
    assert "rank_1: 32 steps with 1, 1 step with 0  <-" in text
    assert "--during decode --match 'tail' --per-step" in text


def test_a_substring_never_passes(tmp_path: Path) -> None:
    trace = trace_of(tmp_path, Recipe(extra=("triton_poi_fused_constant_pad_nd_moe_forward_0",)))
    text = failure(trace, "moe_forward", during="decode")
    assert "moe_forward" in text.splitlines()[0]
    trace.assert_kernel_called("*moe_forward*", during="decode")


def test_an_op_captured_in_graphs_is_explained(tmp_path: Path) -> None:
    trace = trace_of(tmp_path)
    trace.assert_kernel_called("aiter::moe_forward", during="prefill")
    sentence = failure(trace, "aiter::moe_forward", during="decode").splitlines()[0]
    assert "ops captured in a graph do not reappear" in sentence
    assert "It was seen as op in prefill (8 calls)" in sentence
    text = failure(trace, "aiter::moe_forward", during="decode")
    assert "launches  attention_kernel, mfma_moe1_a_t32, mfma_moe2_a_t32" in text


def test_absence_of_an_op_from_graphs_is_no_pass(tmp_path: Path) -> None:
    with pytest.raises(InconclusiveError, match="absence there proves nothing"):
        trace_of(tmp_path).assert_kernel_not_called("aiter::moe_forward", during="decode")


def test_a_name_that_is_nowhere_lists_the_nearest(tmp_path: Path) -> None:
    text = failure(trace_of(tmp_path), "mfma_moe1_a_t23")
    assert "nearest" in text
    assert "mfma_moe1_a_t32  (kernel:" in text
    text = failure(trace_of(tmp_path / "tail"), "mfma_moe1_afp8_wfp4")
    assert text.splitlines()[3].strip().startswith("nearest   mfma_moe1_a_t32")


def test_absence_fails_with_where_and_how_often(tmp_path: Path) -> None:
    trace = trace_of(tmp_path, Recipe(extra=("k",)), Recipe(extra=("fallback_gemm_bf16",)))
    with pytest.raises(AssertionError) as caught:
        trace.assert_kernel_not_called("fallback_gemm*", example="fallback_gemm_bf16")
    text = str(caught.value)
    assert text.splitlines()[0] == "fallback_gemm* is called 40 times as kernel on rank_1, expected never."
    assert "rank_1 step 1: decode[" in text


def test_a_pattern_that_misses_its_own_example_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not match its own example"):
        trace_of(tmp_path).assert_kernel_not_called("falback_gemm*", example="fallback_gemm_bf16")


def test_absence_without_example_is_noted_as_unproven(tmp_path: Path) -> None:
    notes: list[str] = []
    bare = trace_of(tmp_path)
    trace = Trace(bare.data, record=lambda verdict: notes.extend(verdict.notes))
    trace.assert_kernel_not_called("falback_gemm*")
    trace.assert_kernel_not_called("fallback_gemm*", example="fallback_gemm_bf16")
    assert len(notes) == 1
    assert notes[0].startswith("unproven")


def test_a_graph_without_reference_that_no_count_looks_at_weakens_nothing(tmp_path: Path) -> None:
    trace = Kineto().decodes(60)
    trace.decode(30_000.0, bs=3)
    trace.write(tmp_path / "rank_0")
    notes: list[str] = []
    seen = Trace(load(tmp_path), record=lambda verdict: notes.extend(verdict.notes))
    assert seen.health == ()
    seen.assert_kernel_called("k0", during="decode", per_step=1)
    assert notes == []


def test_a_count_on_a_step_without_reference_says_so(tmp_path: Path) -> None:
    trace = Kineto().decodes(60)
    trace.label("prefill[bs=1 tok=64]", 31_000.0)
    trace.replay(["a"], 31_010.0)
    trace.decode(32_000.0)
    trace.write(tmp_path / "rank_0")
    notes: list[str] = []
    Trace(load(tmp_path), record=lambda verdict: notes.extend(verdict.notes)).assert_kernel_called(
        "a", during="prefill", per_step=1
    )
    assert ["count not verified" in note for note in notes] == [True]
    notes.clear()
    Trace(load(tmp_path), record=lambda verdict: notes.extend(verdict.notes)).assert_kernel_called(
        "k0", during="decode", per_step=1
    )
    assert notes == []


def test_exact_counts_are_per_rank(tmp_path: Path) -> None:
    trace = trace_of(tmp_path, Recipe(decode_steps=40), Recipe(decode_steps=39))
    trace.assert_kernel_called("attention_kernel", during="decode", exactly=160, ranks="rank_0")
    text = failure(trace, "attention_kernel", during="decode", exactly=160)
    assert "156 times during decode on rank_1, expected exactly 160 (1 of 2 ranks differ)" in text


def test_too_few_steady_steps_are_inconclusive(tmp_path: Path) -> None:
    with pytest.raises(InsufficientStepsError, match="the trace has 0 on rank_0"):
        trace_of(tmp_path, Recipe(decode_steps=7)).assert_kernel_called("*moe1*", during="decode", per_step=4)


def test_a_phase_that_is_none_gets_a_suggestion(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'decode'"):
        trace_of(tmp_path).assert_kernel_called("x", during="decod")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"per_step": 1}, "per_step needs a phase"),
        ({"per_step": 1, "exactly": 2, "during": "decode"}, "exclude each other"),
        ({"layer": "kernels"}, "'kernels' is no layer; did you mean 'kernel'"),
        ({"ranks": "rank_9"}, "there is no rank_9"),
        ({"at_least": -1}, "must be a whole number"),
    ],
)
def test_contradictory_questions_are_refused(tmp_path: Path, arguments: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        trace_of(tmp_path).assert_kernel_called("x", **arguments)  # type: ignore[arg-type]


def test_kernel_tables_count_by_phase_and_rank(tmp_path: Path) -> None:
    table = trace_of(tmp_path).kernels("attention_kernel")
    (row,) = table
    assert row.by_phase == {"prefill": 2 * LAYERS, "decode": 2 * 40 * LAYERS}
    assert row.by_rank == {"rank_0": 41 * LAYERS, "rank_1": 41 * LAYERS}
    assert row.total_ns == 2 * (40 * LAYERS * 10_000 + LAYERS * 30_000)
    assert 0.3 < row.share <= 1.0 or row.share == 1.0


def test_absence_from_steps_that_the_trace_has_not_is_inconclusive(tmp_path: Path) -> None:
    with pytest.raises(NoStepsError, match="The trace has no draft step"):
        trace_of(tmp_path).assert_kernel_not_called("mfma_moe*", during="draft", example="mfma_moe1_x")


MTP = ("--method", "mtp", "--num-speculative-tokens", "3")
NO_PREFILL = Recipe(prefill=False)
LATE: dict[str, object] = {"workload": {"window_steps": 40}}


@pytest.mark.parametrize("limits", [{}, {"exactly": 4}, {"per_step": 4}])
def test_a_call_in_steps_that_the_trace_has_not_is_inconclusive_and_says_why(
    tmp_path: Path, limits: dict[str, Any]
) -> None:
    data = load(write_ranks(tmp_path, NO_PREFILL))
    plain, drafting = Case(model="m"), Case(model="m", server_args=MTP)
    with pytest.raises(
        NoStepsError, match=r"no draft step\. Kinds seen: decode\. The case has no speculative decoding"
    ):
        Trace(data, case=plain).assert_kernel_called("attention_kernel", during="draft", **limits)
    with pytest.raises(NoStepsError, match=r"no draft step\. .*The case asks for 3 drafts a step, so look"):
        Trace(data, case=drafting).assert_kernel_called("attention_kernel", during="draft", **limits)
    with pytest.raises(NoStepsError, match=r"no prefill step\. .*opened when all slots .*--atom-window-steps=40"):
        Trace(data, case=plain, manifest=LATE).assert_kernel_called("attention_kernel", during="prefill", **limits)
    with pytest.raises(NoStepsError, match=r"no prefill step\. .*lies between two prefills \(osl is 128\)"):
        Trace(data, case=plain).assert_kernel_called("attention_kernel", during="prefill", **limits)


def test_few_prefill_steps_are_no_reason_to_raise_the_output_length(tmp_path: Path) -> None:
    data = load(write_ranks(tmp_path, Recipe(decode_steps=0)))
    with pytest.raises(InsufficientStepsError, match=r"more requests \(conc, prompts_per_slot\) or a smaller"):
        Trace(data, case=Case(model="m")).assert_kernel_called("attention_kernel", during="prefill", per_step=LAYERS)


@pytest.mark.parametrize("limit", ["per_step", "exactly", "at_least"])
def test_a_count_of_zero_is_refused_with_what_to_write(tmp_path: Path, limit: str) -> None:
    with pytest.raises(ConfigError, match=f"{limit}=0 asks for absence: say not_called"):
        trace_of(tmp_path).assert_kernel_called("zzz_typo*", during="decode", **{limit: 0})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["", "re:(", 3])
def test_a_name_that_is_no_pattern_is_a_wrong_question(tmp_path: Path, name: str) -> None:
    trace = trace_of(tmp_path)
    questions: tuple[Callable[[], None], ...] = (
        lambda: trace.assert_kernel_called(name),
        lambda: trace.assert_kernel_not_called(name),
        lambda: trace.assert_kernel_order([name, "attention_kernel"]),
    )
    for ask in questions:
        with pytest.raises(ConfigError) as caught:
            ask()
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_ranks_that_are_no_names_are_a_wrong_question(tmp_path: Path) -> None:
    trace = trace_of(tmp_path)
    for ranks in ([3], 3):
        with pytest.raises(ConfigError, match=r"ranks are named by text.*; write all, any, a rank"):
            trace.assert_kernel_called("attention_kernel", ranks=ranks)  # type: ignore[arg-type]


@pytest.mark.parametrize("metrics", [[3], 3, "families"])
def test_metrics_that_are_no_list_of_names_are_a_wrong_question(tmp_path: Path, metrics: list[str]) -> None:
    with pytest.raises(ConfigError, match="metrics must be a list of names"):
        trace_of(tmp_path).assert_no_regression(metrics=metrics)


def test_a_word_that_is_no_kind_of_step_is_a_wrong_question_and_a_kind_not_seen_is_no_answer(tmp_path: Path) -> None:
    trace = trace_of(tmp_path)
    with pytest.raises(ConfigError, match=r"'decod' is no kind of step; did you mean 'decode'"):
        trace.assert_step_time("decod", p50="1 s")
    with pytest.raises(NoStepsError):
        trace.assert_step_time("draft", p50="1 s")
