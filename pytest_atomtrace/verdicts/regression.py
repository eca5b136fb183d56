"""Is it slower than its baseline? One pure rule: figures in, a result out.

Windows on one server are not independent, so the launch is the sample: a launch's figure is the median over its
windows, and the baseline is the mean over its launches. A launch is beyond the limit where its change exceeds

    max(tolerance, t * s * sqrt(1 / n_baseline + 1 / n_now))

with s the between-launch spread (relative standard deviation, at least the floor), t the 97 % quantile of Student's t
with n_baseline - 1 degrees of freedom (2.6 for five launches), and in absolute terms a floor of its own: two
hundredths of a microsecond of a tiny kernel are no regression. Families of kernels are tested beside the step, at the
same level all together (Holm). A regression is what two launches agree on, the second one taken for this question:
one slow launch is noise of its own kind. Rates of false alarms and misses are simulated in
``benchmarks/verdict_power.py``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import Enum
from statistics import fmean, median, stdev
from typing import TYPE_CHECKING

from pytest_atomtrace.verdicts.stats import holm_levels, t_quantile, t_upper_tail

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["STEP_GROUP", "Comparison", "Figures", "Result", "Rule", "compare_launch", "confirmed", "judge"]


# The group of the metrics that are whole steps; others are parts of them.
STEP_GROUP = "step"


class Result(str, Enum):
    """What a comparison with a baseline can end in."""

    OK = "ok"
    IMPROVED = "improved"
    REGRESSION = "regression"
    SUSPICIOUS = "suspicious"
    INSUFFICIENT = "insufficient"


@dataclass(frozen=True)
class Rule:
    """The numbers of the rule.

    `tolerance`: a relative change that is never a regression. `level`: chance of a false alarm of one launch against
    a baseline whose spread is as estimated. `spread_floor`: the least between-launch spread believed in, since five
    launches can agree by chance. `least_launches`: below it a change is suspicious, never a failure.
    """

    tolerance: float = 0.03
    level: float = 0.03
    spread_floor: float = 0.01
    least_launches: int = 3


@dataclass(frozen=True)
class Figures:
    """What is known of one metric: the baseline's figures and now's, each as launches of windows.

    `floor` and `floor_share` bound the change from below: in the metric's unit, and as a share of the baseline; the
    larger counts. `group`: metrics of one group are tested together (Holm). `bigger_is_worse` gives the direction.
    """

    name: str
    baseline: tuple[tuple[float, ...], ...]
    now: tuple[tuple[float, ...], ...]
    floor: float = 0.0
    floor_share: float = 0.0
    group: str = STEP_GROUP
    bigger_is_worse: bool = True


@dataclass(frozen=True)
class Comparison:
    """One metric, judged. `change` is relative to the baseline, positive when the figure grew; `limit` is relative too.

    `spread` is the between-launch spread that the limit used (0 where there is nothing to compare). `p` is the chance
    of such a change without a cause.
    """

    name: str
    result: Result
    baseline: float
    now: float
    change: float
    limit: float
    floor: float
    spread: float
    n_baseline: int
    n_now: int
    p: float
    bigger_is_worse: bool = True

    @property
    def difference(self) -> float:
        """Now less baseline, in the metric's unit."""
        return self.now - self.baseline


def judge(metrics: Sequence[Figures], rule: Rule) -> dict[str, Comparison]:
    """Judge the metrics against their baselines, all launches of now taken together; groups are corrected by Holm.

    A part is not believed to be steadier than the whole: the spread of a step, if one is judged, is the least that its
    families are given. Of six families one looks steady by chance in every other baseline of five launches.
    """
    found: dict[str, Comparison] = {}
    for group in dict.fromkeys(sorted((one.group for one in metrics), key=lambda name: name != STEP_GROUP)):
        wholes = [one.spread for one in found.values()]
        its_rule = replace(rule, spread_floor=max([rule.spread_floor, *wholes])) if group != STEP_GROUP else rule
        members = [one for one in metrics if one.group == group]
        p_values = [_p_value(one, its_rule) for one in members if _comparable(one)]
        levels = iter(holm_levels(p_values, rule.level))
        for one in members:
            level = next(levels) if _comparable(one) else rule.level
            found[one.name] = compare_launch(one, its_rule, level=level)
    return {one.name: found[one.name] for one in metrics}


def compare_launch(figures: Figures, rule: Rule, *, level: float) -> Comparison:
    """Judge one metric at `level`."""
    base, now = _launches(figures.baseline), _launches(figures.now)
    if not _comparable(figures):
        return Comparison(
            figures.name, Result.INSUFFICIENT, fmean(base) if base else 0.0, fmean(now) if now else 0.0,
            0.0, 0.0, 0.0, 0.0, len(base), len(now), 1.0, figures.bigger_is_worse,
        )  # fmt: skip
    middle, spread = fmean(base), _spread(base, rule)
    change = fmean(now) / middle - 1
    width = spread * math.sqrt(1 / len(base) + 1 / len(now))
    limit = max(rule.tolerance, t_quantile(level, _degrees(base, rule)) * width)
    floor = max(figures.floor, figures.floor_share * middle)
    worse = change if figures.bigger_is_worse else -change
    result = Result.OK
    if abs(change) > limit and abs(change) * middle > floor:
        result = Result.IMPROVED if worse < 0 else Result.REGRESSION
        if result is Result.REGRESSION and len(base) < rule.least_launches:
            result = Result.SUSPICIOUS
    return Comparison(
        figures.name, result, middle, fmean(now), change, limit, floor, spread, len(base), len(now),
        _p_value(figures, rule), figures.bigger_is_worse,
    )  # fmt: skip


def confirmed(first: Mapping[str, Comparison], second: Mapping[str, Comparison]) -> list[str]:
    """Names of the metrics that both launches call a regression."""
    return [
        name
        for name, one in first.items()
        if one.result is Result.REGRESSION and name in second and second[name].result is Result.REGRESSION
    ]


def _comparable(figures: Figures) -> bool:
    base, now = _launches(figures.baseline), _launches(figures.now)
    return bool(base) and bool(now) and fmean(base) > 0


def _launches(windows: Sequence[Sequence[float]]) -> list[float]:
    return [median(one) for one in windows if one]


def _spread(base: Sequence[float], rule: Rule) -> float:
    seen = stdev(base) / fmean(base) if len(base) > 1 else 0.0
    return max(rule.spread_floor, seen)


def _degrees(base: Sequence[float], rule: Rule) -> int:
    # One or two launches say nothing of their spread; what they find is suspicious at most, by the usual limit.
    return len(base) - 1 if len(base) >= rule.least_launches else 4


def _p_value(figures: Figures, rule: Rule) -> float:
    """One-sided in the bad direction."""
    base, now = _launches(figures.baseline), _launches(figures.now)
    width = _spread(base, rule) * math.sqrt(1 / len(base) + 1 / len(now))
    change = fmean(now) / fmean(base) - 1
    return t_upper_tail((change if figures.bigger_is_worse else -change) / width, _degrees(base, rule))
