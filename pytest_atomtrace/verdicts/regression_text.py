"""The words of a comparison with a baseline."""

from __future__ import annotations

from statistics import fmean, median
from typing import TYPE_CHECKING

from pytest_atomtrace.trace.names import short_name
from pytest_atomtrace.units import format_duration
from pytest_atomtrace.verdicts.attribution import attribute
from pytest_atomtrace.verdicts.attribution_text import attribution_rows, signed
from pytest_atomtrace.verdicts.evidence import block, count_of, near_path, on_ranks, step_rows
from pytest_atomtrace.verdicts.outcome import Outcome, Verdict
from pytest_atomtrace.verdicts.recording import WARNING
from pytest_atomtrace.verdicts.regression import Comparison, Result
from pytest_atomtrace.verdicts.window_figures import FAMILY_PREFIX, STEP

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from pytest_atomtrace.trace.data import Step
    from pytest_atomtrace.verdicts.baseline import Baseline
    from pytest_atomtrace.verdicts.no_regression import Judged
    from pytest_atomtrace.verdicts.step_profile import StepProfile
    from pytest_atomtrace.verdicts.view import TraceView

__all__ = [
    "attempt_row",
    "comparison_rows",
    "count_differences",
    "counts_verdict",
    "evidence",
    "headline",
    "subject",
    "typical_step",
]

_SHOWN = 6
_FINDINGS = 4
_DIFFERING = 12
_WORDS = {
    STEP: "a decode step",
    "decode.iteration": "a decode iteration",
    "draft.gpu_busy": "a draft step",
    "prefill.per_ktok": "prefill of 1,000 tokens",
}


def subject(name: str) -> str:
    """A metric in words."""
    if name.startswith(FAMILY_PREFIX):
        return f"{name.removeprefix(FAMILY_PREFIX)} in a decode step"
    return _WORDS.get(name, name)


def _worst(comparisons: Sequence[Comparison]) -> Comparison:
    return max(comparisons, key=lambda one: (one.difference > 0, abs(one.change) / (one.limit or 1.0)))


def headline(judged: Judged, failing: Sequence[str]) -> str:
    """The one sentence."""
    if failing:
        one = _worst([judged.first[name] for name in failing])
        again = judged.second.get(one.name)
        confirm = f"not confirmed: {judged.not_confirmed}" if again is None else "confirmed by a second launch"
        return (
            f"{subject(one.name)} is {one.change * 100:.1f} % slower than its baseline: "
            f"{format_duration(one.now)} against {format_duration(one.baseline)} ({signed(one.difference)}, limit "
            f"{one.limit * 100:.1f} %); {confirm}."
        )
    if judged.drifted and judged.drift is not None:
        step = judged.first.get(STEP)
        though = ", though it is within its limit of the baseline" if step is not None and _inside(step) else ""
        return (
            f"a decode step has drifted by {judged.drift * 100:.1f} % since its anchor, over the limit of "
            f"{judged.drift_limit * 100:g} %{though}."
        )
    one = judged.first.get(STEP) or _worst(list(judged.first.values()))
    return (
        f"{subject(one.name)} takes {format_duration(one.now)}, {one.change * 100:+.1f} % against its baseline "
        f"(limit {one.limit * 100:.1f} %, {count_of(one.n_baseline, 'launch', 'launches')})."
    )


def evidence(trace: TraceView, judged: Judged, place: Path, *, accept: str) -> tuple[str, ...]:
    """Everything that a reader needs to act."""
    profile = judged.figures.profile
    step = judged.first.get(STEP)
    found = attribute(judged.baseline.kernels, _step_of(judged.baseline), profile)
    spread = f", spread {step.spread * 100:.1f} %" if step is not None else ""
    middle = typical_step(trace, judged)
    rows: list[tuple[str, str | Sequence[str]]] = [
        ("judged", comparison_rows(judged.first)),
        ("attempts", _attempts(judged)),
        ("health", _health(judged)),
        *attribution_rows(found),
        ("drift", _drift(judged)),
        ("baseline", f"{near_path(place)} ({count_of(judged.baseline.launches, 'launch', 'launches')}{spread})"),
        ("wide", str(judged.baseline.recorded.get(WARNING, ""))),
        ("accept", f"if it is meant: {accept}"),
        *(step_rows(middle) if middle is not None else []),
        *trace.footer(None, "decode", step=middle),
    ]
    return block(rows)


def typical_step(trace: TraceView, judged: Judged) -> Step | None:
    """The median decode step of the rank with the most work of its own."""
    rank = trace.data.ranks.get(judged.figures.profile.busiest)
    return trace.median_step(rank, "decode") if rank is not None else None


def _step_of(baseline: Baseline) -> float:
    """The baseline's step time, whether it was asked about or not: a failing family is a part of it."""
    return fmean(median(windows) for windows in baseline.metrics[STEP])


def comparison_rows(comparisons: Mapping[str, Comparison]) -> list[str]:
    """A line for each metric, worst first; what became of those that are not shown is counted."""
    ordered = sorted(comparisons.values(), key=lambda one: -one.change / (one.limit or 1.0))
    lines = [
        f"{one.name.removeprefix('decode.'):<22} {format_duration(one.baseline):>9} -> "
        f"{format_duration(one.now):>9} {one.change * 100:+6.1f} %  limit {one.limit * 100:4.1f} %  {_word(one)}"
        for one in ordered[:_SHOWN]
    ]
    if len(ordered) > _SHOWN:
        words = [_word(one) for one in ordered[_SHOWN:]]
        lines.append("and " + ", ".join(f"{words.count(word)} more {word}" for word in dict.fromkeys(words)))
    return lines


def _inside(one: Comparison) -> bool:
    return abs(one.change) <= one.limit


def _word(one: Comparison) -> str:
    """What became of one metric, in a table."""
    if one.result is Result.OK and not _inside(one):
        return f"ok, under {format_duration(one.floor)}"
    return {Result.REGRESSION: "SLOWER", Result.IMPROVED: "faster"}.get(one.result, one.result.value)


def _attempts(judged: Judged) -> list[str]:
    names = judged.failing or judged.worse or [STEP if STEP in judged.first else next(iter(judged.first))]
    name = _worst([judged.first[one] for one in names]).name
    lines = [attempt_row(1, judged.first[name])]
    if name in judged.second:
        lines.append(attempt_row(2, judged.second[name]))
    elif judged.not_confirmed:
        lines.append(f"launch 2: not confirmed: {judged.not_confirmed}")
    return lines


def _health(judged: Judged) -> list[str]:
    if not judged.disturbed:
        return []
    rest = len(judged.disturbed) - _FINDINGS
    more = [f"and {rest} more"] if rest > 0 else []
    return [*judged.disturbed[:_FINDINGS], *more, "so the times may not be the program's alone: look at it first"]


def attempt_row(number: int, one: Comparison) -> str:
    """What a launch says of one metric."""
    if _inside(one):
        word = "within the limit"
    elif one.result is Result.OK:
        word = f"beyond the limit of {one.limit * 100:.1f} %, but less than {format_duration(one.floor)}"
    else:
        word = "beyond the limit" if one.difference > 0 else "faster, beyond the limit"
    return f"launch {number}: {one.name} {format_duration(one.now)}, {one.change * 100:+.1f} %: {word}"


def _drift(judged: Judged) -> str:
    if judged.drift is None:
        return f"not watched: {judged.anchor.why_none}"
    return f"{judged.drift * 100:+.1f} % since the anchor (limit {judged.drift_limit * 100:g} %)"


def count_differences(baseline: Baseline, profile: StepProfile) -> list[str]:
    """Kernels that came or went, and calls per step that changed, on all ranks or on some."""
    now = profile.usage()
    found = [f"{short_name(name)} is new" for name in now if name not in baseline.kernels]
    found += [f"{short_name(name)} is gone" for name in baseline.kernels if name not in now]
    for name, use in now.items():
        before = baseline.kernels.get(name)
        if before is None:
            continue
        if before.calls != use.calls:
            found.append(f"{short_name(name)} {before.calls} -> {use.calls} calls")
            continue
        meant = baseline.ranks.get(name, {})
        changed: dict[tuple[int, int], list[str]] = {}
        for rank, calls in profile.calls_by_rank(name).items():
            expected = meant.get(rank, before.calls)
            if calls != expected:
                changed.setdefault((expected, calls), []).append(rank)
        for (expected, calls), ranks in changed.items():
            found.append(f"{short_name(name)} {expected} -> {calls} calls {on_ranks(ranks)}")
    return found


def counts_verdict(trace: TraceView, check: str, baseline: Baseline, profile: StepProfile, *, accept: str) -> Verdict:
    """Calls per step must be those of the baseline, exactly."""
    differing = count_differences(baseline, profile)
    if not differing:
        calls = sum(use.calls for use in baseline.kernels.values())
        ranks = list(profile.ranks)
        where = on_ranks(ranks) if profile.one_group else f"(median of {len(ranks)} ranks)"
        sentence = f"A decode step makes the baseline's {calls:,} kernel calls {where}."
        return Verdict(check, Outcome.PASS, sentence, facts={"calls": calls})
    sentence = f"The kernels of a decode step are not those of its baseline: {differing[0]}."
    more = [f"and {len(differing) - _DIFFERING} more"] if len(differing) > _DIFFERING else []
    differs = [*differing[:_DIFFERING], *more]
    rows = [("differs", differs), ("accept", f"if it is meant: {accept}"), *trace.footer(None, "decode")]
    lines = block(rows)
    return Verdict(check, Outcome.FAIL, sentence, lines, facts={"differences": len(differing)})
