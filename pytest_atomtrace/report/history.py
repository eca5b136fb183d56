"""`atomtrace history`: one metric of one case over the runs that were kept.

Numbers come from each run's report and from the small files beside its captures; a trace is read only where neither
has them. Simulated and real figures never share a series, nor do two kinds of GPU. A run that judged saved captures
again measured nothing and is left out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pytest_atomtrace.report.baseline_history import Recording, recordings
from pytest_atomtrace.report.history_metric import Metric, parse_metric
from pytest_atomtrace.report.history_runs import KeptRun, kept_runs, resolve_case
from pytest_atomtrace.units import parse_share
from pytest_atomtrace.verdicts.baseline_place import baseline_files
from pytest_atomtrace.verdicts.environment import changes
from pytest_atomtrace.verdicts.evidence import near_path
from pytest_atomtrace.verdicts.regression import Figures, Rule, compare_launch

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pytest_atomtrace.settings import Settings
    from pytest_atomtrace.verdicts.regression import Comparison

__all__ = ["Band", "History", "Mark", "Point", "Series", "read_history"]

_SHA = 8


@dataclass(frozen=True)
class Mark:
    """Something that happened between the run before and this one: `kind` is ``baseline`` or ``environment``."""

    kind: str
    text: str


@dataclass(frozen=True)
class Band:
    """What the baseline in force allows one launch; in the metric's unit."""

    middle: float
    low: float
    high: float
    launches: int
    commit: str


@dataclass(frozen=True)
class Point:
    """One run. `change` is relative to the last run before it that has a value; `judged` is the place to the band."""

    run: str
    directory: str
    taken_unix_s: float
    value: float | None
    change: float | None
    band: Band | None
    judged: str
    outcome: str
    problem: str
    marks: tuple[Mark, ...]


@dataclass(frozen=True)
class Series:
    """The runs of one machine kind in the order of time."""

    simulated: bool
    machine: str
    baseline: str
    points: tuple[Point, ...]

    @property
    def last_band(self) -> Band | None:
        """The band that holds today."""
        return self.points[-1].band if self.points else None


@dataclass(frozen=True)
class History:
    """`series`, that of the latest run first; `problems` name what could not be read; `replays` counts what was left
    out.
    """

    case: str
    metric: Metric
    series: tuple[Series, ...]
    replays: int
    problems: tuple[str, ...]


def read_history(word: str, place: Path, *, metric: str, baselines: Path, settings: Settings) -> History:
    """Put the series together.

    Raises:
        ConfigError: no case, or several, go by `word`; an unknown metric.
        TraceFileError: there are no runs at `place`.

    """
    wanted = parse_metric(metric)
    found = kept_runs(place)
    slug = resolve_case(word, found.slugs, place)
    runs, problems = found.of_case(slug, wanted, settings)
    measured = [run for run in runs if not run.replay]
    machines = dict.fromkeys(run.machine for run in sorted(measured, key=lambda run: -run.taken_unix_s))
    series = [
        _series(slug, [run for run in measured if run.machine == machine], wanted, baselines, settings)
        for machine in machines
    ]
    return History(slug, wanted, tuple(series), len(runs) - len(measured), tuple(problems))


def _series(slug: str, runs: Sequence[KeptRun], metric: Metric, baselines: Path, settings: Settings) -> Series:
    runs = sorted(runs, key=lambda run: (run.taken_unix_s, run.run))
    path, known = _baseline_of(slug, runs[-1], baselines)
    points: list[Point] = []
    last: float | None = None
    facts: dict[str, str] = {}
    force: Recording | None = None
    for run in runs:
        marks = [Mark("environment", text) for text in changes(facts, run.facts)] if facts else []
        facts.update(run.facts)
        # A variable that is gone must not come back as a change of the run after.
        facts = {key: value for key, value in facts.items() if key in run.facts or not key.startswith("env.")}
        now = next((one for one in reversed(known) if one.since_unix_s <= run.taken_unix_s), None)
        if now is not None and now is not force and points:
            marks.insert(0, Mark("baseline", _updated(force, now, metric, settings)))
        force = now
        if run.recorded:
            marks.append(Mark("baseline", f"this run recorded it ({run.recorded})"))
        band = _band(now, run, metric, settings)
        change = run.value / last - 1 if run.value is not None and last else None
        points.append(
            Point(
                run=run.run,
                directory=near_path(run.directory),
                taken_unix_s=run.taken_unix_s,
                value=run.value,
                change=change,
                band=band,
                judged=_judged(run.value, band, metric),
                outcome=run.outcome,
                problem=run.problem,
                marks=tuple(marks),
            )
        )
        last = run.value if run.value is not None else last
    if points and known and known[-1].since_unix_s > points[-1].taken_unix_s:
        text = f"{_updated(force, known[-1], metric, settings)}; the next run is judged by it"
        points[-1] = replace(points[-1], marks=(*points[-1].marks, Mark("baseline", text)))
    name = next((run.machine_name for run in reversed(runs) if run.machine_name), "")
    return Series(runs[0].simulated, name, near_path(path) if path is not None else "", tuple(points))


def _baseline_of(slug: str, run: KeptRun, root: Path) -> tuple[Path | None, list[Recording]]:
    """The baseline file of the run's machine, with all that it has held."""
    for path in baseline_files(root, slug):
        found = recordings(path)
        if found and found[-1].baseline.simulated == run.simulated and run.fits(found[-1].baseline.hardware):
            return path, found
    return None, []


def _figures(recording: Recording, metric: Metric, value: float) -> Figures | None:
    launches = recording.baseline.metrics.get(metric.baseline)
    if not launches:
        return None
    figures = tuple(tuple(float(one) for one in windows) for windows in launches)
    return Figures(metric.name, figures, ((value,),), bigger_is_worse=metric.bigger_is_worse)


def _compared(recording: Recording, metric: Metric, settings: Settings) -> Comparison | None:
    figures = _figures(recording, metric, 1.0)
    if figures is None:
        return None
    rule = Rule(tolerance=parse_share(settings.tolerance, where="tolerance"))
    found = compare_launch(figures, rule, level=rule.level)
    return found if found.baseline else None


def _band(recording: Recording | None, run: KeptRun, metric: Metric, settings: Settings) -> Band | None:
    if recording is None or not run.same_model(recording.baseline.model):
        return None
    one = _compared(recording, metric, settings)
    if one is None:
        return None
    margin = one.limit * one.baseline
    return Band(one.baseline, one.baseline - margin, one.baseline + margin, one.n_baseline, recording.commit[:_SHA])


def _judged(value: float | None, band: Band | None, metric: Metric) -> str:
    if value is None or band is None:
        return ""
    if band.low <= value <= band.high:
        return "within"
    return "worse" if (value > band.high) == metric.bigger_is_worse else "better"


def _updated(before: Recording | None, now: Recording, metric: Metric, settings: Settings) -> str:
    """``baseline updated, 8.9 ms -> 8.7 ms (commit 1a2b3c4d)``."""
    new = _compared(now, metric, settings)
    old = _compared(before, metric, settings) if before is not None else None
    what = "updated" if before is not None else "the first one"
    if new is not None:
        shown = metric.shown(new.baseline)
        what += f", {metric.shown(old.baseline)} -> {shown}" if old is not None else f", {shown}"
    return f"{what} ({f'commit {now.commit[:_SHA]}' if now.commit else 'not committed'})"
