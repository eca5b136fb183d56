"""The anchor: where a case started. Baselines follow a slow decline step by step; the anchor stays and adds it up."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from pytest_atomtrace.errors import ConfigError
from pytest_atomtrace.verdicts.baseline import Baseline
from pytest_atomtrace.verdicts.baseline_reading import read_baseline, usable_baseline
from pytest_atomtrace.verdicts.evidence import near_path
from pytest_atomtrace.verdicts.window_figures import STEP

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_atomtrace.verdicts.fingerprint import Fingerprint
    from pytest_atomtrace.verdicts.launches import Launches

__all__ = ["Anchor", "keep_anchor", "read_anchor"]

_OF_OTHER = {"hardware": "other hardware", "profiler": "another profiler", "model": "another model"}


@dataclass(frozen=True)
class Anchor:
    """`step_ns`: the anchored step time, 0 where there is nothing to measure a drift from; `why_none` says why then,
    `reason` in one word (``missing``, ``hardware``, ``profiler``, ``model``).
    """

    step_ns: float = 0.0
    reason: str = ""
    why_none: str = ""


def read_anchor(path: Path, case: str, now: Fingerprint, command: str) -> Anchor:
    """The anchor in `path`, as far as it is one for `now`.

    Raises:
        NoBaselineError: ``damaged``: the file cannot be used.

    """
    found = usable_baseline(path, case, command)
    if found is None or STEP not in found.metrics:
        return Anchor(reason="missing", why_none=f"there is no anchor {near_path(path)}")
    misfit = found.misfit(now)
    if misfit is not None:
        reason, what = misfit
        return Anchor(reason=reason, why_none=f"the anchor {near_path(path)} is of {_OF_OTHER[reason]} ({what})")
    return Anchor(step_ns=fmean(one for windows in found.metrics[STEP] for one in windows))


def keep_anchor(launches: Launches, baseline: Baseline, now: Fingerprint, path: Path) -> str | None:
    """Leave a good anchor alone and write one where there is none or another's; why it was written, None if it stays.

    An anchor that cannot be compared with is no anchor: left in place it would switch drift off for ever.
    """
    if not baseline.metrics:
        return None
    why = _useless(path, baseline.case, now)
    if why is not None:
        launches.write(path, _anchor_of(baseline).text().encode())
    return why


def _useless(path: Path, case: str, now: Fingerprint) -> str | None:
    """None for an anchor that serves `now`, "" for none at all, else what is wrong with it."""
    try:
        found = read_baseline(path, case=case)
    except ConfigError as error:
        return f"the old one was damaged: {error.problem.removesuffix('.').partition('. ')[0]}"
    if found is None:
        return ""
    if STEP not in found.metrics:
        return f"the old one had no {STEP}"
    misfit = found.misfit(now)
    return None if misfit is None else f"the old one was of {_OF_OTHER[misfit[0]]}: {misfit[1]}"


def _anchor_of(baseline: Baseline) -> Baseline:
    """The means of a baseline, as one window of one launch."""
    means = {
        name: ((round(fmean(one for windows in values for one in windows)),),)
        for name, values in baseline.metrics.items()
    }
    return Baseline(
        case=baseline.case,
        simulated=baseline.simulated,
        hardware=baseline.hardware,
        profiler=baseline.profiler,
        model=baseline.model,
        recorded=baseline.recorded,
        metrics=means,
    )
