"""From the rows of a document to the details of its cases: captures are read from disk, once, before any writer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_atomtrace.errors import AtomTraceError
from pytest_atomtrace.report.detail import CaseDetail, FamilyLine, KernelLine

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_atomtrace.report.document import CaseRow, CheckRow, ReportDocument
    from pytest_atomtrace.settings import Settings
    from pytest_atomtrace.verdicts.summary import Summary
    from pytest_atomtrace.verdicts.trace import Trace

__all__ = ["with_details"]

# Beyond it stand kernels of some hundredths of a per cent each; `atomtrace kernels` lists them.
MOST_KERNELS = 200


def with_details(
    document: ReportDocument, *, settings: Settings, baselines_root: Path, clean: Callable[[str], str] = str
) -> ReportDocument:
    """`document` with the details of every case that has a capture, in the order of its cases.

    A capture that cannot be read gives a detail that says why; nothing is raised for it. `clean` takes secrets out of
    what was recorded of the machine: a capture may be of another site, with other tokens.
    """
    checks = [*document.checks, *document.passed]
    details = []
    for row in document.cases:
        mine = [check for check in checks if check.slug == row.slug]
        detail = _detail(row, mine, settings, baselines_root)
        facts = tuple(replace(fact, value=clean(fact.value)) for fact in detail.facts)
        details.append(replace(detail, problem=clean(detail.problem), facts=facts))
    return replace(document, details=tuple(details))


def _detail(row: CaseRow, checks: Sequence[CheckRow], settings: Settings, baselines_root: Path) -> CaseDetail:
    from pytest_atomtrace.report.gather_facts import budgets_of, commands_of

    known = CaseDetail(
        slug=row.slug,
        source=row.directory,
        is_simulated=row.simulated or row.engine == "sim",
        budgets=budgets_of(checks),
        commands=commands_of(row, settings.keep),
    )
    if not row.directory:
        skipped = row.outcome == "skip"
        why = "its checks were skipped" if skipped else "it failed before there was one"
        return replace(known, problem=f"There is no capture of this case: {why}.")
    try:
        trace = _read(Path(row.directory), row, settings)
        return _filled(known, trace, baselines_root)
    except (AtomTraceError, OSError) as error:
        return replace(known, problem=f"The capture cannot be read: {error}")
    except Exception as error:  # noqa: BLE001  # a report with one empty case is worth more than none
        return replace(known, problem=f"The capture cannot be shown: {type(error).__name__}: {error}")


def _read(directory: Path, row: CaseRow, settings: Settings) -> Trace:
    from pytest_atomtrace.capture.store import capture_at
    from pytest_atomtrace.trace.load import load
    from pytest_atomtrace.verdicts.saved import beside, saved_case
    from pytest_atomtrace.verdicts.trace import Trace

    manifest = beside(directory, "manifest.json")
    case = saved_case(manifest)
    capture = capture_at(directory, case, engine=row.engine) if case is not None else None
    # A plain trace directory has no manifest: its ranks are those that it holds.
    files = capture.ranks if capture is not None else directory
    data = load(files, expected=capture.expected_ranks or None if capture is not None else None)
    return Trace(
        data,
        case=case,
        directory=directory,
        engine=row.engine,
        settings=settings,
        manifest=manifest,
        bench=beside(directory, "bench.json"),
    )


def _filled(known: CaseDetail, trace: Trace, baselines_root: Path) -> CaseDetail:
    from pytest_atomtrace.report.gather_baseline import comparison_of
    from pytest_atomtrace.report.gather_facts import bench_of_case, environment_of, health_of, open_commands
    from pytest_atomtrace.report.gather_steps import distributions_of, series_of
    from pytest_atomtrace.report.gather_timeline import contrast_of, timelines_of
    from pytest_atomtrace.verdicts.summary import summarize

    summary = summarize(trace)
    bench, profiled = bench_of_case(trace)
    main = summary.main or ""
    timelines = timelines_of(trace, main)
    contrast, contrast_rank = contrast_of(trace, main)
    kernels, families = _kernels(summary) if main else _kernels_of_window(trace)
    return replace(
        known,
        gpu=summary.gpu,
        is_simulated=trace.simulated,
        main=main,
        focus=summary.focus,
        main_steps=summary.main_steps,
        main_is_steady=summary.main_steady,
        series=series_of(trace),
        distributions=distributions_of(trace),
        baseline=comparison_of(trace, baselines_root),
        timelines=timelines,
        contrast=contrast,
        contrast_rank=contrast_rank,
        kernels=tuple(kernels[:MOST_KERNELS]),
        kernels_left_out=max(0, len(kernels) - MOST_KERNELS),
        families=tuple(families),
        health=health_of(trace),
        facts=environment_of(trace),
        bench=bench,
        bench_is_profiled=profiled,
        commands=(*known.commands, *open_commands(trace.directory, timelines)),
    )


def _kernels(summary: Summary) -> tuple[list[KernelLine], list[FamilyLine]]:
    kernels = [
        KernelLine(
            one.name, one.family, one.calls_per_step_min, one.calls_per_step_max,
            one.time_per_step_ns, one.mean_ns, one.share,
        )
        for one in summary.kernels
    ]  # fmt: skip
    families = [
        FamilyLine(
            one.family, one.names, one.calls_per_step_min, one.calls_per_step_max,
            one.time_per_step_ns, one.share,
        )
        for one in summary.families
    ]  # fmt: skip
    return kernels, families


def _kernels_of_window(trace: Trace) -> tuple[list[KernelLine], list[FamilyLine]]:
    """A trace without step labels still tells which kernels ran; the whole window counts as one step."""
    table = list(trace.kernels(layer="kernel"))
    whole = sum(row.total_ns for row in table) or 1
    kernels = [
        KernelLine(row.name, row.family, row.count, row.count, row.total_ns, row.mean_ns, row.total_ns / whole)
        for row in table
    ]
    members: dict[str, list[KernelLine]] = {}
    for one in kernels:
        members.setdefault(one.family, []).append(one)
    families = []
    for name, mine in members.items():
        calls, total = sum(one.calls_max for one in mine), sum(one.time_per_step_ns for one in mine)
        families.append(FamilyLine(name, len(mine), calls, calls, total, total / whole))
    return kernels, sorted(families, key=lambda one: -one.time_per_step_ns)
