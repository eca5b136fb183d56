"""`atomtrace export`: runs and captures as tables, run after run, rank after rank.

One rank's columns are in memory at a time. What cannot be read is said and left out; everything else is written.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from pytest_atomtrace.capture.keeping import hold_run
from pytest_atomtrace.capture.saved_runs import find_runs
from pytest_atomtrace.errors import StoreError, TraceFileError
from pytest_atomtrace.report.export_facts import capture_facts, identity, run_facts, verdict_columns
from pytest_atomtrace.report.export_rows import activity_columns, kernel_columns, step_columns
from pytest_atomtrace.report.export_schema import ACTIVITIES, SCHEMA, TABLES
from pytest_atomtrace.report.parquet import Tables
from pytest_atomtrace.report.saved_report import read_report
from pytest_atomtrace.trace.layout import find_ranks
from pytest_atomtrace.trace.load import load
from pytest_atomtrace.verdicts.fingerprint import fingerprint
from pytest_atomtrace.verdicts.saved import accepted_length, beside, saved_case
from pytest_atomtrace.verdicts.trace import Trace

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from pytest_atomtrace.capture.saved_runs import SavedCapture, SavedRun
    from pytest_atomtrace.report.saved_report import SavedReport
    from pytest_atomtrace.verdicts.fingerprint import Fingerprint

__all__ = ["Exported", "export"]


@dataclass(frozen=True)
class Exported:
    """What was written: runs, files, rows by table; `dropped` counts captures of which the traces were not kept, so
    that they have a row and no steps; `problems` name what could not be read.
    """

    out: Path
    schema: str
    runs: tuple[str, ...]
    captures: int
    dropped: int
    ranks: int
    files: tuple[Path, ...]
    bytes: int
    rows: dict[str, int]
    problems: tuple[str, ...]


@dataclass
class _Tally:
    runs: list[str] = field(default_factory=list)
    captures: int = 0
    dropped: int = 0
    ranks: int = 0
    files: list[Path] = field(default_factory=list)
    rows: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def export(paths: Sequence[Path], out: Path, *, raw: bool = False) -> Exported:
    """Export what lies at `paths` below `out`; `raw` adds the table of activities.

    Raises:
        StoreError: `out` cannot be written.
        TraceFileError: one of the paths is not there, or holds nothing of the sort.

    """
    runs = _distinct([run for path in paths for run in find_runs(path)])
    tally = _Tally()
    for run in runs:
        hold = hold_run(run.directory, reading=True) if run.directory is not None else None
        try:
            _run(run, out, tally, raw=raw)
        finally:
            if hold is not None:
                hold.release()
    return Exported(
        out=out,
        schema=SCHEMA,
        runs=tuple(tally.runs),
        captures=tally.captures,
        dropped=tally.dropped,
        ranks=tally.ranks,
        files=tuple(tally.files),
        bytes=sum(path.stat().st_size for path in tally.files),
        rows=tally.rows,
        problems=tuple(tally.problems),
    )


def _distinct(runs: Iterable[SavedRun]) -> list[SavedRun]:
    """A run counts once, and a part of a run that is here as a whole not at all."""
    found = {run.key: run for run in runs}
    whole = {run.directory for run in found.values() if run.key == run.name and run.directory is not None}
    return [run for run in found.values() if run.key == run.name or run.directory not in whole]


def _run(run: SavedRun, out: Path, tally: _Tally, *, raw: bool) -> None:
    tally.problems += run.problems
    tables = (*TABLES, ACTIVITIES) if raw else TABLES
    with Tables(out, run.key, tables, version=_version()) as files:
        report = _report(run, tally)
        rows = [row for capture in run.captures if (row := _capture(run, capture, report, files, tally, raw=raw))]
        if report is not None:
            files.add("verdicts", verdict_columns(report), {"run": run.name})
        if rows or report is not None:
            files.add("runs", {"run": [run.name]}, run_facts(run, rows, report))
        else:
            files.drop()
    if not files.paths:
        tally.problems.append(f"{run.directory or run.name}: nothing of it can be read, so it has no files")
        return
    tally.runs.append(run.name)
    tally.files += files.paths
    for name, number in files.rows.items():
        tally.rows[name] = tally.rows.get(name, 0) + number


def _report(run: SavedRun, tally: _Tally) -> SavedReport | None:
    # Verdicts are of the whole run; a part of it has none of its own.
    if run.report is None or run.key != run.name:
        return None
    try:
        return read_report(run.report)
    except StoreError as error:
        tally.problems.append(str(error))
        return None


def _capture(
    run: SavedRun, capture: SavedCapture, report: SavedReport | None, files: Tables, tally: _Tally, *, raw: bool
) -> dict[str, object] | None:
    """Write the ranks of one capture and then its row, which is handed back; None if no rank can be read."""
    found = {} if capture.dropped else find_ranks(capture.directory)
    wanted = _names(capture.manifest.get("expected_ranks")) or list(found)
    read: dict[str, _RankFacts] = {}
    for name in [*found, *(name for name in wanted if name not in found)]:
        path = found[name].trace if name in found else None
        if path is None and capture.dropped:
            continue
        if path is None:
            tally.problems.append(f"{capture.directory}: {name} has no trace")
            continue
        facts_of_rank = _rank(run, capture, {name: path}, files, tally, raw=raw)
        if facts_of_rank is not None:
            read[name] = facts_of_rank
    if not read and not capture.dropped:
        return None
    tally.captures += 1
    tally.dropped += capture.dropped
    tally.ranks += len(read)
    facts = capture_facts(
        run,
        capture,
        next((one.fingerprint for one in read.values()), None),
        ranks=len(read),
        missing=[name for name in wanted if name not in read],
        # Tokens gained are counted by the rank with most sequences: the others see a part of the workload.
        accepted=min((one.accepted for one in read.values() if one.accepted is not None), default=None),
        health=_health(capture, report),
    )
    files.add("captures", {"run": [run.name]}, facts)
    return facts


@dataclass(frozen=True)
class _RankFacts:
    fingerprint: Fingerprint
    accepted: float | None


def _rank(
    run: SavedRun, capture: SavedCapture, file: Mapping[str, Path], files: Tables, tally: _Tally, *, raw: bool
) -> _RankFacts | None:
    """Write one rank; nothing of its columns outlives the call, so memory is that of the largest rank."""
    try:
        data = load(file)
    except TraceFileError as error:
        tally.problems.append(str(error))
        return None
    except OSError as error:  # a file of another user's
        tally.problems.append(f"{error.filename or capture.directory}: {error.strerror or error}")
        return None
    trace = Trace(data, case=saved_case(capture.manifest), directory=capture.directory, manifest=capture.manifest)
    for name, rank in data.ranks.items():
        constant = {**identity(run, capture), "rank": name}
        files.add("steps", step_columns(trace, rank), constant)
        files.add("kernels", kernel_columns(trace, rank), constant)
        for piece in activity_columns(rank) if raw else ():
            files.add("activities", piece, constant)
    bench = beside(capture.directory, "bench.json") if capture.manifest else {}
    return _RankFacts(fingerprint(trace), accepted_length(data, bench))


def _health(capture: SavedCapture, report: SavedReport | None) -> list[str] | None:
    """What the report found of this capture; it speaks of the one window that the run's checks looked at."""
    row = report.cases.get(capture.slug) if report is not None else None
    if row is None or capture.side or capture.launch != 1:
        return None
    seen = str(row.get("capture", "")).rstrip("/").rpartition("/")[2]
    return _names(row.get("health")) if seen == capture.directory.name else None


def _names(value: object) -> list[str]:
    return [str(one) for one in value] if isinstance(value, list) else []


def _version() -> str:
    try:
        return version("pytest-atomtrace")
    except PackageNotFoundError:
        return "unknown"
