"""Presence, absence and counts: exact answers, on every selected rank."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from pytest_atomtrace.errors import InconclusiveError, InsufficientStepsError
from pytest_atomtrace.verdicts.absent_ops import launched_by, op_in_graph
from pytest_atomtrace.verdicts.evidence import block, count_of, listed, on_ranks, shown, step_rows
from pytest_atomtrace.verdicts.missing_steps import few_steps_hint
from pytest_atomtrace.verdicts.occurrences import Occurrences, occurrences, steps_calling
from pytest_atomtrace.verdicts.outcome import Outcome, Verdict
from pytest_atomtrace.verdicts.question import Question
from pytest_atomtrace.verdicts.suggestions import nearest_names

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_atomtrace.trace.data import RankData, Step
    from pytest_atomtrace.trace.names import Pattern
    from pytest_atomtrace.verdicts.view import TraceView

__all__ = ["Question", "absent", "called"]


def called(trace: TraceView, question: Question) -> Verdict:
    """Judge "this name is called".

    Raises:
        ConfigError: the question is wrong.
        InconclusiveError: the trace cannot answer it.

    """
    pattern = question.check()
    trace.require("steps" if question.during else "counts")
    ranks = trace.select_ranks(question.ranks)
    check = f"called {question.text}"
    if question.per_step is not None:
        return _called_per_step(trace, question, pattern, ranks, check)
    phases = trace.phases_of(question.during)
    if question.during is not None:
        trace.require_steps_of(question.during)
    seen = occurrences(ranks, pattern)
    layer = question.layer or seen.best_layer(phases)
    if layer is None:
        return _nowhere(trace, question, ranks, seen, check)
    counts = {rank.name: seen.count(rank.name, layer, phases) for rank in ranks}
    wrong = {name: n for name, n in counts.items() if not _fits(question, n)}
    any_rank = question.ranks == "any"
    if wrong and (not any_rank or len(wrong) == len(ranks)):
        if not any(counts.values()):
            return _nowhere(trace, question, ranks, seen, check)
        return _wrong_counts(trace, question, seen, layer, counts, wrong, check)
    names = seen.names(layer)
    sentence = (
        f"{question.name} is called: found as {layer} in {seen.where(layer, phases)}, "
        f"{_spread(counts)} {on_ranks(list(counts))}."
    )
    return Verdict(
        check,
        Outcome.PASS,
        sentence,
        block([("matched", [listed(shown(names))])]),
        facts={"layer": layer, "calls": sum(counts.values()), "ranks": len(ranks)},
    )


def _fits(question: Question, count: int) -> bool:
    return count == question.exactly if question.exactly is not None else count >= question.at_least


def _spread(counts: Mapping[str, int]) -> str:
    low, high = min(counts.values()), max(counts.values())
    return count_of(low, "call") if low == high else f"{low:,} to {high:,} calls"


def _wrong_counts(
    trace: TraceView,
    question: Question,
    seen: Occurrences,
    layer: str,
    counts: Mapping[str, int],
    wrong: Mapping[str, int],
    check: str,
) -> Verdict:
    wanted = f"exactly {question.exactly}" if question.exactly is not None else f"at least {question.at_least}"
    rank, count = next(iter(wrong.items()))
    phase = f" during {question.during}" if question.during else ""
    sentence = (
        f"{question.name} is called {count_of(count, 'time')}{phase} on {rank}, expected {wanted} "
        f"({len(wrong)} of {count_of(len(counts), 'rank')} differ)."
    )
    lines = block(
        [
            ("layer", layer),
            ("ranks", listed([f"{name}: {n}" for name, n in counts.items()], limit=8)),
            ("phases", [seen.phase_text(rank)]),
            ("matched", listed(shown(seen.names(layer)))),
            *trace.footer(question.name, question.during),
        ]
    )
    return Verdict(check, Outcome.FAIL, sentence, lines, facts={"rank": rank, "calls": count, "layer": layer})


def _nowhere(trace: TraceView, question: Question, ranks: Sequence[RankData], seen: Occurrences, check: str) -> Verdict:
    phase = f" during {question.during}" if question.during else ""
    layer = f" as {question.layer}" if question.layer else ""
    reason = op_in_graph(trace, question.name, question.during, ranks, seen)
    sentence = (
        reason or f"{question.name} is not called{phase}{layer} {on_ranks([r.name for r in ranks], any_of=True)}."
    )
    elsewhere = [f"{where}" for where in seen.everywhere()]
    rows: list[tuple[str, str | Sequence[str]]] = [
        ("expected", question.text),
        ("searched", f"kernels, ops and annotations of {count_of(len(ranks), 'rank')}{phase}"),
        ("seen as", elsewhere),
        ("launches", launched_by(ranks[0], question.name) if reason else ""),
    ]
    if not elsewhere:
        rows.append(("nearest", nearest_names(question.name, ranks)))
    rows += trace.footer(question.name, None)
    return Verdict(check, Outcome.FAIL, sentence, block(rows), facts={"calls": 0, "ranks": len(ranks)})


def _called_per_step(
    trace: TraceView, question: Question, pattern: Pattern, ranks: Sequence[RankData], check: str
) -> Verdict:
    kind = question.during or ""
    want = question.per_step or 0
    trace.require_kind(kind)
    differing: list[tuple[RankData, Step, int]] = []
    tallies: dict[str, Counter[int]] = {}
    names: set[str] = set()
    judged: list[tuple[str, int]] = []
    for rank in ranks:
        steps = trace.countable_steps(rank, kind)
        if not steps:
            raise InsufficientStepsError(
                kind, "a count per step", 0, 1, rank=rank.name, hint=few_steps_hint(trace, kind)
            )
        counts, matched = steps_calling(rank, pattern, kind)
        names |= matched
        tally: Counter[int] = Counter(int(counts[step.index]) for step in steps)
        tallies[rank.name] = tally
        judged += [(rank.name, step.index) for step in steps]
        differing += [(rank, step, int(counts[step.index])) for step in steps if counts[step.index] != want]
    total = sum(sum(tally.values()) for tally in tallies.values())
    facts: dict[str, str | int | float | bool] = {"per_step": want, "steps": total, "ranks": len(ranks)}
    if not differing:
        sentence = (
            f"{question.name} is called {count_of(want, 'time')} in each of {count_of(total, kind + ' step')} "
            f"{on_ranks(list(tallies))}."
        )
        lines = block([("matched", listed(shown(sorted(names))))])
        return Verdict(check, Outcome.PASS, sentence, lines, trace.count_notes(judged), facts)
    seen = occurrences(ranks, pattern)
    if not names and not seen.count_all("kernel"):
        return _nowhere(trace, question, ranks, seen, check)
    rank, step, count = differing[0]
    bad_ranks = list(dict.fromkeys(r.name for r, _, _ in differing))
    sentence = (
        f"{question.name} is called {count_of(count, 'time')} in {kind} step {step.index} of {rank.name}, "
        f"expected {want} in every steady step ({len(differing)} of {count_of(total, 'step')} differ, "
        f"{on_ranks(bad_ranks)})."
    )
    lines = block(
        [
            *step_rows(step),
            ("counts", [_tally_text(name, tally, want) for name, tally in tallies.items()][:9]),
            ("phases", [seen.phase_text(rank.name)]),
            ("matched", listed(shown(sorted(names))) or "nothing in these steps"),
            *trace.footer(question.name, kind, step=step),
        ]
    )
    facts |= {"rank": rank.name, "step": step.index, "calls": count, "differing": len(differing)}
    return Verdict(check, Outcome.FAIL, sentence, lines, facts=facts)


def _tally_text(rank: str, tally: Counter[int], want: int) -> str:
    parts = [f"{count_of(n, 'step')} with {calls}" for calls, n in sorted(tally.items(), key=lambda kv: -kv[1])]
    mark = "" if set(tally) == {want} else "  <-"
    return f"{rank}: {listed(parts, limit=4)}{mark}"


def absent(trace: TraceView, question: Question) -> Verdict:
    """Judge "this name is not called".

    Raises:
        ConfigError: the question is wrong, or the pattern does not match its own example.
        InconclusiveError: the trace cannot answer it; absence of an op from replayed graphs proves nothing.

    """
    pattern = question.check_absence()
    trace.require("steps" if question.during else "counts")
    ranks = trace.select_ranks(question.ranks)
    phases = trace.phases_of(question.during)
    if question.during is not None:
        trace.require_steps_of(question.during)
    seen = occurrences(ranks, pattern)
    check = f"not called {question.text}"
    layers = (question.layer,) if question.layer else ("kernel", "memory", "op")
    found = [(layer, seen.count_all(layer, phases)) for layer in layers if seen.count_all(layer, phases)]
    phase = f" during {question.during}" if question.during else ""
    if found:
        layer, total = found[0]
        guilty = [rank for rank in ranks if seen.count(rank.name, layer, phases)]
        sentence = (
            f"{question.name} is called {count_of(total, 'time')}{phase} as {layer} "
            f"{on_ranks([r.name for r in guilty])}, expected never."
        )
        step = trace.first_step_with(guilty[0], pattern)
        rows: list[tuple[str, str | Sequence[str]]] = [
            ("matched", listed(shown(seen.names(layer)))),
            ("phases", [seen.phase_text(guilty[0].name)]),
            ("ranks", listed([f"{r.name}: {seen.count(r.name, layer, phases)}" for r in guilty], limit=8)),
            *(step_rows(step) if step is not None else []),
            *trace.footer(question.name, question.during, step=step),
        ]
        facts: dict[str, str | int | float | bool] = {"calls": total, "layer": layer, "rank": guilty[0].name}
        facts |= {"step": step.index} if step is not None else {}
        return Verdict(check, Outcome.FAIL, sentence, block(rows), facts=facts)
    reason = op_in_graph(trace, question.name, question.during, ranks, seen)
    if reason:
        raise InconclusiveError(f"{reason} Its absence there proves nothing.")
    sentence = f"{question.name} is not called{phase} {on_ranks([r.name for r in ranks], any_of=True)}."
    notes = (
        ()
        if question.example is not None or seen.everywhere()
        else (
            "unproven: the pattern has matched nothing and has no example, so a typo would be green for ever; add "
            "example='a real kernel name that it must match'",
        )
    )
    return Verdict(check, Outcome.PASS, sentence, (), notes, {"calls": 0, "ranks": len(ranks)})
