"""The same check in Python and in YAML: the same verdict and the same text."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import pytest

from pytest_atomtrace import ConfigError, InconclusiveError, Trace, load_trace
from tests.specs.reading import CASE, located, read
from tests.traces import LAYERS, PER_LAYER, Recipe, write_ranks

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pytest_atomtrace.verdicts.outcome import Verdict

PAIRS = [
    (
        "aiter::moe_forward",
        lambda t: t.assert_kernel_called("aiter::moe_forward"),
        "kernels: [{called: aiter::moe_forward}]",
    ),
    (
        "op in a graph",
        lambda t: t.assert_kernel_called("aiter::moe_forward", during="decode"),
        "kernels: [{called: aiter::moe_forward, during: decode}]",
    ),
    (
        "count per step",
        lambda t: t.assert_kernel_called("mfma_moe1_*", during="decode", per_step=LAYERS),
        f"kernels: [{{called: mfma_moe1_*, during: decode, per_step: {LAYERS}}}]",
    ),
    (
        "wrong count per step",
        lambda t: t.assert_kernel_called("mfma_moe1_*", during="decode", per_step=5),
        "kernels: [{called: mfma_moe1_*, during: decode, per_step: 5}]",
    ),
    (
        "one rank, exactly",
        lambda t: t.assert_kernel_called("attention_kernel", ranks=["rank_1"], exactly=3, layer="kernel"),
        "kernels: [{called: attention_kernel, ranks: [rank_1], exactly: 3, layer: kernel}]",
    ),
    (
        "at least, any rank",
        lambda t: t.assert_kernel_called("attention_kernel", ranks="any", at_least=10),
        "kernels: [{called: attention_kernel, ranks: any, at_least: 10}]",
    ),
    (
        "absent",
        lambda t: t.assert_kernel_not_called("fallback*", example="fallback_gemm"),
        "kernels: [{not_called: fallback*, example: fallback_gemm}]",
    ),
    ("unproven", lambda t: t.assert_kernel_not_called("fallback*"), "kernels: [{not_called: fallback*}]"),
    (
        "not absent",
        lambda t: t.assert_kernel_not_called("mfma_*", during="decode"),
        "kernels: [{not_called: mfma_*, during: decode}]",
    ),
    ("order", lambda t: t.assert_kernel_order(list(PER_LAYER)), f"kernels: [{{order: [{', '.join(PER_LAYER)}]}}]"),
    (
        "wrong order",
        lambda t: t.assert_kernel_order(["mfma_moe2_*", "mfma_moe1_*"], during="decode"),
        "kernels: [{order: [mfma_moe2_*, mfma_moe1_*], during: decode}]",
    ),
    (
        "family's time",
        lambda t: t.assert_kernel_time("family:moe_gemm", per_step="79 us"),
        "kernels: [{time: family:moe_gemm, per_step: 79 us}]",
    ),
    (
        "kernel's share",
        lambda t: t.assert_kernel_time("attention_kernel", during="decode", share="40 %"),
        "kernels: [{time: attention_kernel, during: decode, share: 40 %}]",
    ),
    ("p50", lambda t: t.assert_step_time("decode", p50="121 us"), "steps: {decode: {p50: 121 us}}"),
    ("p50 over", lambda t: t.assert_step_time("decode", p50="100 us"), "steps: {decode: {p50: 100 us}}"),
    ("p99", lambda t: t.assert_step_time("decode", p99="1 s"), "steps: {decode: {p99: 1 s}}"),
    (
        "metric and batch",
        lambda t: t.assert_step_time("decode", mean="1 ms", metric="period", bs=4),
        "steps: {decode: {mean: 1 ms, metric: period, bs: 4}}",
    ),
    (
        "no such batch",
        lambda t: t.assert_step_time("decode", mean="1 ms", bs=3),
        "steps: {decode: {mean: 1 ms, bs: 3}}",
    ),
    ("busy", lambda t: t.assert_gpu_busy("decode", at_least="90 %"), "busy: {decode: {at_least: 90 %}}"),
    (
        "gaps",
        lambda t: t.assert_gaps(longer_than="100 us", at_most=5, during="decode"),
        "gaps: {decode: {longer_than: 100 us, at_most: 5}}",
    ),
    ("launch", lambda t: t.assert_launch_time(mean="15 us"), "launch: {mean: 15 us}"),
    ("other api", lambda t: t.assert_launch_time(mean="15 us", api="hipX"), "launch: {mean: 15 us, api: hipX}"),
    ("ranks", lambda t: t.assert_ranks_agree(during="decode"), "ranks: {decode: {counts: true}}"),
    ("no server log", lambda t: t.assert_tuned(), "tuned: true"),
    (
        "no pass without the profiler",
        lambda t: t.assert_bench(ttft={"p99": "1 s"}),
        "bench: {ttft: {p99: 1 s}}",
    ),
    (
        "no case, no baseline",
        lambda t: t.assert_no_regression(metrics=["counts"]),
        "regression: {metrics: [counts]}",
    ),
    ("skew", lambda t: t.assert_ranks_agree(skew="1 %", during="decode"), "ranks: {decode: {skew: 1 %}}"),
]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_ranks(tmp_path_factory.mktemp("saved"), Recipe(), Recipe(duration_us=10.5))


def judged(saved: Path, ask: Callable[[Trace], None]) -> tuple[str, list[dict[str, object]]]:
    """What was raised, and the verdicts recorded on the way."""
    verdicts: list[Verdict] = []
    bare = load_trace(saved)
    trace = Trace(bare.data, record=verdicts.append)
    said = "passed"
    try:
        ask(trace)
    except (AssertionError, InconclusiveError, ConfigError) as error:
        said = f"{type(error).__name__}: {error}"
    return said, [verdict.as_dict() for verdict in verdicts]


@pytest.mark.parametrize(("python", "text"), [pair[1:] for pair in PAIRS], ids=[pair[0] for pair in PAIRS])
def test_python_and_yaml_say_the_same(saved: Path, tmp_path: Path, python: Callable[[Trace], None], text: str) -> None:
    from pytest_atomtrace.plugin.yaml_items import _settle

    spec = read(tmp_path, CASE + textwrap.dedent(text) + "\n")
    assert located(spec) == []
    (check,) = spec.checks
    ours = judged(saved, lambda trace: _settle(trace, check.assertion))
    assert ours == judged(saved, python)


def test_the_pairs_have_every_sort_of_answer(saved: Path) -> None:
    words = {judged(saved, pair[1])[0].partition(":")[0] for pair in PAIRS}
    assert words == {"passed", "AssertionError", "InconclusiveError", "InsufficientStepsError", "ConfigError"}


def test_a_run_of_both_gives_the_same_report(pytester: pytest.Pytester) -> None:
    write_ranks(pytester.path / "saved", Recipe(), Recipe())
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.atom_case(model="m", tp=2)
        def test_it(atom_trace):
            atom_trace.assert_kernel_called("mfma_moe1_*", during="decode", per_step=5)
        """
    )
    (pytester.path / "it.atom.yaml").write_text(
        CASE + "kernels: [{called: mfma_moe1_*, during: decode, per_step: 5}]\n"
    )
    result = pytester.runpytest_subprocess("--atom-replay=saved")
    result.assert_outcomes(failed=2)
    evidence: list[list[str]] = [[]]
    for line in result.stdout.lines:
        if line.startswith("E  "):
            evidence[-1].append(line.removeprefix("E").strip())
        elif evidence[-1]:
            evidence.append([])
    first, second = (block for block in evidence if block)
    assert first == second
