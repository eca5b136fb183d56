"""One window against the baseline of its case: bands to draw, and what the difference is made of."""

from __future__ import annotations

from statistics import fmean, median
from typing import TYPE_CHECKING

from pytest_atomtrace.errors import AtomTraceError
from pytest_atomtrace.report.detail import BaselineBand, BaselineChange, BaselineComparison
from pytest_atomtrace.units import parse_share
from pytest_atomtrace.verdicts.attribution import attribute
from pytest_atomtrace.verdicts.baseline_place import anchor_path, baseline_path, machine_name, others_of
from pytest_atomtrace.verdicts.baseline_reading import read_baseline
from pytest_atomtrace.verdicts.evidence import near_path
from pytest_atomtrace.verdicts.fingerprint import fingerprint
from pytest_atomtrace.verdicts.no_regression import (
    FAMILY_FLOOR_NS,
    STEP_FLOOR_NS,
    STEP_FLOOR_SHARE,
)
from pytest_atomtrace.verdicts.regression import STEP_GROUP, Figures, Rule, judge
from pytest_atomtrace.verdicts.window_figures import FAMILY_PREFIX, FAMILY_SHARE, STEP, measure_window

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_atomtrace.verdicts.attribution import Attribution
    from pytest_atomtrace.verdicts.baseline import Baseline
    from pytest_atomtrace.verdicts.regression import Comparison
    from pytest_atomtrace.verdicts.trace import Trace
    from pytest_atomtrace.verdicts.window_figures import WindowFigures

__all__ = ["comparison_of"]


def comparison_of(trace: Trace, root: Path) -> BaselineComparison | None:
    """Compare with the baseline in `root`; None where nobody has recorded one of this case anywhere."""
    if trace.case is None:
        return None
    now = fingerprint(trace)
    slug = trace.case.slug
    path = baseline_path(root, now, slug)
    place = near_path(path)
    try:
        baseline = read_baseline(path, case=slug)
        if baseline is None:
            others = others_of(root, slug)
            here = machine_name(now.folder, now.hardware)
            problem = f"There is a baseline for {', '.join(others)}, none for {here}."
            return BaselineComparison(place, problem) if others else None
        misfit = baseline.misfit(now)
        if misfit is not None:
            return BaselineComparison(place, f"Not comparable ({misfit[0]}): {misfit[1]}.")
        anchor = read_baseline(anchor_path(root, now, slug), case=slug)
        if anchor is not None and anchor.misfit(now) is not None:
            anchor = None
        return _compared(place, baseline, anchor, measure_window(trace), trace.settings.tolerance)
    except AtomTraceError as error:
        return BaselineComparison(place, f"Nothing to compare: {error}")


def _compared(
    place: str, baseline: Baseline, anchor: Baseline | None, window: WindowFigures, tolerance: str
) -> BaselineComparison:
    rule = Rule(tolerance=parse_share(tolerance, where="tolerance"))
    step_ns = _mean(baseline, STEP)
    figures = [_figures(name, baseline, window) for name in sorted(baseline.metrics) if name in window.metrics]
    # A family below this share of the step is not judged by the check either.
    figures = [one for one in figures if one.group == STEP_GROUP or _mean(baseline, one.name) >= FAMILY_SHARE * step_ns]
    judged = judge(figures, rule)
    bands = [_band(one, judged[one.name]) for one in figures if judged[one.name].baseline > 0]
    bands.sort(key=lambda band: (band.metric != STEP, band.metric.startswith(FAMILY_PREFIX), -band.mean_ns))
    found = attribute(baseline.kernels, step_ns, window.profile) if step_ns and baseline.kernels else None
    anchor_ns = round(_mean(anchor, STEP)) if anchor is not None else None
    base = BaselineComparison(place, bands=tuple(bands), anchor_ns=anchor_ns or None)
    return base if found is None else _explained(base, found)


def _figures(name: str, baseline: Baseline, window: WindowFigures) -> Figures:
    of_family = name.startswith(FAMILY_PREFIX)
    return Figures(
        name=name,
        baseline=tuple(tuple(float(one) for one in windows) for windows in baseline.metrics[name]),
        now=((float(window.metrics[name]),),),
        floor=FAMILY_FLOOR_NS if of_family else STEP_FLOOR_NS,
        floor_share=0.0 if of_family else STEP_FLOOR_SHARE,
        group="family" if of_family else STEP_GROUP,
    )


def _band(figures: Figures, one: Comparison) -> BaselineBand:
    launches = [median(windows) for windows in figures.baseline if windows]
    # Both must be exceeded: the relative limit, and the least difference that anybody would act on.
    limit = max(one.baseline * (1 + one.limit), one.baseline + one.floor)
    return BaselineBand(
        metric=one.name,
        mean_ns=round(one.baseline),
        low_ns=round(min(launches)),
        high_ns=round(max(launches)),
        limit_ns=round(limit),
        now_ns=round(one.now),
        change=one.change,
        result=one.result.value,
        launches=one.n_baseline,
    )


def _explained(base: BaselineComparison, found: Attribution) -> BaselineComparison:
    changes = tuple(
        BaselineChange(
            sort=one.sort,
            before=one.before,
            after=one.after,
            family=one.family,
            before_calls=one.before_calls,
            after_calls=one.after_calls,
            before_ns=round(one.before_ns),
            after_ns=round(one.after_ns),
            delta_ns=round(one.delta_ns),
            ranks=one.ranks,
        )
        for one in found.changes
    )
    return BaselineComparison(
        path=base.path,
        bands=base.bands,
        anchor_ns=base.anchor_ns,
        step_ns=round(found.step_ns),
        rank=found.rank,
        alike=found.alike,
        alike_ns=round(found.alike_ns),
        same_ns=round(found.same_ns),
        rest_ns=round(found.rest_ns),
        changes=changes,
        families=tuple((name, round(ns)) for name, ns in found.families if round(ns)),
    )


def _mean(baseline: Baseline, name: str) -> float:
    values = [one for windows in baseline.metrics.get(name, ()) for one in windows]
    return fmean(values) if values else 0.0
