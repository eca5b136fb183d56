"""Budgets on the workload's own figures: what a user of the server feels, taken without the profiler."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_atomtrace.errors import ConfigError, InconclusiveError
from pytest_atomtrace.units import format_duration, parse_duration_ns, parse_least_share
from pytest_atomtrace.verdicts.bench import Bench, bench_of
from pytest_atomtrace.verdicts.evidence import block
from pytest_atomtrace.verdicts.outcome import Figure, Outcome, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_atomtrace.verdicts.view import TraceView

__all__ = ["TIMES", "Limit", "bench_budgets", "parse_limits"]

TIMES = ("ttft", "tpot", "itl", "e2el")
STATISTICS = ("mean", "p50", "p99")
_RATE = re.compile(r"(?P<number>\d[\d,]*(?:\.\d+)?)\s*tok/s")
_LENGTH = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*tok/fwd")


@dataclass(frozen=True)
class Limit:
    """One budget: of `figure` (and `statistic`) at most (times) or at least (the rest) `value`."""

    figure: str
    statistic: str
    value: float
    text: str

    @property
    def name(self) -> str:
        """``mean tpot``, ``throughput``."""
        return f"{self.statistic} {self.figure}" if self.statistic else self.figure

    @property
    def is_time(self) -> bool:
        """Whether the profiler changes it: durations, and the throughput that follows from them."""
        return self.figure in (*TIMES, "throughput")


def parse_limits(budgets: Mapping[str, object]) -> list[Limit]:
    """Read ``{"tpot": "12 ms", "ttft": {"p99": "1.5 s"}, "throughput": "1500 tok/s", ...}``.

    A bare duration is a budget of the mean, which ATOM's own dashboards show. ``completed`` is a share of the
    requests, ``acceptance`` a share of draft tokens ("62 %") or a length ("2.8 tok/fwd").

    Raises:
        ConfigError: no budget, an unknown figure or statistic, a number without a unit.

    """
    limits: list[Limit] = []
    for figure, budget in budgets.items():
        if budget is not None:
            limits += _limits_of(figure, budget)
    if not limits:
        raise ConfigError('no budget given: write tpot="12 ms", throughput="1500 tok/s", completed="100 %", ...')
    return limits


def _limits_of(figure: str, budget: object) -> Iterator[Limit]:
    if figure in TIMES:
        by_statistic = budget if isinstance(budget, Mapping) else {"mean": budget}
        if not by_statistic:
            raise ConfigError(f"{figure}: no statistic given ({', '.join(STATISTICS)})")
        for statistic, text in by_statistic.items():
            if statistic not in STATISTICS:
                raise ConfigError(f"{figure}: {statistic!r} is not one of {', '.join(STATISTICS)}")
            ns = parse_duration_ns(text, where=f"{figure} {statistic}")
            yield Limit(figure, str(statistic), ns, f"<= {format_duration(ns)}")
    elif figure == "throughput":
        match = _RATE.fullmatch(budget.strip()) if isinstance(budget, str) else None
        if match is None:
            raise ConfigError(f'{budget!r} is not a throughput like "1500 tok/s" (output tokens)', figure)
        rate = float(match["number"].replace(",", ""))
        if not rate:
            raise ConfigError("0 tok/s always holds; give the throughput to keep", figure)
        yield Limit(figure, "", rate, f">= {match['number']} tok/s")
    elif figure == "completed":
        yield Limit(figure, "", parse_least_share(budget, where=figure), f">= {budget}")
    elif figure == "acceptance":
        match = _LENGTH.fullmatch(budget.strip()) if isinstance(budget, str) else None
        if match is not None:
            if float(match["number"]) <= 1:
                raise ConfigError(f"{budget!r} always holds: a step gives one token and accepted drafts", figure)
            yield Limit("acceptance length", "", float(match["number"]), f">= {match['number']} tok/fwd")
        else:
            yield Limit("acceptance rate", "", parse_least_share(budget, where=figure), f">= {budget}")
    else:
        known = ", ".join((*TIMES, "throughput", "completed", "acceptance"))
        raise ConfigError(f"{figure!r} is no figure of the workload ({known})")


def bench_budgets(trace: TraceView, budgets: Mapping[str, object]) -> Verdict:
    """Judge every budget; all that are missed are told.

    Raises:
        ConfigError: a wrong budget, or times of a case on random weights.
        InconclusiveError: no figures, none without the profiler, one that the workload does not have, or times of a
            load that failed in parts.

    """
    limits = parse_limits(budgets)
    check = "bench " + ", ".join(f"{limit.name} {limit.text}" for limit in limits)
    if trace.case is not None and trace.case.load_dummy and any(one.figure != "completed" for one in limits):
        raise ConfigError("load_dummy runs on random weights: its times and its acceptance say nothing")
    bench = bench_of(trace.bench)
    if bench is None:
        raise InconclusiveError("the workload's figures were not kept beside this trace (bench.json)")
    if any(limit.is_time for limit in limits):
        if bench.profiled:
            raise InconclusiveError(
                "the capture has no pass without the profiler, and under it times are longer than users see. "
                "Take it with --atom-bench=on."
            )
        if bench.completed < bench.requests:
            failed = bench.requests - bench.completed
            raise InconclusiveError(f"{failed} of {bench.requests} requests failed: times are of a smaller load")
    shown: list[str] = []
    missed: list[str] = []
    figures: list[Figure] = []
    facts: dict[str, str | int | float | bool] = {"profiled": bench.profiled}
    for limit in limits:
        value = _value(bench, limit)
        text = f"{limit.name} {_shown(limit, value)} (wanted {limit.text})"
        shown.append(text)
        key = limit.name.replace(" ", "_")
        facts |= {key: value, f"{key}_budget": limit.value}
        figures.append(_figure(limit, value, key))
        if figures[-1].missed:
            missed.append(text)
    if not missed:
        sentence = f"The workload stays within its budgets: {'; '.join(shown)}."
        return Verdict(check, Outcome.PASS, sentence, (), (), facts, tuple(figures))
    more = f" and {len(missed) - 1} more" if len(missed) > 1 else ""
    how = "under the profiler" if bench.profiled else "without the profiler"
    lines = block(
        [
            ("figures", shown),
            ("load", f"{bench.completed} of {bench.requests} requests, {bench.output_tokens:,} tokens, {how}"),
            ("workload", str(bench.raw.get("workload", ""))),
            *trace.footer(None, None),
        ]
    )
    sentence = f"The workload misses its budget: {missed[0]}{more}."
    return Verdict(check, Outcome.FAIL, sentence, lines, (), facts, tuple(figures))


def _figure(limit: Limit, value: float, fact: str) -> Figure:
    """A share of requests that must be answered has no median: a window that lost some is another load."""
    return Figure(
        limit.name,
        fact,
        value,
        limit.value,
        lambda number: _shown(limit, number),
        at_least=limit.figure not in TIMES,
        every=limit.figure == "completed",
    )


def _value(bench: Bench, limit: Limit) -> float:
    value: float | None
    if limit.figure in TIMES:
        spread = {"ttft": bench.ttft, "tpot": bench.tpot, "itl": bench.itl, "e2el": bench.e2el}[limit.figure]
        value = spread.of(limit.statistic) if spread is not None else None
    elif limit.figure == "throughput":
        value = bench.output_tokens_per_s
    elif limit.figure == "completed":
        value = bench.completed / bench.requests if bench.requests else 0.0
    else:
        value = bench.acceptance_rate if limit.figure.endswith("rate") else bench.acceptance_length
    if value is None:
        raise InconclusiveError(f"the workload does not tell {limit.name}: {_why_missing(limit)}")
    return value


def _why_missing(limit: Limit) -> str:
    if limit.figure.startswith("acceptance"):
        return "the server drafts nothing, or has no /debug/mtp_stats"
    return "its client did not measure it"


def _shown(limit: Limit, value: float) -> str:
    if limit.figure in TIMES:
        return format_duration(value)
    if limit.figure == "throughput":
        return f"{value:,.1f} tok/s"
    return f"{value:.2f} tok/fwd" if limit.figure.endswith("length") else f"{value * 100:.1f} %"
