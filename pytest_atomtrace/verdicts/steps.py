"""Steps of a trace as a user selects them, and their times."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_atomtrace.errors import ConfigError, InconclusiveError
from pytest_atomtrace.verdicts.measure import METRICS, measure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from pytest_atomtrace.settings import Settings
    from pytest_atomtrace.trace.data import RankData, Step

__all__ = ["METRICS", "Steps", "Timing"]


@dataclass(frozen=True)
class Timing:
    """Times of some steps, in nanoseconds, in the steps' order.

    Quantiles are nearest-rank (the smallest value that at least q of the values do not exceed; definition 1 of
    Hyndman and Fan, 1996): always a time that was measured, never one between two steps.
    """

    values_ns: tuple[int, ...]

    @property
    def n(self) -> int:
        """How many steps."""
        return len(self.values_ns)

    def quantile_ns(self, q: float) -> int:
        """Nearest-rank quantile, 0 < q <= 1.

        Raises:
            InconclusiveError: no values.

        """
        self._require_values()
        # Rounding guards 0.99 * 100 = 99.00000000000001, which would name the hundredth value.
        rank = max(1, math.ceil(round(q * self.n, 9)))
        return sorted(self.values_ns)[rank - 1]

    @property
    def min_ns(self) -> int:
        """Smallest."""
        self._require_values()
        return min(self.values_ns)

    @property
    def max_ns(self) -> int:
        """Largest."""
        self._require_values()
        return max(self.values_ns)

    @property
    def mean_ns(self) -> int:
        """Arithmetic mean, rounded to a nanosecond."""
        self._require_values()
        return round(sum(self.values_ns) / self.n)

    def _require_values(self) -> None:
        if not self.values_ns:
            raise InconclusiveError(
                "None of the selected steps has such a time, so there is no statistic of it: the trace has no step of "
                "that kind, or the selection left none (atomtrace steps DIR lists them)."
            )

    @property
    def p50_ns(self) -> int:
        """Median (lower one of two)."""
        return self.quantile_ns(0.50)

    @property
    def p90_ns(self) -> int:
        """90th percentile."""
        return self.quantile_ns(0.90)

    @property
    def p99_ns(self) -> int:
        """99th percentile."""
        return self.quantile_ns(0.99)


class Steps:
    """Steps of one kind over some ranks: an immutable selection, narrowed by its methods."""

    def __init__(
        self,
        kind: str,
        by_rank: Sequence[tuple[RankData, Sequence[Step]]],
        settings: Settings,
        *,
        accepted_length: float | None = None,
    ) -> None:
        self.kind = kind
        self._accepted_length = accepted_length
        self._by_rank = tuple((rank, tuple(steps)) for rank, steps in by_rank)
        self._settings = settings

    def __len__(self) -> int:
        return sum(len(steps) for _, steps in self._by_rank)

    def __iter__(self) -> Iterator[Step]:
        return (step for _, steps in self._by_rank for step in steps)

    def __repr__(self) -> str:
        return f"<{len(self)} {self.kind} steps on {len(self._by_rank)} ranks>"

    @property
    def by_rank(self) -> tuple[tuple[RankData, tuple[Step, ...]], ...]:
        """Ranks and their selected steps, in rank order."""
        return self._by_rank

    def where(self, *, bs: int | None = None, graph_bs: int | None = None, tok: int | None = None) -> Steps:
        """Steps with this real batch size, graph batch size or token count."""

        def fits(step: Step) -> bool:
            label = step.label
            return (
                (bs is None or label.bs == bs)
                and (graph_bs is None or label.graph_bs == graph_bs)
                and (tok is None or label.tok == tok)
            )

        return self._narrowed(lambda _, steps: [step for step in steps if fits(step)])

    def rank(self, name: str) -> Steps:
        """Steps of one rank.

        Raises:
            ConfigError: there is no such rank.

        """
        names = [rank.name for rank, _ in self._by_rank]
        if name not in names:
            raise ConfigError(f"no rank {name!r}; there are {', '.join(names)}")
        return self._with([pair for pair in self._by_rank if pair[0].name == name])

    def steady(self) -> Steps:
        """Steps of one shape near the peak batch, away from the ends of each run (see the steady-state page)."""
        from pytest_atomtrace.trace.steady import steady_steps

        settings = self._settings

        def pick(rank: RankData, steps: Sequence[Step]) -> Iterable[Step]:
            steady = steady_steps(
                rank, self.kind, skip_first=settings.steady_skip_first, skip_last=settings.steady_skip_last
            )
            kept = {step.index for step in steps}
            return [step for step in steady if step.index in kept]

        return self._narrowed(pick)

    def _narrowed(self, pick: Callable[[RankData, Sequence[Step]], Iterable[Step]]) -> Steps:
        return self._with([(rank, tuple(pick(rank, steps))) for rank, steps in self._by_rank])

    def _with(self, by_rank: Sequence[tuple[RankData, Sequence[Step]]]) -> Steps:
        return Steps(self.kind, by_rank, self._settings, accepted_length=self._accepted_length)

    def timing(self, metric: str) -> Timing:
        """Times by one of `METRICS`, rank after rank."""
        values: list[int] = []
        for rank, steps in self._by_rank:
            values += measure(metric, rank, steps, accepted_length=self._accepted_length)
        return Timing(tuple(values))

    @property
    def gpu_busy(self) -> Timing:
        """Union of each step's kernel intervals over streams: what budgets and baselines use."""
        return self.timing("gpu_busy")

    @property
    def gpu_span(self) -> Timing:
        """First kernel on the step's busiest stream to the last kernel's end."""
        return self.timing("gpu_span")

    @property
    def iteration(self) -> Timing:
        """All GPU activity from one label's start to the next one's: what a user feels."""
        return self.timing("iteration")

    @property
    def per_token(self) -> Timing:
        """Iteration time per accepted token; for speculative decoding.

        Raises:
            InconclusiveError: the tokens gained per step are not known.

        """
        return self.timing("per_token")

    @property
    def period(self) -> Timing:
        """Start to start of consecutive labels on the host; carries the profiler's cost."""
        return self.timing("period")

    @property
    def cpu_span(self) -> Timing:
        """The label's span on the host; under graph replay this is launch time, not the step."""
        return self.timing("cpu_span")
