"""The check against a baseline: figures, the rule, and a second launch where it matters."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from statistics import fmean, median
from typing import TYPE_CHECKING

from pytest_atomtrace.errors import ConfigError, InconclusiveError, InfraError, NoBaselineError, UnhealthyTraceError
from pytest_atomtrace.units import parse_growth
from pytest_atomtrace.verdicts.anchor import Anchor, read_anchor
from pytest_atomtrace.verdicts.baseline_place import anchor_path, baseline_path, machine_name, others_of
from pytest_atomtrace.verdicts.baseline_reading import usable_baseline
from pytest_atomtrace.verdicts.evidence import near_path
from pytest_atomtrace.verdicts.fingerprint import fingerprint
from pytest_atomtrace.verdicts.health_view import DISTURBING
from pytest_atomtrace.verdicts.outcome import Outcome, Verdict
from pytest_atomtrace.verdicts.recording import record_once
from pytest_atomtrace.verdicts.regression import STEP_GROUP, Figures, Result, Rule, confirmed, judge
from pytest_atomtrace.verdicts.regression_notes import comparison_notes
from pytest_atomtrace.verdicts.regression_text import (
    counts_verdict,
    evidence,
    headline,
    typical_step,
)
from pytest_atomtrace.verdicts.step_profile import profile_steps
from pytest_atomtrace.verdicts.window_figures import FAMILY_PREFIX, FAMILY_SHARE, STEP, WindowFigures, measure_window

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_atomtrace.verdicts.baseline import Baseline
    from pytest_atomtrace.verdicts.launches import Launches
    from pytest_atomtrace.verdicts.regression import Comparison
    from pytest_atomtrace.verdicts.view import TraceView

__all__ = ["COUNTS", "FAMILIES_WORD", "KNOWN_METRICS", "Judged", "no_regression"]

COUNTS, FAMILIES_WORD = "counts", "families"
KNOWN_METRICS = (STEP, FAMILIES_WORD, "decode.iteration", "draft.gpu_busy", "prefill.per_ktok", COUNTS)
# What nobody would act on: of a step, and of one family within it.
STEP_FLOOR_NS, STEP_FLOOR_SHARE, FAMILY_FLOOR_NS = 20_000.0, 0.01, 5_000.0


@dataclass
class Judged:
    """What is known while judging: comparisons of the first launch, of the second if one was taken, and why not.

    `disturbed`: findings of the launches that make their times doubtful.
    """

    baseline: Baseline
    first: Mapping[str, Comparison]
    figures: WindowFigures
    anchor: Anchor
    second: Mapping[str, Comparison] = field(default_factory=dict)
    not_confirmed: str = ""
    disturbed: tuple[str, ...] = ()
    drift: float | None = None
    drift_limit: float = 0.1

    @property
    def worse(self) -> list[str]:
        """Metrics that the first launch calls a regression."""
        return [name for name, one in self.first.items() if one.result is Result.REGRESSION]

    @property
    def drifted(self) -> bool:
        """Beyond the limit of the anchor, where the baseline has launches enough to call anything a failure."""
        firm = self.baseline.launches >= Rule.least_launches
        return firm and self.drift is not None and self.drift > self.drift_limit

    @property
    def failing(self) -> list[str]:
        """Metrics that fail: those that both launches call a regression, or the first where there is no second."""
        return self.worse if self.not_confirmed else confirmed(self.first, self.second)


def no_regression(
    trace: TraceView, launches: Launches, *, tolerance: str | None, metrics: Sequence[str] | None
) -> Verdict:
    """Judge a case against its baseline, or record one where that was asked for.

    Raises:
        ConfigError: an unknown metric, a tolerance without a unit, times of a case on random weights.
        NoBaselineError: there is none for this case on this hardware.
        InconclusiveError: a window cannot be believed, too few steps, a metric that the window does not have.
        InfraError: a launch for a baseline failed.

    """
    asked = _asked(trace, metrics)
    if asked == (COUNTS,) and tolerance is not None:
        raise ConfigError(f"counts are exact: there is nothing that tolerance={tolerance!r} could be applied to")
    rule = Rule(tolerance=parse_growth(tolerance or trace.settings.tolerance, where="tolerance"))
    times = asked != (COUNTS,)
    trace.require("times" if times else "steps")
    allowed = f"tolerance {rule.tolerance * 100:g} %" if times else "exact"
    check = f"no regression of {', '.join(asked)} ({allowed})"
    now = fingerprint(trace)
    slug = trace.case.slug if trace.case is not None else ""
    if trace.settings.update_baselines:
        recorded = record_once(trace, launches, check, times=times)
        if recorded is not None:
            return recorded
    baseline = _baseline(trace, launches)
    if not times:
        profile = profile_steps(trace, "decode")
        return counts_verdict(trace, check, baseline, profile, accept=launches.command("all"))
    anchor = read_anchor(anchor_path(launches.baselines, now, slug), slug, now, launches.command("all"))
    judged = _judge(trace, launches, baseline, asked, rule, anchor=anchor)
    return _verdict(trace, launches, check, judged, counted=COUNTS in asked)


def _asked(trace: TraceView, metrics: Sequence[str] | None) -> tuple[str, ...]:
    asked = tuple(dict.fromkeys(metrics)) if metrics is not None else (STEP, FAMILIES_WORD)
    if not asked or isinstance(metrics, str):
        raise ConfigError(f"metrics must be a list of {', '.join(KNOWN_METRICS)}")
    for name in asked:
        if name not in KNOWN_METRICS and not name.startswith(FAMILY_PREFIX):
            close = difflib.get_close_matches(str(name), KNOWN_METRICS, n=1)
            mean = f"; did you mean {close[0]!r}?" if close else ""
            raise ConfigError(f"metric {name!r} is not one of {', '.join(KNOWN_METRICS)}{mean}")
    if trace.case is None:
        raise ConfigError("a baseline belongs to a case, and this trace has none (its manifest names no case)")
    if trace.case.load_dummy and asked != (COUNTS,):
        raise ConfigError("load_dummy runs on random weights: its times say nothing; ask for metrics=['counts']")
    return asked


def _baseline(trace: TraceView, launches: Launches) -> Baseline:
    now = fingerprint(trace)
    slug = trace.case.slug if trace.case is not None else ""
    path = baseline_path(launches.baselines, now, slug)
    found = usable_baseline(path, slug, launches.command("all"))
    if found is None:
        others = others_of(launches.baselines, slug)
        if others:
            here = machine_name(now.folder, now.hardware)
            problem = f"there is one for {', '.join(others)}, none for {here}"
            raise NoBaselineError(slug, "hardware", problem, launches.command("missing"))
        raise NoBaselineError(slug, "missing", f"{path} does not exist", launches.command("missing"))
    misfit = found.misfit(now)
    if misfit is not None:
        raise NoBaselineError(slug, misfit[0], misfit[1], launches.command("all"))
    if not found.kernels:
        raise NoBaselineError(slug, "damaged", f"{path}: it lists no kernels", launches.command("all"))
    return found


def _judge(
    trace: TraceView,
    launches: Launches,
    baseline: Baseline,
    asked: tuple[str, ...],
    rule: Rule,
    *,
    anchor: Anchor,
) -> Judged:
    windows = launches.windows(1)
    taken = [measure_window(window) for window in windows]
    names = _names(baseline, asked, launches)
    judged = Judged(baseline, judge(_figures(baseline, names, taken), rule), taken[-1], anchor)
    judged.disturbed = _disturbed(1, windows)
    _refuse_insufficient(judged, launches)
    judged.drift_limit = parse_growth(trace.settings.drift, where="drift")
    judged.drift = _drift(taken, anchor.step_ns)
    if not judged.worse and not judged.drifted:
        return judged
    reason = launches.no_more if trace.settings.confirm == "launch" else "--atom-confirm=never"
    if not reason:
        what = ", ".join(judged.worse) or "drifted from its anchor"
        launches.say(f"slower than its baseline ({what}): one more launch to confirm it")
        try:
            windows = launches.windows(2)
            again = [measure_window(window) for window in windows]
            judged.second = judge(_figures(baseline, names, again), rule)
            # One slow launch is no drift: the faster of the two counts.
            drifts = [one for one in (judged.drift, _drift(again, anchor.step_ns)) if one is not None]
            judged.drift = min(drifts, default=None)
            judged.disturbed += _disturbed(2, windows)
        except UnhealthyTraceError as error:
            reason = f"the second launch cannot be believed: {'; '.join(error.findings)}"
        except (InfraError, InconclusiveError) as error:
            reason = str(error).splitlines()[0]
    judged.not_confirmed = reason
    return judged


def _disturbed(number: int, windows: Sequence[TraceView]) -> tuple[str, ...]:
    """What else was going on in a launch's windows, each thing once; it forbids no times and may explain them."""
    found = [str(finding) for window in windows for finding in window.health if finding.code in DISTURBING]
    return tuple(f"launch {number}: {text}" for text in dict.fromkeys(found))


def _names(baseline: Baseline, asked: tuple[str, ...], launches: Launches) -> list[str]:
    names: list[str] = []
    for name in asked:
        if name == COUNTS:
            continue
        if name == FAMILIES_WORD:
            found = _large_families(baseline)
            if not found:
                raise _lacking(baseline, "kernel family with 5 % of the step", launches)
            names += found
        elif name in baseline.metrics:
            names.append(name)
        else:
            raise _lacking(baseline, name, launches)
    return list(dict.fromkeys(names))


def _lacking(baseline: Baseline, what: str, launches: Launches) -> NoBaselineError:
    have = ", ".join(sorted(baseline.metrics)) or "counts only, no times"
    return NoBaselineError(baseline.case, "metric", f"it has no {what}; it has {have}", launches.command("all"))


def _refuse_insufficient(judged: Judged, launches: Launches) -> None:
    for name, one in judged.first.items():
        if one.result is Result.INSUFFICIENT:
            problem = f"{name} cannot be compared: {one.n_baseline} launches of it, with a mean of {one.baseline:g} ns"
            raise NoBaselineError(judged.baseline.case, "metric", problem, launches.command("all"))


def _large_families(baseline: Baseline) -> list[str]:
    step = _mean(baseline, STEP)
    return [
        name
        for name in sorted(baseline.metrics)
        if name.startswith(FAMILY_PREFIX) and step and _mean(baseline, name) >= FAMILY_SHARE * step
    ]


def _mean(baseline: Baseline, name: str) -> float:
    values = [one for windows in baseline.metrics.get(name, ()) for one in windows]
    return fmean(values) if values else 0.0


def _figures(baseline: Baseline, names: Sequence[str], taken: Sequence[WindowFigures]) -> list[Figures]:
    found = []
    for name in names:
        family = name.startswith(FAMILY_PREFIX)
        now = tuple(float(one.metrics[name]) for one in taken if name in one.metrics)
        if not now and not family:
            raise InconclusiveError(f"the window has no {name} to compare (too few steps of that kind)")
        found.append(
            Figures(
                name=name,
                baseline=tuple(tuple(float(one) for one in windows) for windows in baseline.metrics[name]),
                # A family that is gone takes no time at all; attribution says what came in its place.
                now=(now or (0.0,),),
                floor=FAMILY_FLOOR_NS if family else STEP_FLOOR_NS,
                floor_share=0.0 if family else STEP_FLOOR_SHARE,
                group="family" if family else STEP_GROUP,
            )
        )
    return found


def _drift(taken: Sequence[WindowFigures], anchor_ns: float) -> float | None:
    """Relative change of the step since the anchor: what many small steps have added up to."""
    return median(one.metrics[STEP] for one in taken) / anchor_ns - 1 if anchor_ns else None


def _verdict(trace: TraceView, launches: Launches, check: str, judged: Judged, *, counted: bool) -> Verdict:
    facts: dict[str, str | int | float | bool] = {}
    for name, one in judged.first.items():
        facts[f"{name}.change"] = round(one.change, 5)
        facts[f"{name}.limit"] = round(one.limit, 5)
        facts[f"{name}.result"] = one.result.value
    facts["attempts"] = 2 if judged.second else 1
    if judged.drift is not None:
        facts["drift"] = round(judged.drift, 5)
    else:
        facts["no_drift"] = judged.anchor.reason
    failing = judged.failing
    if not failing and counted:
        profile, accept = judged.figures.profile, launches.command("all")
        counts = counts_verdict(trace, check, judged.baseline, profile, accept=accept)
        if counts.outcome is not Outcome.PASS:
            return counts
    if not failing and not judged.drifted:
        return Verdict(check, Outcome.PASS, headline(judged, failing), notes=comparison_notes(judged), facts=facts)
    place = baseline_path(launches.baselines, fingerprint(trace), judged.baseline.case)
    accept = launches.command("all")
    if not failing:
        anchor = anchor_path(launches.baselines, fingerprint(trace), judged.baseline.case)
        accept = f"move the anchor: delete {near_path(anchor)}, then {accept}"
    lines = evidence(trace, judged, place, accept=accept)
    facts["confirmed"] = bool(failing) and not judged.not_confirmed
    step = typical_step(trace, judged)
    if step is not None:
        facts |= {"rank": step.rank, "step": step.index}
    return Verdict(check, Outcome.REGRESSION, headline(judged, failing), lines, comparison_notes(judged), facts)
