"""The rule's rates on simulated experiments, and that the usual rules do worse on the same numbers."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.verdict_power import FAMILIES, draw, others_say, rule_says, table
from pytest_atomtrace.verdicts.regression import Rule


@pytest.mark.parametrize("cv", [0.01, 0.03, 0.05])
def test_two_thousand_equal_cases_give_under_one_percent_of_false_alarms(cv: float) -> None:
    world = draw(np.random.default_rng(11), 2000, cv, windows=3, effect=np.zeros(FAMILIES))
    alarms = rule_says(world, Rule())[:, 1]
    # 0.7 % is expected at worst; three standard errors of 2,000 draws are 0.56 %.
    assert alarms.mean() < 0.0126
    if cv == 0.01:
        assert alarms.mean() < 0.002


@pytest.mark.parametrize(("cv", "slower", "power"), [(0.01, 0.05, 0.9), (0.03, 0.10, 0.6)])
def test_what_matters_is_found(cv: float, slower: float, power: float) -> None:
    world = draw(np.random.default_rng(12), 1000, cv, windows=3, effect=np.full(FAMILIES, slower))
    found = rule_says(world, Rule())[:, 1].mean()
    assert found > power - 3 * (power * (1 - power) / 1000) ** 0.5


def test_tests_on_the_steps_of_single_windows_cry_wolf() -> None:
    world = draw(np.random.default_rng(13), 500, 0.03, windows=1, effect=np.zeros(FAMILIES))
    says = others_say(world)
    assert says["Welch, steps"].mean() > 0.2
    assert says["U test, steps"].mean() > 0.2
    assert says["fixed 5 %"].mean() > 0.05


def test_the_figures_of_a_world_have_the_spread_that_was_asked_for() -> None:
    world = draw(np.random.default_rng(14), 4000, 0.03, windows=1, effect=np.zeros(FAMILIES))
    step = (world.now * world.shares[:, None, None, :]).sum(-1)[:, :, 0]
    assert step.std() == pytest.approx(0.03, rel=0.05)
    between = (world.baseline * world.shares[:, None, None, :]).sum(-1).mean(2)
    assert between.std() ** 2 == pytest.approx(0.03**2 * (0.7 + 0.3 / 3), rel=0.1)


def test_the_table_has_a_row_per_spread_and_change() -> None:
    rows = table(4, 1, 1)
    assert len(rows) == 2 + 3 * 5
    assert all(row.count("|") == rows[0].count("|") for row in rows)
