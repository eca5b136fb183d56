"""The few tests of statistics that verdicts need, without scipy."""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist, fmean, variance
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["holm_levels", "mann_whitney_p", "t_quantile", "t_upper_tail", "welch_p"]

_EXACT_UP_TO = 20
_PRECISION = 1e-12


def t_upper_tail(t: float, df: float) -> float:
    """P(T > t) of Student's t with `df` degrees of freedom; Abramowitz and Stegun 26.7.1."""
    if t < 0:
        return 1.0 - t_upper_tail(-t, df)
    return 0.5 * _incomplete_beta(df / (df + t * t), df / 2, 0.5)


@lru_cache(maxsize=4096)
def t_quantile(level: float, df: float) -> float:
    """The t that Student's t with `df` degrees of freedom exceeds with probability `level`, 0 < level < 0.5."""
    if not 0 < level < 0.5:
        raise ValueError(f"the level {level} is not between 0 and 0.5")
    low, high = 0.0, 2.0
    while t_upper_tail(high, df) > level:
        low, high = high, high * 2
    while high - low > _PRECISION * high:
        middle = (low + high) / 2
        low, high = (middle, high) if t_upper_tail(middle, df) > level else (low, middle)
    return high


def holm_levels(p_values: Sequence[float], level: float) -> list[float]:
    """The level that each hypothesis is tested at by Holm's step-down rule (1979), in the given order.

    The smallest p stands against level / m, the next against level / (m - 1), ...; once one does not pass, all
    later ones are held to the level at which the row of passes ended. Comparing p with its level decides.
    """
    levels = [0.0] * len(p_values)
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    stopped: float | None = None
    for place, index in enumerate(order):
        mine = level / (len(p_values) - place)
        levels[index] = mine if stopped is None else stopped
        if stopped is None and p_values[index] > mine:
            stopped = mine
    return levels


def welch_p(a: Sequence[float], b: Sequence[float]) -> float:
    """Two-sided p of Welch's t-test on equal means; 1.0 where both samples are constant and equal.

    Raises:
        ValueError: a sample has fewer than two values.

    """
    if min(len(a), len(b)) < 2:
        raise ValueError("Welch's test needs two values on each side")
    error_a, error_b = variance(a) / len(a), variance(b) / len(b)
    gap = fmean(b) - fmean(a)
    if error_a + error_b == 0:
        return 1.0 if gap == 0 else 0.0
    df = (error_a + error_b) ** 2 / (error_a**2 / (len(a) - 1) + error_b**2 / (len(b) - 1))
    return min(1.0, 2 * t_upper_tail(abs(gap) / math.sqrt(error_a + error_b), df))


def mann_whitney_p(a: Sequence[float], b: Sequence[float]) -> float:
    """Two-sided p of the Mann-Whitney U test: exact for small samples without ties, else normal with tie correction.

    Raises:
        ValueError: a sample is empty.

    """
    if not a or not b:
        raise ValueError("the U test needs values on both sides")
    ordered = sorted([(value, 0) for value in a] + [(value, 1) for value in b])
    rank_sum, ties, place = 0.0, 0, 0
    while place < len(ordered):
        end = place
        while end < len(ordered) and ordered[end][0] == ordered[place][0]:
            end += 1
        middle = (place + 1 + end) / 2
        rank_sum += middle * sum(1 for _, side in ordered[place:end] if side == 0)
        ties += (end - place) ** 3 - (end - place)
        place = end
    n, m = len(a), len(b)
    u = rank_sum - n * (n + 1) / 2
    if ties == 0 and max(n, m) <= _EXACT_UP_TO:
        return _exact_u_p(min(u, n * m - u), n, m)
    total = n + m
    spread = math.sqrt(n * m / 12 * (total + 1 - ties / (total * (total - 1))))
    if spread == 0:
        return 1.0
    z = max(0.0, abs(u - n * m / 2) - 0.5) / spread
    return min(1.0, 2 * (1 - NormalDist().cdf(z)))


def _exact_u_p(smaller_u: float, n: int, m: int) -> float:
    # ways[k][u]: subsets of k of the ranks seen so far whose U is u.
    ways = [[0] * (n * m + 1) for _ in range(n + 1)]
    ways[0][0] = 1
    for rank in range(1, n + m + 1):
        for k in range(min(n, rank), 0, -1):
            shift = rank - k
            for u in range(n * m, shift - 1, -1):
                ways[k][u] += ways[k - 1][u - shift]
    low = sum(ways[n][: int(smaller_u) + 1])
    return min(1.0, 2 * low / math.comb(n + m, n))


def _incomplete_beta(x: float, a: float, b: float) -> float:
    """Regularised incomplete beta function by Lentz's continued fraction (Numerical Recipes, 6.4)."""
    if x <= 0 or x >= 1:
        return 0.0 if x <= 0 else 1.0
    if x > (a + 1) / (a + b + 2):
        return 1.0 - _incomplete_beta(1 - x, b, a)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
    tiny = 1e-300
    c, d = 1.0, 1 / max(1 - (a + b) * x / (a + 1), tiny)
    result = d
    for k in range(1, 400):
        even = k * (b - k) * x / ((a + 2 * k - 1) * (a + 2 * k))
        d = 1 / _away_from_zero(1 + even * d, tiny)
        c = _away_from_zero(1 + even / c, tiny)
        result *= d * c
        odd = -(a + k) * (a + b + k) * x / ((a + 2 * k) * (a + 2 * k + 1))
        d = 1 / _away_from_zero(1 + odd * d, tiny)
        c = _away_from_zero(1 + odd / c, tiny)
        result *= d * c
        if abs(d * c - 1) < 1e-15:
            break
    return front * result / a


def _away_from_zero(value: float, tiny: float) -> float:
    return value if abs(value) > tiny else tiny
