"""The rule as a pure function: limits, directions, floors, families, and what two launches must agree on."""

from __future__ import annotations

import dataclasses
import math
from statistics import fmean, stdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_atomtrace.verdicts.regression import Figures, Result, Rule, confirmed, judge

RULE = Rule()
times = st.floats(1e5, 1e8)
launches = st.lists(st.lists(times, min_size=1, max_size=3).map(tuple), min_size=1, max_size=7).map(tuple)


def steady(value: float, *, launches: int = 5, windows: int = 3) -> tuple[tuple[float, ...], ...]:
    return tuple((value,) * windows for _ in range(launches))


def result(figures: Figures, rule: Rule = RULE) -> Result:
    return judge([figures], rule)[figures.name].result


def step(now: float, *, baseline: float = 10e6, **more: object) -> Figures:
    facts: dict[str, object] = {"floor": 20_000.0, "floor_share": 0.01, **more}
    return Figures("step", steady(baseline), ((now,),), **facts)  # type: ignore[arg-type]  # what Figures takes


def test_the_limit_is_the_larger_of_tolerance_and_what_launches_differ_by() -> None:
    quiet = judge([step(10e6)], RULE)["step"]
    assert quiet.limit == RULE.tolerance, "a spread of 1 % gives 2.6 x 1 % x sqrt(1.2) = 2.85 %"
    noisy = Figures("step", ((9e6,), (9.5e6,), (10e6,), (10.5e6,), (11e6,)), ((10e6,),))
    spread = stdev([9, 9.5, 10, 10.5, 11]) / 10
    assert judge([noisy], RULE)["step"].limit == pytest.approx(2.6 * spread * math.sqrt(1 / 5 + 1), rel=1e-3)


@pytest.mark.parametrize(
    ("now", "expected"),
    [(10e6, Result.OK), (10.29e6, Result.OK), (10.31e6, Result.REGRESSION), (9.6e6, Result.IMPROVED)],
)
def test_a_change_beyond_the_limit_has_a_direction(now: float, expected: Result) -> None:
    assert result(step(now)) is expected


def test_for_a_figure_where_more_is_better_the_directions_are_swapped() -> None:
    assert result(step(10.5e6, bigger_is_worse=False)) is Result.IMPROVED
    assert result(step(9.5e6, bigger_is_worse=False)) is Result.REGRESSION


def test_a_change_below_the_absolute_floor_is_none_however_large_its_share() -> None:
    assert result(step(115_000.0, baseline=100_000.0)) is Result.OK
    assert result(step(121_000.0, baseline=100_000.0)) is Result.REGRESSION


def test_windows_of_one_launch_are_one_sample() -> None:
    baseline = steady(10e6)
    many = Figures("step", baseline, ((10.2e6,) * 50,))
    one = Figures("step", baseline, ((10.2e6,),))
    assert judge([many], RULE)["step"].limit == judge([one], RULE)["step"].limit


def test_one_window_that_stumbled_does_not_move_its_launch() -> None:
    assert result(Figures("step", steady(10e6), ((10e6, 30e6, 10.1e6),))) is Result.OK


@pytest.mark.parametrize(
    ("launches", "expected"), [(1, Result.SUSPICIOUS), (2, Result.SUSPICIOUS), (3, Result.REGRESSION)]
)
def test_two_launches_of_a_baseline_can_only_raise_a_suspicion(launches: int, expected: Result) -> None:
    assert result(Figures("step", steady(10e6, launches=launches), ((12e6,),))) is expected


def test_nothing_to_compare_is_insufficient_and_never_ok() -> None:
    assert result(Figures("step", (), ((1.0,),))) is Result.INSUFFICIENT
    assert result(Figures("step", steady(1.0), ((),))) is Result.INSUFFICIENT


def test_a_tolerance_is_never_tightened_by_a_quiet_baseline() -> None:
    wide = dataclasses.replace(RULE, tolerance=0.10)
    assert result(step(10.9e6), wide) is Result.OK
    assert result(step(11.1e6), wide) is Result.REGRESSION


def families(*changes: float) -> list[Figures]:
    return [
        Figures(f"f{i}", steady(1e6), ((1e6 * (1 + change),),), floor=5_000.0, group="family")
        for i, change in enumerate(changes)
    ]


def test_families_are_held_to_a_stricter_limit_the_more_there_are() -> None:
    one = judge(families(0.04), RULE)["f0"]
    six = judge(families(0.04, 0, 0, 0, 0, 0), RULE)["f0"]
    assert one.limit < 0.04 < six.limit
    assert (one.result, six.result) == (Result.REGRESSION, Result.OK)
    assert judge(families(0.07, 0, 0, 0, 0, 0), RULE)["f0"].result is Result.REGRESSION


def test_a_family_does_not_tighten_the_limit_of_the_step() -> None:
    alone = judge([step(10.2e6)], RULE)["step"]
    assert judge([step(10.2e6), *families(0, 0, 0)], RULE)["step"] == alone


def test_only_what_two_launches_agree_on_is_confirmed() -> None:
    slow, fine = judge([step(11e6)], RULE), judge([step(10e6)], RULE)
    assert confirmed(slow, slow) == ["step"]
    assert confirmed(slow, fine) == confirmed(fine, slow) == confirmed(slow, {}) == []


@given(launches)
def test_equal_figures_never_fail(values: tuple[tuple[float, ...], ...]) -> None:
    mean = fmean(sorted(windows)[len(windows) // 2] if len(windows) % 2 else fmean(windows) for windows in values)
    assert result(Figures("step", values, ((mean,),))) in (Result.OK, Result.INSUFFICIENT)


@given(launches, launches, st.floats(1e-3, 1e3))
def test_the_unit_of_a_figure_does_not_matter(
    baseline: tuple[tuple[float, ...], ...], now: tuple[tuple[float, ...], ...], unit: float
) -> None:
    def scaled(values: tuple[tuple[float, ...], ...]) -> tuple[tuple[float, ...], ...]:
        return tuple(tuple(one * unit for one in windows) for windows in values)

    first = judge([Figures("m", baseline, now)], RULE)["m"]
    second = judge([Figures("m", scaled(baseline), scaled(now))], RULE)["m"]
    assert second.change == pytest.approx(first.change, abs=1e-9)
    assert second.limit == pytest.approx(first.limit, rel=1e-9)


@given(launches, times, st.floats(1.0, 3.0))
def test_slower_is_never_judged_better(baseline: tuple[tuple[float, ...], ...], now: float, factor: float) -> None:
    order = [Result.IMPROVED, Result.OK, Result.SUSPICIOUS, Result.REGRESSION]
    first = result(Figures("m", baseline, ((now,),)))
    second = result(Figures("m", baseline, ((now * factor,),)))
    assert order.index(second) >= order.index(first)
