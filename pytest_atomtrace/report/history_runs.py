"""What is kept of a case in every run: its value, what it ran on, and how it ended."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_atomtrace.capture.saved_runs import SavedCapture, SavedRun, find_runs
from pytest_atomtrace.errors import ConfigError, StoreError
from pytest_atomtrace.report.kept_figures import bench_figures, kept_figures
from pytest_atomtrace.report.saved_report import SavedReport, read_report
from pytest_atomtrace.verdicts.environment import environment_facts

if TYPE_CHECKING:
    from collections.abc import Collection

    from pytest_atomtrace.report.history_metric import Metric
    from pytest_atomtrace.settings import Settings

__all__ = ["KeptRun", "KeptRuns", "kept_runs", "resolve_case"]

# Figures that a report has too, by its own keys.
_IN_REPORT = {"decode.p50": "decode_p50_ns", "decode.p99": "decode_p99_ns", "decode.per_token": "per_token_p50_ns"}
_HARDWARE = ("pci_device_id", "compute_units", "compute_partition", "memory_partition", "power_cap_w")
# A simulated model's size is what a real one's config is: a baseline of another size says nothing.
_SIM_MODEL = ("ATOMTRACE_SIM_LAYERS", "ATOMTRACE_SIM_ERA")
_SIM_GPU, _USUAL_SIM_GPU = "env.ATOMTRACE_SIM_GPU", "MI355X"


@dataclass(frozen=True)
class KeptRun:
    """One run of the case. `machine` is equal for figures that may share a series; `recorded` is the note of a run
    that recorded a baseline.
    """

    run: str
    directory: Path
    taken_unix_s: float
    value: float | None
    problem: str
    outcome: str
    simulated: bool
    replay: bool
    machine: str
    machine_name: str
    facts: Mapping[str, str]
    hardware: Mapping[str, object]
    recorded: str

    def fits(self, hardware: Mapping[str, object]) -> bool:
        """Whether a baseline of this hardware is of the run's kind of machine, as far as both sides know."""
        if self.simulated:
            return self.facts.get(_SIM_GPU, _USUAL_SIM_GPU) in str(hardware.get("device", _USUAL_SIM_GPU))
        return all(self.hardware[key] == hardware[key] for key in _HARDWARE if key in self.hardware and key in hardware)

    def same_model(self, model: Mapping[str, object]) -> bool:
        """Whether a baseline of a simulated model is of one of the same size."""
        return not self.simulated or all(
            str(model.get(name, "")) == self.facts.get(f"env.{name}", "") for name in _SIM_MODEL
        )


@dataclass(frozen=True)
class KeptRuns:
    """All runs below a folder."""

    runs: tuple[SavedRun, ...]
    reports: Mapping[str, SavedReport]
    problems: tuple[str, ...]

    @property
    def slugs(self) -> tuple[str, ...]:
        """Slugs of all cases, sorted."""
        found = {capture.slug for run in self.runs for capture in run.captures if capture.manifest}
        found |= {slug for report in self.reports.values() for slug in report.cases if slug}
        return tuple(sorted(found))

    def of_case(self, slug: str, metric: Metric, settings: Settings) -> tuple[list[KeptRun], list[str]]:
        """The runs that have the case; problems are those of all runs."""
        kept = [one for run in self.runs if (one := self._kept(run, slug, metric, settings)) is not None]
        return _with_known_machines(kept), list(self.problems)

    def _kept(self, run: SavedRun, slug: str, metric: Metric, settings: Settings) -> KeptRun | None:
        # The window that the run's checks look at: the last one of the first launch.
        windows = [one for one in run.captures if one.slug == slug and one.launch == 1 and not one.side]
        capture = max(windows, key=lambda one: one.window, default=None)
        report = self.reports.get(run.key)
        row = report.cases.get(slug) if report is not None else None
        if capture is None and row is None:
            return None
        value, problem = _value(capture, row, metric, settings)
        manifest = capture.manifest if capture is not None else {}
        engine = str(manifest.get("engine") or (row or {}).get("engine", ""))
        facts = environment_facts(manifest)
        hardware = _hardware(manifest)
        simulated = engine == "sim" or bool((row or {}).get("simulated"))
        name = str((row or {}).get("gpu", "")) or str(hardware.get("gfx", ""))
        if simulated and not name:
            name = facts.get(_SIM_GPU, _USUAL_SIM_GPU)
        return KeptRun(
            run=run.name,
            directory=run.directory or Path(run.name),
            taken_unix_s=_taken(run, manifest),
            value=value,
            problem=problem,
            outcome=str((row or {}).get("outcome", "")),
            simulated=simulated,
            replay=engine == "replay",
            machine=_machine(simulated, facts, hardware) if capture is not None else "",
            machine_name=name,
            facts=facts,
            hardware=hardware,
            recorded=_recorded(report, slug),
        )


def kept_runs(place: Path) -> KeptRuns:
    """All runs at `place`: an output directory, a folder of runs, or one run.

    Raises:
        TraceFileError: there are none.

    """
    runs = find_runs(place)
    problems = [problem for run in runs for problem in run.problems]
    reports: dict[str, SavedReport] = {}
    for run in runs:
        if run.report is not None:
            try:
                reports[run.key] = read_report(run.report)
            except StoreError as error:
                problems.append(str(error))
    return KeptRuns(tuple(runs), reports, tuple(problems))


def resolve_case(word: str, slugs: Collection[str], place: Path) -> str:
    """The slug that `word` stands for: itself, or the only one that has it as a part.

    Raises:
        ConfigError: none, or several.

    """
    if word in slugs:
        return word
    parts = [slug for slug in slugs if word.lower() in slug.lower()]
    if len(parts) == 1:
        return parts[0]
    if parts:
        raise ConfigError(f"{word!r} is a part of {len(parts)} slugs: {', '.join(parts)}", "CASE")
    close = difflib.get_close_matches(word, slugs, n=1, cutoff=0.4)
    mean = f"; did you mean {close[0]!r}?" if close else f"; there are: {', '.join(slugs) or 'none'}"
    raise ConfigError(f"no run in {place} has a case {word!r}{mean}", "CASE")


def _value(
    capture: SavedCapture | None, row: Mapping[str, object] | None, metric: Metric, settings: Settings
) -> tuple[float | None, str]:
    """The run's figure, or why there is none."""
    codes = row.get("health") if row is not None else None
    if isinstance(codes, list) and codes:
        return None, f"not to be believed: {', '.join(str(code) for code in codes)}"
    reported = row.get(_IN_REPORT[metric.name]) if row is not None and metric.name in _IN_REPORT else None
    if isinstance(reported, (int, float)):
        return float(reported), ""
    if capture is None:
        return None, "nothing was captured" if row is not None and not row.get("capture") else "its capture is gone"
    if metric.name.startswith("bench."):
        value = bench_figures(capture.directory).get(metric.name)
        return value, "" if value is not None else "the workload's figures lack it"
    try:
        found = kept_figures(capture, settings)
    except (OSError, StoreError) as error:
        return None, " ".join(str(error).split())
    value = found.figures.get(metric.name)
    return value, found.problem or ("" if value is not None else f"the window has no {metric.name}")


def _taken(run: SavedRun, manifest: Mapping[str, object]) -> float:
    created = manifest.get("created_unix_s")
    if isinstance(created, (int, float)):
        return float(created)
    try:
        return datetime.strptime(run.name[:15], "%Y%m%d-%H%M%S").timestamp()
    except ValueError:
        return run.directory.stat().st_mtime if run.directory is not None else 0.0


def _hardware(manifest: Mapping[str, object]) -> Mapping[str, object]:
    environment = manifest.get("environment")
    gpu = environment.get("gpu") if isinstance(environment, Mapping) else None
    return gpu if isinstance(gpu, Mapping) else {}


def _machine(simulated: bool, facts: Mapping[str, str], hardware: Mapping[str, object]) -> str:
    if simulated:
        return f"sim {facts.get(_SIM_GPU, _USUAL_SIM_GPU)}"
    return json.dumps({key: hardware[key] for key in ("gfx", *_HARDWARE) if key in hardware}, sort_keys=True)


def _with_known_machines(runs: list[KeptRun]) -> list[KeptRun]:
    """Runs of which only the report is left join the machine that has the same GPU by name."""
    known = {(run.simulated, run.machine_name): run.machine for run in runs if run.machine}
    return [
        run if run.machine else replace(run, machine=known.get((run.simulated, run.machine_name), run.machine_name))
        for run in runs
    ]


def _recorded(report: SavedReport | None, slug: str) -> str:
    """What the run recorded: ``5 launches, 15 windows``; "" if it recorded nothing."""
    checks = report.checks if report is not None else ()
    notes = [note for check in checks if check.case == slug for note in check.notes]
    note = next((note for note in notes if note.startswith("baseline recorded")), "")
    return note.rpartition(";")[0].rpartition("(")[2].rstrip(")")
