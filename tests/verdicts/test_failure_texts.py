"""Six kinds of failure, word for word: one whole sentence, evidence under sixty lines, no colour codes."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from pytest_atomtrace import Case, InconclusiveError, Trace
from pytest_atomtrace.trace.load import load
from tests.traces import Recipe, write_ranks
from tests.verdicts.launches import Bench, slower

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SOME = Recipe(decode_steps=30)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths in texts are relative to the working directory."""
    monkeypatch.chdir(tmp_path)


def trace_of(tmp_path: Path, *recipes: Recipe) -> Trace:
    place = write_ranks(tmp_path / "captures" / "1", *recipes)
    return Trace(load(place), case=Case(model="org/model", tp=len(recipes)), directory=place, engine="sim")


def failure(check: Callable[[], None]) -> str:
    with pytest.raises((AssertionError, InconclusiveError)) as caught:
        check()
    text = str(caught.value)
    assert len(text.splitlines()) < 60
    assert "\x1b" not in text
    assert len(text.splitlines()[0]) > 20, "the first line is a sentence of its own"
    return text


def test_a_kernel_is_missing(tmp_path: Path, golden: Callable[[str, str], None]) -> None:
    other = dataclasses.replace(SOME, renamed={"mfma_moe1_a_t32": "mfma_moe1_b_t64"})
    trace = trace_of(tmp_path, other, other)
    golden("kernel_missing", failure(lambda: trace.assert_kernel_called("mfma_moe1_a_t32", during="decode")))


def test_a_rank_calls_a_kernel_too_seldom(tmp_path: Path, golden: Callable[[str, str], None]) -> None:
    odd = dataclasses.replace(SOME, replaced=dict.fromkeys(range(30), "mfma_moe2_a_t32"))
    trace = trace_of(tmp_path, SOME, odd, SOME)
    check = lambda: trace.assert_kernel_called("mfma_moe2_*", during="decode", per_step=4)  # noqa: E731
    golden("wrong_count_on_one_rank", failure(check))


def test_an_order_is_broken(tmp_path: Path, golden: Callable[[str, str], None]) -> None:
    trace = trace_of(tmp_path, SOME)
    names = ["mfma_moe1_a_t32", "attention_kernel", "mfma_moe2_a_t32"]
    golden("order_broken", failure(lambda: trace.assert_kernel_order(names)))


def test_a_budget_is_exceeded(tmp_path: Path, golden: Callable[[str, str], None]) -> None:
    trace = trace_of(tmp_path, SOME, dataclasses.replace(SOME, duration_us=12.0))
    golden("budget_exceeded", failure(lambda: trace.assert_step_time("decode", p50="120 us")))


def test_a_regression(tmp_path: Path, golden: Callable[[str, str], None]) -> None:
    bench = Bench(tmp_path)
    bench.record(*[slower(factor) for factor in (0.995, 1.0, 1.0, 1.0, 1.005)])
    slow = [slower(1.0, mfma_moe2_a_t32=1.2), slower(1.001, mfma_moe2_a_t32=1.2)]
    golden("regression", failure(lambda: bench.trace(*slow).assert_no_regression()))


def test_a_trace_cannot_be_believed(tmp_path: Path, golden: Callable[[str, str], None]) -> None:
    trace = trace_of(tmp_path, dataclasses.replace(SOME, lost=frozenset({9, 10})), SOME)
    golden("inconclusive", failure(lambda: trace.assert_step_time("decode", p50="120 us")))
