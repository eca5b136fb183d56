"""Two sides measured in turn: what differs beyond the noise of launches. The launch is the sample, as everywhere.

The Mann-Whitney test decides where it can reach the level with so many launches (five and five can), Welch's t-test
where it cannot. One launch a side has no spread to compare with: there is no answer then, and no p.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median, stdev
from typing import TYPE_CHECKING, Final

from pytest_atomtrace.verdicts.attribution import attribute
from pytest_atomtrace.verdicts.recording import mean_usage
from pytest_atomtrace.verdicts.stats import mann_whitney_p, welch_p
from pytest_atomtrace.verdicts.window_figures import FAMILY_PREFIX, FAMILY_SHARE, STEP, measure_window

if TYPE_CHECKING:
    from pytest_atomtrace.verdicts.attribution import Attribution
    from pytest_atomtrace.verdicts.view import TraceView

__all__ = ["LEVEL", "Row", "SideBySide", "compare_sides", "loaded_of"]

LEVEL = 0.01


@dataclass(frozen=True)
class Row:
    """One metric: medians over launches, spreads (relative), change of B against A, p.

    A side of one launch has no spread (None), and one launch a side no p (None): nothing is known of the noise.
    """

    metric: str
    a_ns: float
    b_ns: float
    a_spread: float | None
    b_spread: float | None
    change: float
    p: float | None

    @property
    def differs(self) -> bool:
        """Beyond the noise of launches."""
        return self.p is not None and self.p < LEVEL


@dataclass(frozen=True)
class SideBySide:
    """`explained` takes the step's difference apart; `loaded` says by fact what each side ran; `test` is the one that
    tells a difference from noise: ``mann-whitney``, ``welch``, or ``none`` where one launch a side cannot tell.
    """

    case: str
    launches: int
    windows: int
    rows: tuple[Row, ...]
    explained: Attribution
    loaded: Mapping[str, tuple[str, str]]
    test: str

    @property
    def slower(self) -> bool:
        """B's step is slower beyond the noise."""
        return any(row.metric == STEP and row.differs and row.change > 0 for row in self.rows)

    @property
    def same(self) -> bool:
        """Nothing that was seen of the two servers differs."""
        return all(a == b for a, b in self.loaded.values())


def compare_sides(case: str, a: Sequence[Sequence[TraceView]], b: Sequence[Sequence[TraceView]]) -> SideBySide:
    """Compare launches of windows.

    Raises:
        InconclusiveError: a window cannot be believed, or has too few steady steps.

    """
    figures_a = [[measure_window(window) for window in windows] for windows in a]
    figures_b = [[measure_window(window) for window in windows] for windows in b]
    # The window that stands for B is the one in the middle: a single launch has a speed of its own.
    profiles_b = [one.profile for windows in figures_b for one in windows]
    samples_a = _samples([[one.metrics for one in windows] for windows in figures_a])
    samples_b = _samples([[one.metrics for one in windows] for windows in figures_b])
    rows = [_row(name, samples_a[name], samples_b[name]) for name in samples_a if name in samples_b]
    step = next(row for row in rows if row.metric == STEP)
    shown = [row for row in rows if not _small(row, step)]
    return SideBySide(
        case=case,
        launches=min(len(a), len(b)),
        windows=min(len(windows) for windows in (*a, *b)),
        rows=tuple(sorted(shown, key=lambda row: (row.metric.startswith(FAMILY_PREFIX), -row.a_ns))),
        explained=attribute(
            mean_usage([window for windows in a for window in windows]),
            step.a_ns,
            min(profiles_b, key=lambda one: abs(one.worst_busy_ns - step.b_ns)),
        ),
        loaded=_loaded(a[0][0], b[0][0]),
        test=_test_for(len(a), len(b)),
    )


def _samples(launches: Sequence[Sequence[Mapping[str, int]]]) -> dict[str, list[float]]:
    names = set.intersection(*(set(one) for windows in launches for one in windows))
    return {name: [float(median(one[name] for one in windows)) for windows in launches] for name in sorted(names)}


def _small(row: Row, step: Row) -> bool:
    return row.metric.startswith(FAMILY_PREFIX) and max(row.a_ns, row.b_ns) < FAMILY_SHARE * step.a_ns


def _row(name: str, a: Sequence[float], b: Sequence[float]) -> Row:
    middle_a, middle_b = median(a), median(b)
    test = _TESTS[_test_for(len(a), len(b))]
    p = test(a, b) if test is not None else None
    return Row(name, middle_a, middle_b, _spread(a), _spread(b), middle_b / middle_a - 1, p)


def _test_for(a: int, b: int) -> str:
    """The test for so many launches: the first that can reach the level at all."""
    if 2 / math.comb(a + b, a) < LEVEL:
        return "mann-whitney"
    return "welch" if min(a, b) > 1 else "none"


_TESTS: Final[Mapping[str, Callable[[Sequence[float], Sequence[float]], float] | None]] = {
    "mann-whitney": mann_whitney_p,
    "welch": welch_p,
    "none": None,
}


def _spread(values: Sequence[float]) -> float | None:
    return stdev(values) / median(values) if len(values) > 1 else None


def _loaded(a: TraceView, b: TraceView) -> dict[str, tuple[str, str]]:
    facts_a, facts_b = loaded_of(a), loaded_of(b)
    return {key: (facts_a.get(key, "-"), facts_b.get(key, "-")) for key in sorted({*facts_a, *facts_b})}


def loaded_of(trace: TraceView) -> dict[str, str]:
    """What a server ran, as seen while it lived: places, commits and edits of packages, hashes of JIT libraries, and
    the variables that can change a measurement.
    """
    facts: dict[str, str] = {}
    recorded = trace.manifest.get("environment")
    for section in ("versions", "atom", "aiter", "aiter_jit"):
        value = recorded.get(section) if isinstance(recorded, Mapping) else None
        if isinstance(value, Mapping):
            facts |= {f"{section}.{key}": str(one) for key, one in value.items()}
    server = trace.manifest.get("server")
    env = server.get("env") if isinstance(server, Mapping) else None
    if isinstance(env, Mapping):
        facts |= {f"env.{key}": str(value) for key, value in env.items() if key not in _OURS}
    return facts


_OURS = ("ATOMTRACE_RUN_TOKEN", "ATOMTRACE_LOCK_DIR", "ATOMTRACE_SIM_LAUNCH", "ATOMTRACE_SIM_LEDGER")
