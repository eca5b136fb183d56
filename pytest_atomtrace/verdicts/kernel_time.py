"""GPU time budgets of one kernel or one family of kernels within a step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pytest_atomtrace.errors import ConfigError, InsufficientStepsError
from pytest_atomtrace.trace.data import KERNEL
from pytest_atomtrace.trace.families import FAMILIES, family
from pytest_atomtrace.trace.intervals import union_length
from pytest_atomtrace.units import format_duration, parse_duration_ns, parse_most_share
from pytest_atomtrace.verdicts.evidence import block, count_of, did_you_mean, listed, shown, step_time_text
from pytest_atomtrace.verdicts.missing_steps import few_steps_hint
from pytest_atomtrace.verdicts.occurrences import matching_ids
from pytest_atomtrace.verdicts.outcome import Figure, Outcome, Verdict, share_text
from pytest_atomtrace.verdicts.question import parse_pattern
from pytest_atomtrace.verdicts.steps import Timing

if TYPE_CHECKING:
    from pytest_atomtrace.trace.data import RankData, Step
    from pytest_atomtrace.verdicts.view import TraceView

__all__ = ["kernel_time"]

FAMILY = "family:"


@dataclass(frozen=True)
class _Measured:
    rank: str
    steps: list[Step]
    busy: Timing
    share: float
    calls: int
    names: list[str]


def kernel_time(trace: TraceView, name: str, *, during: str, per_step: str | None, share: str | None) -> Verdict:
    """Judge the median GPU time per steady step (union over streams) of what `name` matches, on the worst rank.

    `name` is a pattern, or ``family:moe_gemm`` for a whole family. `share` is of the step's GPU busy time.

    Raises:
        ConfigError: no budget, an unknown family.
        InconclusiveError: times cannot be believed, too few steady steps.

    """
    limit_ns = parse_duration_ns(per_step, where="per_step") if per_step is not None else None
    limit_share = parse_most_share(share, where="share") if share is not None else None
    if limit_ns is None and limit_share is None:
        raise ConfigError('no budget given: per_step="1.2 ms" or share="30 %"')
    trace.require_times()
    trace.require_kind(during)
    measured = [_of_rank(trace, rank, name, during) for rank in trace.data.ranks.values()]
    budgets = [format_duration(limit_ns)] if limit_ns is not None else []
    budgets += [f"{limit_share * 100:g} % of the step"] if limit_share is not None else []
    check = f"GPU time of {name} per {during} step <= {' and '.join(budgets)}"
    absent = [one.rank for one in measured if not one.calls]
    if absent:
        sentence = (
            f"{name} has no call in the steady {during} steps of {listed(absent)}, so a time budget says nothing."
        )
        return Verdict(check, Outcome.FAIL, sentence, block(trace.footer(name, during)), facts={"calls": 0})
    slow = max(measured, key=lambda one: one.busy.p50_ns)
    wide = max(measured, key=lambda one: one.share)
    facts: dict[str, str | int | float | bool] = {"p50_ns": slow.busy.p50_ns, "share": round(wide.share, 4)}
    figures = _figures(name, during, slow, wide, limit_ns=limit_ns, limit_share=limit_share)
    problems = []
    if limit_ns is not None and slow.busy.p50_ns > limit_ns:
        over = (slow.busy.p50_ns / limit_ns - 1) * 100
        problems.append(
            f"takes {format_duration(slow.busy.p50_ns)} per {during} step on {slow.rank}, over the budget of "
            f"{format_duration(limit_ns)} by {over:.1f} %"
        )
    if limit_share is not None and wide.share > limit_share:
        problems.append(
            f"takes {wide.share * 100:.1f} % of a {during} step on {wide.rank}, over the budget of "
            f"{limit_share * 100:g} %"
        )
    if not problems:
        sentence = (
            f"{name} takes {format_duration(slow.busy.p50_ns)} ({wide.share * 100:.1f} %) per {during} step at most, "
            f"within {' and '.join(budgets)}."
        )
        return Verdict(check, Outcome.PASS, sentence, (), (), facts, figures)
    # The problem that is named first decides whose longest step is shown.
    worst = slow if limit_ns is not None and slow.busy.p50_ns > limit_ns else wide
    longest = max(range(len(worst.steps)), key=lambda i: worst.busy.values_ns[i])
    step = worst.steps[longest]
    lines = block(
        [
            ("matched", listed(shown(slow.names))),
            ("ranks", [_line(one) for one in sorted(measured, key=lambda one: -one.busy.p50_ns)][:8]),
            (
                "longest",
                [
                    f"{worst.rank} step {step.index} {step.label.text}: "
                    f"{format_duration(worst.busy.values_ns[longest])}",
                    step_time_text(step),
                ],
            ),
            *trace.footer(None if name.startswith(FAMILY) else name, during, step=step),
        ]
    )
    facts |= {"rank": worst.rank, "step": step.index}
    return Verdict(check, Outcome.FAIL, f"{name} {'; it '.join(problems)}.", lines, (), facts, figures)


def _figures(
    name: str,
    during: str,
    slow: _Measured,
    wide: _Measured,
    *,
    limit_ns: int | None,
    limit_share: float | None,
) -> tuple[Figure, ...]:
    figures = []
    if limit_ns is not None:
        text = f"the time of {name} per {during} step"
        figures.append(Figure(text, "p50_ns", slow.busy.p50_ns, limit_ns, format_duration, rank=slow.rank))
    if limit_share is not None:
        text = f"the share of {name} in a {during} step"
        figures.append(Figure(text, "share", wide.share, limit_share, share_text, rank=wide.rank))
    return tuple(figures)


def _line(one: _Measured) -> str:
    calls = one.calls / len(one.steps)
    return (
        f"{one.rank}: p50 {format_duration(one.busy.p50_ns)}, {one.share * 100:.1f} % of the step, "
        f"{calls:g} calls a step, {count_of(len(one.steps), 'step')}"
    )


def _wanted(rank: RankData, name: str) -> np.ndarray:
    asked_name: object = name  # tests bring values of any type
    if not isinstance(asked_name, str) or not name.startswith(FAMILY):
        return matching_ids(rank, parse_pattern(name))
    asked = name.removeprefix(FAMILY)
    if asked not in FAMILIES:
        raise ConfigError(f"there is no family {asked!r}{did_you_mean(asked, FAMILIES)}")
    return np.array([family(text) == asked for text in rank.names], dtype=bool)


def _of_rank(trace: TraceView, rank: RankData, name: str, during: str) -> _Measured:
    steps = trace.steady_steps(rank, during)
    need = trace.settings.steady_min
    if len(steps) < need:
        raise InsufficientStepsError(
            during, "a kernel's time", len(steps), need, rank=rank.name, hint=few_steps_hint(trace, during)
        )
    wanted = _wanted(rank, name)
    busy: list[int] = []
    calls = 0
    names: set[int] = set()
    for step in steps:
        rows = step.rows[rank.kind[step.rows] == KERNEL]
        rows = rows[wanted[rank.name_id[rows]]]
        start = rank.start_ns[rows]
        busy.append(union_length(start, start + rank.dur_ns[rows]))
        calls += len(rows)
        names.update(np.unique(rank.name_id[rows]).tolist())
    whole = sum(step.gpu_busy_ns for step in steps)
    share = sum(busy) / whole if whole else 0.0
    return _Measured(rank.name, steps, Timing(tuple(busy)), share, calls, sorted(rank.names[i] for i in names))
