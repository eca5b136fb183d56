"""A recording whose launches lie too far apart says so: which one it is, or that they all differ."""

from __future__ import annotations

import pytest

from pytest_atomtrace.verdicts.launch_spread import spread_warning

STEP, MOE = "decode.gpu_busy", "decode.family.moe_gemm"


def launches(*factors: float, base_ns: int = 1_000_000) -> tuple[tuple[int, ...], ...]:
    return tuple((round(base_ns * factor),) * 3 for factor in factors)


@pytest.mark.parametrize(
    "factors",
    [(1.0,) * 5, (0.99, 0.995, 1.0, 1.005, 1.01), (1.0, 1.0, 1.03, 1.0, 1.0), (1.0, 2.0), (3.0,)],
    ids=["equal", "CV 1 %", "3 % once", "two launches", "one launch"],
)
def test_launches_as_they_usually_are_or_too_few_to_tell_warn_of_nothing(factors: tuple[float, ...]) -> None:
    assert spread_warning({STEP: launches(*factors)}, 0.03) == ""


def test_a_slow_launch_and_a_fast_one_are_named_with_the_limit_that_they_make() -> None:
    slow = spread_warning({STEP: launches(1.0, 1.0, 1.0, 1.06, 1.0)}, 0.03)
    assert slow.startswith("launch 4 of 5 is 6.0 % slower than the others (decode.gpu_busy 1.060 ms against 1.000 ms):")
    assert slow.endswith("the limit becomes 7.6 %, without it 3.0 %")
    assert "launch 1 of 5 is 6.0 % faster" in spread_warning({STEP: launches(0.94, 1.0, 1.0, 1.0, 1.0)}, 0.03)


def test_a_tolerance_that_is_as_wide_as_the_spread_asks_for_no_warning() -> None:
    assert spread_warning({STEP: launches(1.0, 1.0, 1.0, 1.06, 1.0)}, 0.08) == ""


def test_launches_that_all_differ_are_said_to() -> None:
    said = spread_warning({STEP: launches(0.9, 0.95, 1.0, 1.05, 1.1)}, 0.03)
    assert said == "the 5 launches differ much (decode.gpu_busy 900.0 us to 1.100 ms): the limit becomes 22.5 %"


def test_a_large_family_is_looked_at_where_the_step_is_steady_and_a_small_one_is_not() -> None:
    odd = (1.0, 1.2, 1.0, 1.0, 1.0)
    metrics = {STEP: launches(*[1.0] * 5), MOE: launches(*odd, base_ns=300_000)}
    assert "launch 2 of 5 is 20.0 % slower than the others (decode.family.moe_gemm" in spread_warning(metrics, 0.03)
    assert spread_warning({**metrics, MOE: launches(*odd, base_ns=30_000)}, 0.03) == ""


def test_counts_alone_have_no_spread() -> None:
    assert spread_warning({}, 0.03) == ""
