"""Baselines are recorded when asked for, from captures that can be believed, and from nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from pytest_atomtrace.errors import InconclusiveError
from pytest_atomtrace.units import format_seconds, parse_share
from pytest_atomtrace.verdicts.anchor import keep_anchor
from pytest_atomtrace.verdicts.baseline import Baseline
from pytest_atomtrace.verdicts.baseline_place import anchor_path, baseline_path
from pytest_atomtrace.verdicts.evidence import count_of, near_path
from pytest_atomtrace.verdicts.fingerprint import fingerprint
from pytest_atomtrace.verdicts.health_view import DISTURBING
from pytest_atomtrace.verdicts.launch_spread import spread_warning
from pytest_atomtrace.verdicts.outcome import Outcome, Verdict
from pytest_atomtrace.verdicts.step_profile import Usage, profile_steps
from pytest_atomtrace.verdicts.tuned import untuned_shapes
from pytest_atomtrace.verdicts.window_figures import measure_window

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pytest_atomtrace.verdicts.launches import Launches
    from pytest_atomtrace.verdicts.view import TraceView

__all__ = ["LAUNCHES", "WARNING", "WINDOWS", "Recorded", "mean_usage", "record", "record_once"]

LAUNCHES, WINDOWS = 5, 3
# Key among the facts on how a baseline was recorded.
WARNING = "warning"
_VERSIONS = ("hip_runtime_version", "hip_driver_version")
# Elsewhere in the file already, or different in every run.
_DECIDING = ("gpu", "profiler", "key", "server", "volatile", "unknown")


@dataclass(frozen=True)
class Recorded:
    """What was written where; `anchor`: why the anchor was written too, None if it stayed; `warning`: what makes its
    limit wide, "" if nothing does.
    """

    path: Path
    launches: int
    windows: int
    anchor: str | None
    warning: str

    @property
    def notes(self) -> tuple[str, ...]:
        """Lines for the summary."""
        again = f"{self.warning}. If the machine was disturbed, record again with --atom-update-baselines=all"
        return (self._note, again) if self.warning else (self._note,)

    @property
    def _note(self) -> str:
        anchor = "" if self.anchor is None else ", and its anchor"
        anchor += f" anew ({self.anchor})" if self.anchor else ""
        counted = f"{count_of(self.launches, 'launch', 'launches')}, {count_of(self.windows, 'window')}"
        return f"baseline recorded{anchor}: {near_path(self.path)} ({counted}); review and commit it"


def record_once(trace: TraceView, launches: Launches, check: str, *, times: bool) -> Verdict | None:
    """Record the case, or say who did in this run; None where its baseline was there before and is to stay.

    One check records for all of them, so it takes the times that any of them asks for. Judging the others by what was
    recorded a moment ago, from the same captures, would say nothing.
    """
    slug = trace.case.slug if trace.case is not None else ""
    path = baseline_path(launches.baselines, fingerprint(trace), slug)
    with launches.recording() as earlier:
        if earlier is not None and (earlier.times or not times):
            sentence = f"The baseline of {slug} was recorded in this run: {earlier.who}."
            return Verdict(check, Outcome.PASS, sentence)
        if earlier is None and trace.settings.update_baselines == "missing" and path.exists():
            return None
        with_times = times or launches.times_wanted
        notes = record(trace, launches, times=with_times).notes
        launches.recorded(times=with_times)
    return Verdict(check, Outcome.PASS, f"The baseline of {slug} was recorded.", notes=notes)


def record(trace: TraceView, launches: Launches, *, times: bool) -> Recorded:
    """Record the baseline of the trace's case: five launches for times, one for counts (or all that a replay has).

    Raises:
        InconclusiveError: a window cannot be believed, or was disturbed.
        InfraError: a launch or a capture failed.

    """
    slug = trace.case.slug if trace.case is not None else trace.directory.name
    number = launches.saved or (LAUNCHES if times else 1)
    if launches.saved is None and number > 1:
        cost = f", about {format_seconds(launches.launch_s * (number - 1))}" if launches.launch_s else ""
        launches.say(f"recording the baseline of {slug}: {number - 1} launches after this one{cost}")
    taken = [_believed(launches.windows(one + 1), times=times) for one in range(number)]
    first = taken[0][0]
    now = fingerprint(first)
    metrics: dict[str, tuple[tuple[int, ...], ...]] = {}
    if times:
        measured = [[measure_window(window).metrics for window in windows] for windows in taken]
        # A figure of nothing is nothing to compare with, and a baseline holds none.
        names = set.intersection(
            *({key for key, ns in one.items() if ns > 0} for windows in measured for one in windows)
        )
        metrics = {name: tuple(tuple(one[name] for one in windows) for windows in measured) for name in names}
    facts: dict[str, str | int] = {"command": launches.lasting_command, "steady_min": first.settings.steady_min}
    warning = spread_warning(metrics, parse_share(trace.settings.tolerance, where="tolerance"))
    if warning:
        launches.say(f"warning: the baseline of {slug}: {warning}")
        facts[WARNING] = warning
    path = baseline_path(launches.baselines, now, slug)
    baseline = Baseline(
        case=slug,
        simulated=now.simulated,
        hardware=now.hardware,
        profiler=now.profiler,
        model=now.model,
        recorded=facts,
        environment=_environment(first),
        health=tuple(sorted({finding.code for windows in taken for one in windows for finding in one.health})),
        metrics=metrics,
        kernels=mean_usage([window for windows in taken for window in windows]),
        ranks=_calls_of_ranks(first),
        untuned=untuned_shapes(first.manifest) or (),
    )
    launches.write(path, baseline.text().encode())
    anchor = keep_anchor(launches, baseline, now, anchor_path(launches.baselines, now, slug))
    return Recorded(path, len(taken), sum(len(windows) for windows in taken), anchor, warning)


def _believed(windows: Sequence[TraceView], *, times: bool) -> Sequence[TraceView]:
    if not windows:
        raise InconclusiveError("a launch without a window cannot become a baseline")
    for window in windows:
        window.require("times" if times else "steps")
        # They may forbid no verdict; a yardstick must be better than that.
        disturbed = [str(finding) for finding in window.health if finding.code in DISTURBING]
        if disturbed:
            raise InconclusiveError(
                f"a disturbed window cannot become a baseline ({near_path(window.directory)}): {'; '.join(disturbed)}"
            )
    return windows


def mean_usage(windows: Sequence[TraceView]) -> Mapping[str, Usage]:
    """Kernels in the order of the first window's step; times are means over all windows that have them."""
    tables = [profile_steps(window, "decode").usage() for window in windows]
    found: dict[str, Usage] = {}
    for table in tables:
        for name in table:
            if name not in found:
                uses = [other[name] for other in tables if name in other]
                found[name] = Usage(uses[0].calls, fmean(use.ns for use in uses))
    return found


def _calls_of_ranks(window: TraceView) -> dict[str, dict[str, int]]:
    profile = profile_steps(window, "decode")
    found = {}
    for name, use in profile.usage().items():
        differing = {rank: calls for rank, calls in profile.calls_by_rank(name).items() if calls != use.calls}
        if differing:
            found[name] = differing
    return found


def _environment(trace: TraceView) -> dict[str, str | int | float | bool]:
    """What does not decide and yet explains: versions, commits and libraries, flat; nothing that a reboot changes."""
    found = {key: trace.environment.get(key) for key in _VERSIONS}
    facts: dict[str, str | int | float | bool] = {
        key: value for key, value in found.items() if isinstance(value, (str, int))
    }
    recorded = trace.manifest.get("environment")
    if isinstance(recorded, Mapping):
        for key, value in recorded.items():
            if key in _DECIDING:
                continue
            parts = value.items() if isinstance(value, Mapping) else [("", value)]
            for name, one in parts:
                if isinstance(one, (str, int, float, bool)) and "place" not in str(name):
                    facts[f"{key}.{name}" if name else str(key)] = one
    return facts
