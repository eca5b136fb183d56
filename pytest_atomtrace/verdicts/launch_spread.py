"""How far the launches of a recording lie apart: one that stumbled makes a limit that lets everything pass."""

from __future__ import annotations

from statistics import fmean, median
from typing import TYPE_CHECKING

from pytest_atomtrace.units import format_duration
from pytest_atomtrace.verdicts.regression import Figures, Rule, compare_launch
from pytest_atomtrace.verdicts.window_figures import FAMILY_PREFIX, FAMILY_SHARE, STEP

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["spread_warning"]

# One launch is to blame where the limit is half as wide again with it as without it.
_BLAME = 1.5
# Launches that all differ are to blame where the limit is so many times the tolerance.
_WIDE = 3.0


def spread_warning(metrics: Mapping[str, Sequence[Sequence[int]]], tolerance: float) -> str:
    """What is wrong with the launches of a recording, "" if nothing is: of the step, else of its first large family.

    `metrics` as in a baseline. Families are not held to be steadier than the step, so where the step is wide they are.
    """
    if STEP not in metrics:
        return ""
    step = fmean(_middles(metrics[STEP]))
    families = [
        name
        for name in sorted(metrics)
        if name.startswith(FAMILY_PREFIX) and fmean(_middles(metrics[name])) >= FAMILY_SHARE * step
    ]
    rule = Rule(tolerance=tolerance)
    warnings = (_warning(name, _middles(metrics[name]), rule) for name in (STEP, *families))
    return next((one for one in warnings if one), "")


def _middles(launches: Sequence[Sequence[int]]) -> list[float]:
    return [float(median(windows)) for windows in launches]


def _warning(name: str, launches: Sequence[float], rule: Rule) -> str:
    if len(launches) < rule.least_launches:
        return ""
    limit = _limit(name, launches, rule)
    odd = max(range(len(launches)), key=lambda index: abs(launches[index] - median(launches)))
    others = [one for index, one in enumerate(launches) if index != odd]
    # As many launches as there are, none of them odd: what a good recording would have given.
    without = _limit(name, [*others, fmean(others)], rule)
    if limit >= _BLAME * without:
        change = launches[odd] / fmean(others) - 1
        return (
            f"launch {odd + 1} of {len(launches)} is {abs(change) * 100:.1f} % {'slower' if change > 0 else 'faster'} "
            f"than the others ({name} {format_duration(launches[odd])} against {format_duration(fmean(others))}): "
            f"the limit becomes {limit * 100:.1f} %, without it {without * 100:.1f} %"
        )
    if limit >= _WIDE * rule.tolerance:
        return (
            f"the {len(launches)} launches differ much ({name} {format_duration(min(launches))} to "
            f"{format_duration(max(launches))}): the limit becomes {limit * 100:.1f} %"
        )
    return ""


def _limit(name: str, launches: Sequence[float], rule: Rule) -> float:
    figures = Figures(name, tuple((one,) for one in launches), ((fmean(launches),),))
    return compare_launch(figures, rule, level=rule.level).limit
