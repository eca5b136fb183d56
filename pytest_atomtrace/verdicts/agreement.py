"""Do the ranks of a tensor-parallel group do the same work, and in the same time?"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from pytest_atomtrace.errors import ConfigError, InsufficientStepsError
from pytest_atomtrace.trace.collectives import COLLECTIVE_FAMILIES, align_collectives
from pytest_atomtrace.trace.data import KERNEL
from pytest_atomtrace.trace.families import family
from pytest_atomtrace.trace.intervals import union_length
from pytest_atomtrace.trace.layout import tp_groups
from pytest_atomtrace.trace.names import base_name
from pytest_atomtrace.units import format_duration, parse_growth
from pytest_atomtrace.verdicts.evidence import block, count_of
from pytest_atomtrace.verdicts.missing_steps import few_steps_hint
from pytest_atomtrace.verdicts.outcome import Figure, Outcome, Verdict, share_text
from pytest_atomtrace.verdicts.steps import Timing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_atomtrace.trace.data import RankData, Step
    from pytest_atomtrace.verdicts.view import TraceView

__all__ = ["collective_waits", "ranks_agree", "work_ns"]

# Steps that are aligned call by call for an explanation; the picture does not change with more.
ALIGNED_STEPS = 20


def work_ns(rank: RankData, step: Step) -> int:
    """GPU busy time of a step without its collectives, which wait for the slowest rank and hide who it is."""
    rows = step.rows[rank.kind[step.rows] == KERNEL]
    waits = np.array([family(name) in COLLECTIVE_FAMILIES for name in rank.names], dtype=bool)
    rows = rows[~waits[rank.name_id[rows]]]
    start = rank.start_ns[rows]
    return union_length(start, start + rank.dur_ns[rows])


def ranks_agree(trace: TraceView, *, counts: bool, skew: str | None, during: str) -> Verdict:
    """Judge that ranks call the same kernels per step, and that no rank's own work is slower than `skew` allows.

    Raises:
        ConfigError: nothing asked, or a skew that is no share.
        InconclusiveError: the trace cannot answer.

    """
    asked_counts: object = counts  # specs bring values of any type
    if not isinstance(asked_counts, bool):
        raise ConfigError(f"counts is True or False, got {counts!r}")
    if not counts and skew is None:
        raise ConfigError('nothing asked: counts=True, or skew="5 %"')
    limit = parse_growth(skew, where="skew") if skew is not None else None
    if skew is not None:
        trace.require_times()
    else:
        trace.require("steps")
    trace.require_kind(during)
    steady: dict[str, list[Step]] = {}
    for name, rank in trace.data.ranks.items():
        steady[name] = trace.countable_steps(rank, during)
        if not steady[name]:
            raise InsufficientStepsError(
                during, "a comparison of ranks", 0, 1, rank=name, hint=few_steps_hint(trace, during)
            )
    groups = tp_groups(list(trace.data.ranks))
    asked = ["counts"] * counts + [f"skew <= {limit * 100:g} %" for limit in [limit] if limit is not None]
    check = f"ranks agree during {during}: {', '.join(asked)}"
    for members in groups.values():
        if counts:
            verdict = _counts_differ(trace, members, steady, check, during)
            if verdict is not None:
                return verdict
    figures: tuple[Figure, ...] = ()
    if limit is not None:
        verdict = max(
            (_skew(trace, members, steady, limit, check, during) for members in groups.values()),
            key=lambda one: one.figures[0].value,
        )
        if verdict.outcome is not Outcome.PASS:
            return verdict
        figures = verdict.figures
    sizes = sorted(len(members) for members in groups.values())
    sentence = (
        f"{count_of(len(steady), 'rank')} in {count_of(len(groups), 'group')} of {sizes[0]} to {sizes[-1]} agree "
        f"during {during}."
    )
    facts: dict[str, str | int | float | bool] = {"ranks": len(steady), "groups": len(groups)}
    return Verdict(check, Outcome.PASS, sentence, (), (), facts, figures)


def collective_waits(trace: TraceView, steps: Mapping[str, Sequence[Step]], rank: str) -> list[str]:
    """Who waits in collectives and who is late, in the tensor-parallel group of `rank`; empty for a group of one.

    A slow kernel on one rank makes the all-reduce longer on all others: the wait is charged to the late rank.
    """
    group = next(members for members in tp_groups(list(trace.data.ranks)).values() if rank in members)
    members = [name for name in group if name in steps]
    if len(members) < 2:
        return []
    window = {name: list(steps[name])[:ALIGNED_STEPS] for name in members}
    report = align_collectives({name: trace.data.ranks[name] for name in members}, window)
    count = min(len(window[name]) for name in members)
    if not report.calls or report.latest is None or not count:
        return []
    late, waits = report.latest, report.wait_ns
    most = max(waits, key=lambda name: waits[name])
    share = report.late_calls[late] / report.calls
    return [
        f"{late} comes last to {share * 100:.0f} % of the collectives; per step the others wait for it "
        f"{format_duration(report.charged_ns[late] / count / (len(members) - 1))} on average",
        f"transfer itself takes {format_duration(report.transfer_ns / count)} per step; {most} waits longest, "
        f"{format_duration(waits[most] / count)}",
    ]


def _per_step(rank: RankData, steps: Sequence[Step]) -> dict[str, Counter[int]]:
    """Calls per step by base name: how many steps have how many calls."""
    bases = [base_name(name) for name in rank.names]
    known = {base: index for index, base in enumerate(dict.fromkeys(bases))}
    base_id = np.array([known[base] for base in bases], dtype=np.int64)
    tallies: dict[str, Counter[int]] = {base: Counter() for base in known}
    for step in steps:
        rows = step.rows[rank.kind[step.rows] == KERNEL]
        calls = np.bincount(base_id[rank.name_id[rows]], minlength=len(known))
        for base, index in known.items():
            tallies[base][int(calls[index])] += 1
    return {base: tally for base, tally in tallies.items() if set(tally) != {0}}


def _most_common(tally: Counter[int] | None) -> int:
    return tally.most_common(1)[0][0] if tally else 0


def _counts_differ(
    trace: TraceView, members: Sequence[str], steady: Mapping[str, list[Step]], check: str, during: str
) -> Verdict | None:
    tables = {name: _per_step(trace.data.ranks[name], steady[name]) for name in members}
    names = sorted({base for table in tables.values() for base in table})
    differing: list[tuple[str, str, int, int]] = []
    for base in names:
        counts = {name: _most_common(tables[name].get(base)) for name in members}
        usual = Counter(counts.values()).most_common(1)[0][0]
        differing += [(base, name, n, usual) for name, n in counts.items() if n != usual]
    if not differing:
        return None
    base, name, count, usual = differing[0]
    sentence = (
        f"{name} differs from its {len(members) - 1} peers during {during}: {base} is called {count} times a step "
        f"where the others call it {usual} times ({count_of(len(differing), 'difference')})."
    )
    lines = block(
        [
            ("differs", [f"{who}: {what} {n} a step, others {usual}" for what, who, n, usual in differing][:12]),
            *trace.footer(base, during),
        ]
    )
    return Verdict(check, Outcome.FAIL, sentence, lines, facts={"rank": name, "kernel": base, "calls": count})


def _skew(
    trace: TraceView,
    members: Sequence[str],
    steady: Mapping[str, list[Step]],
    limit: float,
    check: str,
    during: str,
) -> Verdict:
    work = {
        name: Timing(tuple(work_ns(trace.data.ranks[name], step) for step in steady[name])).p50_ns for name in members
    }
    middle = sorted(work.values())[(len(work) - 1) // 2]
    slowest = max(work, key=lambda name: work[name])
    skew = work[slowest] / middle - 1 if middle else 0.0
    name = f"the skew of ranks in a {during} step"
    figures = (Figure(name, "skew", skew, limit, share_text, rank=slowest),)
    facts: dict[str, str | int | float | bool] = {"rank": slowest, "skew": round(skew, 4)}
    if skew <= limit:
        return Verdict(check, Outcome.PASS, "", (), (), facts, figures)
    sentence = (
        f"{slowest} works {skew * 100:.1f} % longer per {during} step than the middle rank, over the limit of "
        f"{limit * 100:g} % ({format_duration(work[slowest])} against {format_duration(middle)}, collectives left out)."
    )
    shown = [f"{name}: {format_duration(ns)}" for name, ns in sorted(work.items(), key=lambda kv: -kv[1])]
    lines = block([("work p50", shown[:9]), *trace.footer(None, during)])
    return Verdict(check, Outcome.FAIL, sentence, lines, (), facts, figures)
