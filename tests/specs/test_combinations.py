"""Arguments that would be dropped beside others are refused alike in YAML and in Python: a dropped one is green."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_atomtrace import Case, ConfigError, Trace, load_trace
from tests.specs.reading import CASE, located, read
from tests.traces import Recipe, write_ranks

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DROPPED = [
    (
        "kernels: [{called: a, during: decode, per_step: 36, at_least: 5000}]",
        lambda t: t.assert_kernel_called("a", during="decode", per_step=36, at_least=5000),
        "at_least=5000 says nothing beside per_step, which is exact",
    ),
    (
        "kernels: [{called: a, exactly: 36, at_least: 5000}]",
        lambda t: t.assert_kernel_called("a", exactly=36, at_least=5000),
        "at_least=5000 says nothing beside exactly, which is exact",
    ),
    (
        "kernels: [{called: a, during: decode, per_step: 36, ranks: any}]",
        lambda t: t.assert_kernel_called("a", during="decode", per_step=36, ranks="any"),
        "ranks='any': 'any' says nothing here, it must hold on every selected rank; write all, a rank's name",
    ),
    (
        "kernels: [{not_called: a, ranks: any}]",
        lambda t: t.assert_kernel_not_called("a", ranks="any"),
        "ranks='any': 'any' says nothing here",
    ),
    (
        "kernels: [{order: [a, b], ranks: any}]",
        lambda t: t.assert_kernel_order(["a", "b"], ranks="any"),
        "ranks='any': 'any' says nothing here",
    ),
    (
        "steps: {decode: {p50: 1 ms, ranks: any}}",
        lambda t: t.assert_step_time("decode", p50="1 ms", ranks="any"),
        "ranks='any': 'any' says nothing here, it must hold on every selected rank; write worst, all",
    ),
    (
        "steps: {prefill: {mean: 1 ms, metric: prefill_per_ktok, bs: 4}}",
        lambda t: t.assert_step_time("prefill", mean="1 ms", metric="prefill_per_ktok", bs=4),
        "prefill_per_ktok is one figure a window",
    ),
    (
        "regression: {metrics: [counts], tolerance: 5 %}",
        lambda t: t.assert_no_regression(metrics=["counts"], tolerance="5 %"),
        "counts are exact: there is nothing that",
    ),
    ("kernels: [{called: a, ranks: []}]", lambda t: t.assert_kernel_called("a", ranks=[]), "the list is empty"),
    (
        "steps: {decode: {p50: 1 ms, ranks: []}}",
        lambda t: t.assert_step_time("decode", p50="1 ms", ranks=[]),
        "the list is empty",
    ),
    (
        "kernels: [{called: a, ranks: [rank_0, all]}]",
        lambda t: t.assert_kernel_called("a", ranks=["rank_0", "all"]),
        "'all' stands alone",
    ),
]


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Trace:
    bare = load_trace(write_ranks(tmp_path_factory.mktemp("saved"), Recipe(), Recipe()))
    return Trace(bare.data, case=Case(model="m", tp=2))


@pytest.mark.parametrize(("text", "python", "says"), DROPPED, ids=[row[0] for row in DROPPED])
def test_an_argument_that_would_be_dropped_is_refused(
    tmp_path: Path, trace: Trace, text: str, python: Callable[[Trace], None], says: str
) -> None:
    (problem,) = located(read(tmp_path, CASE + text + "\n"))
    assert says in problem
    with pytest.raises(ConfigError) as caught:
        python(trace)
    assert says in caught.value.problem


@pytest.mark.parametrize(
    "text",
    [
        "kernels: [{called: a, during: decode, per_step: 36, at_least: 1}]",
        "kernels: [{called: a, ranks: any, at_least: 5}]",
        "regression: {metrics: [counts, families], tolerance: 5 %}",
        "steps: {decode: {p50: 1 ms, ranks: all}}",
    ],
)
def test_arguments_that_all_count_stand_together(tmp_path: Path, text: str) -> None:
    assert not located(read(tmp_path, CASE + text + "\n"))
