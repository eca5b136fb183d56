"""What weakens a comparison with a baseline, or is to be known beside it: one line each in the summary."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_atomtrace.verdicts.evidence import count_of
from pytest_atomtrace.verdicts.recording import WARNING
from pytest_atomtrace.verdicts.regression import Result, Rule
from pytest_atomtrace.verdicts.regression_text import count_differences, subject

if TYPE_CHECKING:
    from pytest_atomtrace.verdicts.no_regression import Judged

__all__ = ["comparison_notes"]

_SHOWN = 3
_UPDATE_ALL = "--atom-update-baselines=all"


def comparison_notes(judged: Judged) -> tuple[str, ...]:
    """The notes of one judgement."""
    notes = [_once(judged), _disturbed(judged), _suspicious(judged), _improved(judged), _wide(judged)]
    notes += [*_drift(judged), _kernels(judged)]
    return tuple(note for note in notes if note)


def _once(judged: Judged) -> str:
    """A slow launch that the next one did not repeat."""
    if not judged.worse or judged.failing:
        return ""
    parts = []
    for name in judged.worse:
        again = judged.second[name].change
        parts.append(f"{subject(name)} {judged.first[name].change * 100:+.1f} %, then {again * 100:+.1f} %")
    more = f"; and {len(parts) - _SHOWN} more" if len(parts) > _SHOWN else ""
    return f"slow once: {'; '.join(parts[:_SHOWN])}{more} on a second launch"


def _disturbed(judged: Judged) -> str:
    """Where the evidence of a failure does not say it: why a launch may have been slow once, or only looks fast."""
    if judged.failing or judged.drifted or not judged.disturbed:
        return ""
    return f"disturbed: {'; '.join(judged.disturbed)}"


def _suspicious(judged: Judged) -> str:
    found = [one for one in judged.first.values() if one.result is Result.SUSPICIOUS]
    if not found:
        return ""
    fewest = count_of(min(one.n_baseline for one in found), "launch", "launches")
    return (
        f"suspicious: {', '.join(one.name for one in found)} beyond the limit, but the baseline has {fewest} "
        f"where {Rule.least_launches} are needed to fail"
    )


def _improved(judged: Judged) -> str:
    found = [f"{name} {one.change * 100:+.1f} %" for name, one in judged.first.items() if one.result is Result.IMPROVED]
    return f"improved: {', '.join(found)}; record it with {_UPDATE_ALL} to keep it" if found else ""


def _wide(judged: Judged) -> str:
    warning = judged.baseline.recorded.get(WARNING)
    return f"the baseline's limit is wide: {warning}; record it again with {_UPDATE_ALL}" if warning else ""


def _drift(judged: Judged) -> list[str]:
    if judged.drift is None:
        return [f"drift is not watched: {judged.anchor.why_none}; recording with {_UPDATE_ALL} writes it anew"]
    if abs(judged.drift) <= judged.drift_limit / 2:
        return []
    return [f"drift: {judged.drift * 100:+.1f} % since the anchor (limit {judged.drift_limit * 100:g} %)"]


def _kernels(judged: Judged) -> str:
    differing = count_differences(judged.baseline, judged.figures.profile)
    if not differing or judged.failing:
        return ""
    return f"kernels of a decode step are not those of the baseline: {'; '.join(differing[:4])}"
