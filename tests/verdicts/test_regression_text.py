"""Every line under a regression is true: of metrics beyond their limits, of small ones, of those that are not shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_atomtrace.verdicts.attribution import Attribution
from pytest_atomtrace.verdicts.attribution_text import attribution_rows
from pytest_atomtrace.verdicts.regression import Figures, Rule, judge
from pytest_atomtrace.verdicts.regression_text import attempt_row, comparison_rows

if TYPE_CHECKING:
    from pytest_atomtrace.verdicts.regression import Comparison


def judged(*changes: float, base_ns: float = 1e6, launches: int = 5) -> dict[str, Comparison]:
    figures = [
        Figures(f"decode.f{index}", ((base_ns,),) * launches, ((base_ns * (1 + change),),), 5_000.0, group=str(index))
        for index, change in enumerate(changes)
    ]
    return judge(figures, Rule())


def test_metrics_that_are_not_shown_are_counted_by_what_became_of_them() -> None:
    rows = comparison_rows(judged(*[0.2] * 7, 0.01, -0.2, -0.3))
    assert len(rows) == 7
    assert rows[-1] == "and 1 more SLOWER, 1 more ok, 2 more faster"
    assert comparison_rows(judged(*[0.2] * 6, 0.01, 0.01))[-1] == "and 2 more ok"


def test_a_change_beyond_the_limit_and_under_the_floor_is_called_so() -> None:
    small = judged(0.10, base_ns=20_000)
    assert comparison_rows(small)[0].endswith("+10.0 %  limit  3.0 %  ok, under 5.000 us")
    said = attempt_row(2, small["decode.f0"])
    assert said == "launch 2: decode.f0 22.00 us, +10.0 %: beyond the limit of 3.0 %, but less than 5.000 us"


@pytest.mark.parametrize(
    ("change", "launches", "said"),
    [
        (0.01, 5, "within the limit"),
        (0.2, 5, "beyond the limit"),
        (0.2, 2, "beyond the limit"),
        (-0.2, 5, "faster, beyond the limit"),
    ],
    ids=["within", "regression", "suspicious", "improved"],
)
def test_an_attempt_says_on_which_side_of_the_limit_it_is(change: float, launches: int, said: str) -> None:
    (one,) = judged(change, launches=launches).values()
    assert attempt_row(1, one).endswith(f"%: {said}")


def explained(step_ns: float, same_ns: float, **late: float) -> str:
    found = Attribution(step_ns, "rank_0", (), (), same_ns, late)
    return "\n".join(line for _, lines in attribution_rows(found) for line in lines)


def test_what_adds_nothing_has_no_line() -> None:
    assert "ns" not in explained(0.3, 0.2)
    assert "as long as before" in explained(-0.3, 0.0)
    assert "others together" not in explained(500.0, 0.0)


def test_only_ranks_that_meet_in_collectives_wait_for_each_other() -> None:
    assert "+500 ns  no kernel accounts for it" in explained(500.0, 0.0)
    assert "+500 ns  waiting for other ranks" in explained(500.0, 0.0, rank_0=0.5, rank_1=0.5)
