"""The workload's own figures, as a capture keeps them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pytest_atomtrace.errors import InconclusiveError

if TYPE_CHECKING:
    from pytest_atomtrace.verdicts.view import TraceView

__all__ = ["Bench", "Spread", "bench_of", "honest_bench"]


@dataclass(frozen=True)
class Spread:
    """Mean, median and 99th percentile over requests (of ITL: over arrivals), whole nanoseconds.

    None where the workload does not tell. Quantiles of the built-in client are nearest-rank, those of
    benchmark_serving numpy's.
    """

    mean_ns: int | None
    p50_ns: int | None
    p99_ns: int | None

    def of(self, statistic: str) -> int | None:
        """``mean``, ``p50`` or ``p99``."""
        return {"mean": self.mean_ns, "p50": self.p50_ns, "p99": self.p99_ns}[statistic]


@dataclass(frozen=True)
class Bench:
    """What the client saw. `profiled` figures were taken under the profiler: good for counts, not for times.

    `ttft`, `tpot`, `itl` and `e2el` are None where the workload does not tell; `output_tokens_per_s` likewise.
    `acceptance_rate` is the share of draft tokens that were accepted, `acceptance_length` the tokens of a step.
    `raw` is the file's content.
    """

    profiled: bool
    requests: int
    completed: int
    output_tokens: int
    output_tokens_per_s: float | None
    ttft: Spread | None
    tpot: Spread | None
    itl: Spread | None
    e2el: Spread | None
    acceptance_rate: float | None
    acceptance_length: float | None
    raw: Mapping[str, object] = field(default_factory=dict, repr=False)


def bench_of(figures: Mapping[str, object]) -> Bench | None:
    """The figures of ``bench.json``: of the unprofiled pass if there was one; None if there are none at all."""
    honest = figures.get("unprofiled")
    profiled = not isinstance(honest, Mapping)
    row: Mapping[str, object] = figures if not isinstance(honest, Mapping) else honest
    requests = _whole(row.get("requests"))
    if requests is None:
        return None
    rate = row.get("output_tokens_per_s")
    acceptance = row.get("acceptance")
    drafts: Mapping[str, object] = acceptance if isinstance(acceptance, Mapping) else {}
    return Bench(
        profiled=profiled,
        requests=requests,
        completed=_whole(row.get("completed")) or 0,
        output_tokens=_whole(row.get("output_tokens")) or 0,
        output_tokens_per_s=_number(rate),
        ttft=_spread(row.get("ttft_ms")),
        tpot=_spread(row.get("tpot_ms")),
        itl=_spread(row.get("itl_ms")),
        e2el=_spread(row.get("e2el_ms")),
        acceptance_rate=_number(drafts.get("rate")),
        acceptance_length=_number(drafts.get("length")),
        raw=row,
    )


def _spread(value: object) -> Spread | None:
    if not isinstance(value, Mapping):
        return None
    return Spread(*(_ns(value.get(name)) for name in ("mean", "p50", "p99")))


def _ns(value: object) -> int | None:
    number = _number(value)
    return round(number * 1e6) if number is not None else None


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def honest_bench(trace: TraceView) -> Bench:
    """The workload's figures of the pass without the profiler.

    Raises:
        InconclusiveError: the capture has none.

    """
    bench = bench_of(trace.bench)
    if bench is None or bench.profiled:
        raise InconclusiveError(
            "atom_bench: the capture has no pass without the profiler. Take it with --atom-bench=on."
        )
    return bench
