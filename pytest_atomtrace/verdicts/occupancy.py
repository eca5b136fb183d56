"""Occupancy, bubbles and launch cost over a whole steady run, between steps too.

The three questions of ATOM's own tests/test_profiler_regression.py: is the GPU busy, are there gaps, what
does a graph launch cost on the host. Occupancy here is a union over streams, so it never exceeds 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_atomtrace.errors import ConfigError, InconclusiveError, InsufficientStepsError
from pytest_atomtrace.trace.metrics import gpu_use, launch_cost
from pytest_atomtrace.units import format_duration, parse_duration_ns, parse_least_share
from pytest_atomtrace.verdicts.evidence import block, count_of, on_ranks
from pytest_atomtrace.verdicts.missing_steps import few_steps_hint
from pytest_atomtrace.verdicts.outcome import Figure, Outcome, Verdict, share_text

if TYPE_CHECKING:
    from pytest_atomtrace.trace.data import RankData
    from pytest_atomtrace.trace.metrics import GpuUse
    from pytest_atomtrace.verdicts.view import TraceView

__all__ = ["gaps", "gpu_busy", "launch_time"]


def _steady_run(trace: TraceView, rank: RankData, kind: str, longer_than_ns: int) -> tuple[GpuUse, int]:
    """Use of the GPU from the first steady step's first kernel to the last one's end, and how many steps."""
    steps = trace.steady_steps(rank, kind)
    need = trace.settings.steady_min
    if len(steps) < need:
        raise InsufficientStepsError(
            kind, "occupancy", len(steps), need, rank=rank.name, hint=few_steps_hint(trace, kind)
        )
    use = gpu_use(rank, steps[0].first_ns, steps[-1].last_ns, longer_than_ns=longer_than_ns)
    return use, len(steps)


def gpu_busy(trace: TraceView, kind: str, *, at_least: str) -> Verdict:
    """Judge the share of a steady run in which some kernel runs, on the least busy rank.

    Raises:
        ConfigError: `at_least` is no share, or one that always or never holds.
        InconclusiveError: times cannot be believed, too few steady steps.

    """
    limit = parse_least_share(at_least, where="at_least")
    trace.require_times()
    trace.require_kind(kind)
    uses = {rank.name: _steady_run(trace, rank, kind, 0) for rank in trace.data.ranks.values()}
    worst = min(uses, key=lambda name: uses[name][0].share)
    use, steps = uses[worst]
    check = f"GPU busy during {kind} at least {limit * 100:g} %"
    facts: dict[str, str | int | float | bool] = {"share": round(use.share, 4), "rank": worst}
    name = f"the busy share of the steady {kind} run"
    figures = (Figure(name, "share", use.share, limit, share_text, at_least=True, rank=worst),)
    if use.share >= limit:
        sentence = f"The GPU is busy {use.share * 100:.1f} % of the steady {kind} run or more {on_ranks(list(uses))}."
        return Verdict(check, Outcome.PASS, sentence, (), (), facts, figures)
    sentence = (
        f"The GPU is busy {use.share * 100:.1f} % of the steady {kind} run on {worst}, under {limit * 100:g} %: "
        f"{format_duration(use.span_ns - use.busy_ns)} idle over {count_of(steps, 'step')}."
    )
    lines = block([("ranks", _rank_lines(uses)), ("longest", _longest(use)), *trace.footer(None, kind)])
    return Verdict(check, Outcome.FAIL, sentence, lines, (), facts, figures)


def _rank_lines(uses: dict[str, tuple[GpuUse, int]]) -> list[str]:
    rows = sorted(uses.items(), key=lambda kv: kv[1][0].share)[:8]
    return [f"{name}: {use.share * 100:.1f} % busy, {count_of(len(use.gaps_ns), 'gap')}" for name, (use, _) in rows]


def _longest(use: GpuUse) -> str:
    longest = sorted(use.gaps_ns, reverse=True)[:5]
    return f"gaps {', '.join(format_duration(ns) for ns in longest)}" if longest else ""


def gaps(trace: TraceView, *, longer_than: str, at_most: int, during: str) -> Verdict:
    """Judge how many idle gaps longer than a limit lie in a steady run, on the rank with most of them.

    Raises:
        ConfigError: `longer_than` is no duration, `at_most` no whole number.
        InconclusiveError: times cannot be believed, too few steady steps.

    """
    limit_ns = parse_duration_ns(longer_than, where="longer_than")
    allowed: object = at_most  # specs bring values of any type
    if not isinstance(allowed, int) or isinstance(allowed, bool) or allowed < 0:
        raise ConfigError(f"at_most must be a whole number, got {at_most!r}")
    trace.require_times()
    trace.require_kind(during)
    uses = {rank.name: _steady_run(trace, rank, during, limit_ns) for rank in trace.data.ranks.values()}
    worst = max(uses, key=lambda name: len(uses[name][0].gaps_ns))
    use, steps = uses[worst]
    found = len(use.gaps_ns)
    check = f"at most {at_most} gaps longer than {format_duration(limit_ns)} during {during}"
    facts: dict[str, str | int | float | bool] = {"gaps": found, "rank": worst}
    name = f"the number of gaps longer than {format_duration(limit_ns)} in the steady {during} run"
    figures = (Figure(name, "gaps", found, allowed, "{:g}".format, rank=worst),)
    sentence = (
        f"{count_of(found, 'gap')} longer than {format_duration(limit_ns)} lie in the steady {during} run of {worst} "
        f"({count_of(steps, 'step')}), "
    )
    if found <= at_most:
        return Verdict(check, Outcome.PASS, f"{sentence}{at_most} are allowed.", (), (), facts, figures)
    lines = block([("ranks", _rank_lines(uses)), ("longest", _longest(use)), *trace.footer(None, during)])
    return Verdict(check, Outcome.FAIL, f"{sentence}only {at_most} are allowed.", lines, (), facts, figures)


def launch_time(trace: TraceView, *, mean: str, api: str) -> Verdict:
    """Judge the mean host cost of one launch API, on the slowest rank.

    Raises:
        ConfigError: `mean` is no duration.
        InconclusiveError: host times cannot be believed, or nothing was launched by `api`.

    """
    limit_ns = parse_duration_ns(mean, where="mean")
    asked: object = api  # specs bring values of any type
    if not isinstance(asked, str):
        raise ConfigError(f"api is the name of a runtime call such as hipGraphLaunch, got {api!r}")
    trace.require_times()
    costs = {rank.name: launch_cost(rank, api=api) for rank in trace.data.ranks.values()}
    without = [name for name, cost in costs.items() if not cost.count]
    if without:
        seen = sorted({rank.names[i] for rank in trace.data.ranks.values() for i in rank.launches.name_id})
        raise InconclusiveError(
            f"No {api} call {on_ranks(without)}, so its cost cannot be judged. Launch calls seen: "
            f"{', '.join(seen) or 'none'}."
        )
    worst = max(costs, key=lambda name: costs[name].mean_ns)
    cost = costs[worst]
    check = f"mean {api} <= {format_duration(limit_ns)}"
    facts: dict[str, str | int | float | bool] = {
        "mean_ns": round(cost.mean_ns),
        "rank": worst,
        "calls": cost.count,
    }
    figures = (Figure(f"mean {api}", "mean_ns", cost.mean_ns, limit_ns, format_duration, rank=worst),)
    if cost.mean_ns <= limit_ns:
        sentence = f"{api} costs {format_duration(cost.mean_ns)} on the host on average, within the budget."
        return Verdict(check, Outcome.PASS, sentence, (), (), facts, figures)
    over = (cost.mean_ns / limit_ns - 1) * 100
    sentence = (
        f"{api} costs {format_duration(cost.mean_ns)} on the host on average on {worst}, over the budget of "
        f"{format_duration(limit_ns)} by {over:.1f} % ({count_of(cost.count, 'call')})."
    )
    shown = [f"{name}: {format_duration(c.mean_ns)} over {count_of(c.count, 'call')}" for name, c in costs.items()]
    lines = block([("ranks", shown[:8]), *trace.footer(None, None)])
    return Verdict(check, Outcome.FAIL, sentence, lines, (), facts, figures)
