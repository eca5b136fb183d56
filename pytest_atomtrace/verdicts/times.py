"""Time budgets per step: a statistic over the steady steps of one capture (see `several` for more of them)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_atomtrace.errors import ConfigError, InconclusiveError, InsufficientStepsError
from pytest_atomtrace.trace.metrics import SPAN_LIMIT, prefill_per_ktok_ns
from pytest_atomtrace.trace.names import short_name
from pytest_atomtrace.units import format_duration, parse_duration_ns
from pytest_atomtrace.verdicts.agreement import collective_waits
from pytest_atomtrace.verdicts.evidence import block, count_of, did_you_mean, step_time_text
from pytest_atomtrace.verdicts.measure import METRICS, measure
from pytest_atomtrace.verdicts.missing_steps import few_steps_hint
from pytest_atomtrace.verdicts.outcome import Figure, Outcome, Verdict
from pytest_atomtrace.verdicts.question import refuse_ranks
from pytest_atomtrace.verdicts.steps import Timing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_atomtrace.trace.data import RankData, Step
    from pytest_atomtrace.verdicts.view import TraceView

__all__ = ["STATISTICS", "needed_steps", "step_time"]

PER_KTOK = "prefill_per_ktok"
STATISTICS = {
    "p50": lambda timing: timing.p50_ns,
    "p90": lambda timing: timing.p90_ns,
    "p99": lambda timing: timing.p99_ns,
    "mean": lambda timing: timing.mean_ns,
    "max": lambda timing: timing.max_ns,
}
# Two observations beyond the quantile: 1 / (1 - q) steps hold one on average, and one outlier is no tail.
_FACTORS = {"p50": 1.0, "mean": 1.0, "max": 1.0, "p90": 2.5, "p99": 10.0}


def needed_steps(statistic: str, least: int) -> int:
    """Steady steps that a statistic needs; `least` is the setting for a median (20)."""
    return round(least * _FACTORS[statistic])


def step_time(
    trace: TraceView,
    kind: str,
    budgets: Mapping[str, str | None],
    *,
    metric: str,
    ranks: str | Sequence[str],
    bs: int | None = None,
) -> Verdict:
    """Judge the budgets of one kind of step; with ``ranks="worst"`` the slowest rank counts.

    `bs` asks about steps of one real batch instead of those near the peak.

    Raises:
        ConfigError: no budget, a budget without a unit, an unknown metric.
        InconclusiveError: times cannot be believed, or there are too few steady steps.

    """
    limits = {name: parse_duration_ns(text, where=name) for name, text in budgets.items() if text is not None}
    if not limits:
        raise ConfigError(f'no budget given: write p50="9.5 ms" (or {", ".join(STATISTICS)})')
    asked: object = bs  # specs bring values of any type
    if asked is not None and (not isinstance(asked, int) or isinstance(asked, bool) or asked < 1):
        raise ConfigError(f"bs must be a whole number of at least 1, got {bs!r}")
    refuse_ranks(ranks, "worst", "all")
    what = kind if bs is None else f"{kind} bs={bs}"
    if metric == PER_KTOK:
        if bs is not None:
            raise ConfigError(f"{PER_KTOK} is one figure a window, of all its steps; bs={bs} says nothing beside it")
        return _prefill_rate(trace, kind, limits, ranks)
    if metric not in tuple(METRICS):
        raise ConfigError(f"there is no metric {metric!r}{did_you_mean(metric, [*METRICS, PER_KTOK])}")
    trace.require_times()
    trace.require_kind(kind)
    selected = trace.select_ranks("all" if ranks == "worst" else ranks)
    timings: dict[str, tuple[RankData, list[Step], Timing]] = {}
    for rank in selected:
        steps = trace.steady_steps(rank, kind, bs=bs)
        for statistic in limits:
            need = needed_steps(statistic, trace.settings.steady_min)
            if len(steps) < need:
                raise InsufficientStepsError(
                    what, statistic, len(steps), need, rank=rank.name, hint=few_steps_hint(trace, kind)
                )
        values = measure(metric, rank, steps, accepted_length=trace.accepted_length)
        if not values:
            raise InsufficientStepsError(what, metric, 0, 1, rank=rank.name, hint=few_steps_hint(trace, kind))
        timings[rank.name] = (rank, steps[: len(values)], Timing(values))
    if metric == "gpu_span":
        _refuse_launch_bound(timings, kind)
    return _judge(trace, what, limits, metric, timings)


def _prefill_rate(trace: TraceView, kind: str, limits: Mapping[str, int], ranks: str | Sequence[str]) -> Verdict:
    """GPU busy time per 1,000 prompt tokens: one figure a window, so only a mean can be asked for."""
    if kind != "prefill" or set(limits) != {"mean"}:
        raise ConfigError(f'{PER_KTOK} is one figure a window of prefills: assert_step_time("prefill", mean=...)')
    trace.require_times()
    trace.require_kind(kind)
    rates: dict[str, int] = {}
    for rank in trace.select_ranks("all" if ranks == "worst" else ranks):
        rate = prefill_per_ktok_ns(rank)
        if rate is None:
            have = sum(step.kind == kind for step in rank.steps)
            hint = "The first step is left out; a smaller --max-num-batched-tokens makes more prefill steps."
            raise InsufficientStepsError(kind, PER_KTOK, have, 4, rank=rank.name, hint=hint)
        rates[rank.name] = round(rate)
    worst = max(rates, key=lambda name: rates[name])
    limit_ns = limits["mean"]
    check = f"prefill time per 1,000 tokens <= {format_duration(limit_ns)}"
    facts: dict[str, str | int | float | bool] = {
        "mean_ns": rates[worst],
        "mean_budget_ns": limit_ns,
        "rank": worst,
    }
    figures = (Figure(f"{kind} time per 1,000 tokens", "mean_ns", rates[worst], limit_ns, format_duration, rank=worst),)
    figure = f"1,000 prompt tokens take {format_duration(rates[worst])} of GPU busy time on {worst}"
    if rates[worst] <= limit_ns:
        return Verdict(check, Outcome.PASS, f"{figure}, within {format_duration(limit_ns)}.", (), (), facts, figures)
    over = (rates[worst] / limit_ns - 1) * 100
    shown = [f"{name}: {format_duration(ns)}" for name, ns in sorted(rates.items(), key=lambda kv: -kv[1])][:8]
    sentence = f"{figure}, over the budget of {format_duration(limit_ns)} by {over:.1f} %."
    lines = block([("ranks", shown), *trace.footer(None, kind)])
    return Verdict(check, Outcome.FAIL, sentence, lines, (), facts, figures)


def _refuse_launch_bound(timings: Mapping[str, tuple[RankData, list[Step], Timing]], kind: str) -> None:
    for name, (_, steps, timing) in timings.items():
        busy = Timing(tuple(step.gpu_busy_ns for step in steps)).p50_ns
        ratio = timing.p50_ns / busy if busy else float("inf")
        if ratio > SPAN_LIMIT:
            raise InconclusiveError(
                f"gpu_span of {kind} on {name} is {ratio:.2f} times its busy time (limit {SPAN_LIMIT:.2f}): the "
                "step waits for launches, so the span carries the profiler's own cost. Use the metric gpu_busy."
            )


def _judge(
    trace: TraceView,
    what: str,
    limits: Mapping[str, int],
    metric: str,
    timings: Mapping[str, tuple[RankData, list[Step], Timing]],
) -> Verdict:
    over: list[tuple[float, str, str, int, int]] = []
    shown: list[str] = []
    figures: list[Figure] = []
    kind = what.partition(" ")[0]
    facts: dict[str, str | int | float | bool] = {"metric": metric, "kind": kind}
    for statistic, limit_ns in limits.items():
        values = {name: STATISTICS[statistic](timing) for name, (_, _, timing) in timings.items()}
        worst = max(values, key=lambda name: values[name])
        shown.append(f"{statistic} {format_duration(values[worst])} of {format_duration(limit_ns)} on {worst}")
        facts[f"{statistic}_ns"] = values[worst]
        facts[f"{statistic}_budget_ns"] = limit_ns
        name = f"{what} {statistic} ({metric})"
        figures.append(Figure(name, f"{statistic}_ns", values[worst], limit_ns, format_duration, rank=worst))
        if values[worst] > limit_ns:
            over.append((values[worst] / limit_ns, statistic, worst, values[worst], limit_ns))
    wanted = ", ".join(f"{name} <= {format_duration(ns)}" for name, ns in limits.items())
    check = f"{what} step time {wanted} ({metric})"
    if not over:
        sentence = f"A {what} step stays within its budget: {'; '.join(shown)} ({metric})."
        return Verdict(check, Outcome.PASS, sentence, (), (), facts, tuple(figures))
    ratio, statistic, name, value_ns, limit_ns = max(over)
    rank, steps, timing = timings[name]
    sentence = (
        f"{what} {statistic} is {format_duration(value_ns)} on {name}, over the budget of "
        f"{format_duration(limit_ns)} by {(ratio - 1) * 100:.1f} % ({format_duration(value_ns - limit_ns)}); "
        f"{metric}, {count_of(len(steps), 'steady step')}."
    )
    slowest = max(range(len(steps)), key=lambda i: timing.values_ns[i])
    step = steps[slowest]
    lines = block(
        [
            ("budgets", shown),
            ("ranks", _rank_lines(timings)),
            (
                "slowest",
                [
                    f"step {step.index} {step.label.text}: {format_duration(timing.values_ns[slowest])}",
                    step_time_text(step),
                ],
            ),
            ("waiting", collective_waits(trace, {name: steps for name, (_, steps, _) in timings.items()}, name)),
            ("kernels", _top_kernels(trace, rank, steps, timing)),
            *trace.footer(None, kind, step=step),
        ]
    )
    facts |= {"rank": name, "statistic": statistic, "step": step.index}
    return Verdict(check, Outcome.FAIL, sentence, lines, (), facts, tuple(figures))


def _rank_lines(timings: Mapping[str, tuple[RankData, list[Step], Timing]]) -> list[str]:
    lines = []
    for name, (_, _, timing) in sorted(timings.items(), key=lambda kv: -kv[1][2].p50_ns)[:8]:
        lines.append(
            f"{name}: p50 {format_duration(timing.p50_ns)}, min {format_duration(timing.min_ns)}, "
            f"max {format_duration(timing.max_ns)}, n {timing.n}"
        )
    return lines


def _top_kernels(trace: TraceView, rank: RankData, steps: Sequence[Step], timing: Timing) -> list[str]:
    median = min(range(len(steps)), key=lambda i: abs(timing.values_ns[i] - timing.p50_ns))
    rows = trace.kernels_of_step(rank, steps[median])[:5]
    total_ns = sum(row[2] for row in trace.kernels_of_step(rank, steps[median])) or 1
    lines = [f"of the median step {steps[median].index}, by GPU time:"]
    lines += [
        f"{format_duration(ns):>9} {ns / total_ns * 100:4.1f} %  {count:>4} x {short_name(name)}"
        for name, count, ns in rows
    ]
    return lines
