"""Quantiles and tests against values from tables, and against their own definitions."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_atomtrace.verdicts.stats import holm_levels, mann_whitney_p, t_quantile, t_upper_tail, welch_p

# Student's t, one-sided, from the usual table.
TABLE = [
    (0.05, 1, 6.314),
    (0.025, 4, 2.776),
    (0.005, 4, 4.604),
    (0.05, 10, 1.812),
    (0.01, 30, 2.457),
    (0.025, 1000, 1.962),
]


@pytest.mark.parametrize(("level", "df", "value"), TABLE)
def test_quantiles_of_t_are_those_of_the_table(level: float, df: int, value: float) -> None:
    assert t_quantile(level, df) == pytest.approx(value, abs=6e-4)


@given(st.floats(0.001, 0.49), st.integers(1, 200))
def test_a_quantile_is_exceeded_with_its_own_probability(level: float, df: int) -> None:
    assert t_upper_tail(t_quantile(level, df), df) == pytest.approx(level, rel=1e-6)


@given(st.floats(-30, 30), st.integers(1, 100))
def test_both_tails_add_up_to_one(t: float, df: int) -> None:
    assert t_upper_tail(t, df) + t_upper_tail(-t, df) == pytest.approx(1.0, abs=1e-12)


def test_five_launches_give_the_factor_of_the_rule() -> None:
    assert t_quantile(0.03, 4) == pytest.approx(2.6, abs=0.005)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_rejects_no_more_than_single_tests_and_no_less_than_bonferroni(p_values: list[float]) -> None:
    level = 0.05
    levels = holm_levels(p_values, level)
    for p, mine in zip(p_values, levels, strict=True):
        assert level / len(p_values) - 1e-12 <= mine <= level
        if p <= level / len(p_values):
            assert p <= mine, "Bonferroni rejects it, so Holm must"


def test_holm_goes_on_only_while_tests_pass() -> None:
    levels = holm_levels([0.001, 0.04, 0.012, 0.9], 0.05)
    rejected = [p <= level for p, level in zip([0.001, 0.04, 0.012, 0.9], levels, strict=True)]
    assert rejected == [True, False, True, False]


def exact_p(a: list[float], b: list[float]) -> float:
    values = a + b
    center = len(a) * len(b) / 2

    def u_of(chosen: tuple[int, ...]) -> float:
        mine = [values[i] for i in chosen]
        rest = [values[i] for i in range(len(values)) if i not in chosen]
        return sum((x > y) + 0.5 * (x == y) for x in mine for y in rest)

    seen = abs(u_of(tuple(range(len(a)))) - center)
    every = [abs(u_of(chosen) - center) >= seen - 1e-9 for chosen in itertools.combinations(range(len(values)), len(a))]
    return sum(every) / len(every)


@given(st.lists(st.integers(0, 10_000), min_size=4, max_size=9, unique=True), st.integers(1, 4))
def test_the_u_test_of_small_samples_is_that_of_all_permutations(values: list[int], cut: int) -> None:
    cut = min(cut, len(values) - 1)
    a, b = [float(v) for v in values[:cut]], [float(v) for v in values[cut:]]
    assert mann_whitney_p(a, b) == pytest.approx(exact_p(a, b), abs=1e-9)


def test_equal_samples_differ_in_nothing() -> None:
    assert mann_whitney_p([1.0, 1.0, 1.0], [1.0, 1.0]) == 1.0
    assert welch_p([2.0, 2.0], [2.0, 2.0]) == 1.0
    assert welch_p([2.0, 2.0], [3.0, 3.0]) == 0.0


def test_welch_agrees_with_the_integral_of_the_density() -> None:
    a, b = [27.5, 21.0, 19.0, 23.6, 17.0], [27.1, 22.0, 20.8, 23.4, 23.4, 23.5]
    # t and the degrees of freedom by hand from the two variances, 16.37 and 4.24
    assert welch_p(a, b) == pytest.approx(2 * _t_tail_by_integration(0.862458, 5.751964), abs=1e-4)


def _t_tail_by_integration(t: float, df: float) -> float:
    scale = math.gamma((df + 1) / 2) / math.sqrt(df * math.pi) / math.gamma(df / 2)
    width, steps = 200.0, 400_000
    step = (width - t) / steps
    heights = [math.pow(1 + (t + (i + 0.5) * step) ** 2 / df, -(df + 1) / 2) for i in range(steps)]
    return scale * step * math.fsum(heights)
