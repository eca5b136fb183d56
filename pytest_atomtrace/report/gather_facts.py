"""What surrounds a case's figures: budgets asked for, doubts, the machine, the client's figures, commands."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_atomtrace.report.detail import BenchLine, Budget, Command, Fact, HealthLine
from pytest_atomtrace.verdicts.bench import bench_of
from pytest_atomtrace.verdicts.evidence import near_path, shell_quoted
from pytest_atomtrace.verdicts.health_view import view_health

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pytest_atomtrace.report.detail import StepTimeline
    from pytest_atomtrace.report.document import CaseRow, CheckRow
    from pytest_atomtrace.verdicts.trace import Trace

__all__ = ["bench_of_case", "budgets_of", "commands_of", "environment_of", "health_of", "open_commands"]

_BUDGET = "_budget_ns"
_META = ("hip_runtime_version", "hip_driver_version", "roctracer_version", "rocprofiler_version", "schemaVersion")
# Said elsewhere in the report, or of no use to a reader.
_LEFT_OUT = ("unknown",)
_LONGEST_VALUE = 400


def budgets_of(checks: Sequence[CheckRow]) -> tuple[Budget, ...]:
    """The time budgets that checks judged, those nearest to their limit (or furthest beyond) first."""
    found = []
    for row in checks:
        for key, limit in row.facts.items():
            statistic = key.removesuffix(_BUDGET)
            measured = row.facts.get(f"{statistic}_ns")
            if key.endswith(_BUDGET) and isinstance(limit, int) and isinstance(measured, int):
                found.append(
                    Budget(
                        kind=str(row.facts.get("kind", "prefill")),
                        metric=str(row.facts.get("metric", "prefill_per_ktok")),
                        statistic=statistic,
                        limit_ns=limit,
                        measured_ns=measured,
                        rank=str(row.facts.get("rank", "")),
                        outcome="pass" if measured <= limit else row.outcome,
                        check=row.check,
                    )
                )
    return tuple(sorted(dict.fromkeys(found), key=lambda one: (-one.used, one.check)))


def commands_of(row: CaseRow, keep: str) -> tuple[Command, ...]:
    """How to see it again: what needs the capture only where it stays on disk."""
    case = shell_quoted(row.slug)
    backend = f" --atom-backend={row.engine}" if row.engine in ("sim", "atom") else ""
    found = []
    if row.engine != "replay":
        found.append(Command("run this case again", f"pytest -k {case}{backend}"))
    if not row.directory or (row.engine != "replay" and not row.stays(keep)):
        return tuple(found)
    head, inside, _ = row.directory.partition("/captures/")
    place = shlex.quote(near_path(Path(row.directory)))
    run = shlex.quote(near_path(Path(head if inside else row.directory)))
    return (
        *found,
        Command("judge the same capture again, without a GPU", f"pytest --atom-replay={run} -k {case}"),
        Command("phases, ranks and where a step's time goes", f"atomtrace summary {place}"),
        Command("every kernel of the decode steps, with calls per step", f"atomtrace kernels {place} --during decode"),
        Command("one row a step", f"atomtrace steps {place}"),
        Command("kernel by kernel against another capture", f"atomtrace diff OTHER {place}"),
    )


def open_commands(directory: Path, timelines: Sequence[StepTimeline]) -> tuple[Command, ...]:
    """How to see the drawn steps in Perfetto."""
    place = near_path(directory)
    found = [
        Command(f"the {one.which} step in Perfetto", f"atomtrace open {place} --rank {one.rank} --step {one.step}")
        for one in timelines
    ]
    return tuple(found) or (Command("the trace in Perfetto", f"atomtrace open {place}"),)


def health_of(trace: Trace) -> tuple[HealthLine, ...]:
    """All findings, fatal ones first, with what each means."""
    view = view_health(str(trace.directory), tuple(trace.data.ranks), trace.health)
    return tuple(
        HealthLine(
            code=one.code,
            title=one.title,
            fatal=one.fatal,
            scope=one.scope,
            rank=one.rank,
            text=one.text,
            count=one.count,
            meaning=view.meanings[one.code].meaning,
            remedy=view.meanings[one.code].remedy,
        )
        for one in view.findings
    )


def bench_of_case(trace: Trace) -> tuple[tuple[BenchLine, ...], bool]:
    """The client's figures, and whether the profiler was on while they were taken."""
    bench = bench_of(trace.bench)
    if bench is None:
        return (), False
    found = [
        BenchLine("requests completed", bench.completed, ""),
        BenchLine("requests sent", bench.requests, ""),
        BenchLine("output tokens", bench.output_tokens, ""),
    ]
    if bench.output_tokens_per_s is not None:
        found.append(BenchLine("output throughput", bench.output_tokens_per_s, "tokens/s"))
    for name, spread in (("TTFT", bench.ttft), ("TPOT", bench.tpot), ("ITL", bench.itl), ("E2EL", bench.e2el)):
        for statistic in ("mean", "p50", "p99"):
            value = spread.of(statistic) if spread is not None else None
            if value is not None:
                found.append(BenchLine(f"{name} {statistic}", value, "ns"))
    if bench.acceptance_rate is not None:
        found.append(BenchLine("draft acceptance", bench.acceptance_rate, "share"))
    if bench.acceptance_length is not None:
        found.append(BenchLine("tokens per step", bench.acceptance_length, "tokens"))
    return tuple(found), bench.profiled


def environment_of(trace: Trace) -> tuple[Fact, ...]:
    """Device, versions, server arguments and case, flat; what the capture could not learn is said too."""
    found = list(_case_facts(trace))
    environment = trace.environment
    devices = environment.get("deviceProperties")
    first = devices[0] if isinstance(devices, list) and devices else None
    if isinstance(first, Mapping):
        names = {"name": "device", "computeMajor": "compute major", "computeMinor": "compute minor"}
        names |= {"numSms": "compute units", "totalGlobalMem": "memory bytes", "warpSize": "wavefront"}
        found += [Fact("gpu", shown, str(first[key])) for key, shown in names.items() if key in first]
    found += [Fact("trace", key, str(environment[key])) for key in _META if key in environment]
    recorded = trace.manifest.get("environment")
    if isinstance(recorded, Mapping):
        for group, value in recorded.items():
            if group not in _LEFT_OUT:
                found += [Fact(str(group), name, text) for name, text in _flat(value, "")]
        unknown = recorded.get("unknown")
        if isinstance(unknown, Mapping):
            found += [Fact("not recorded", str(name), str(why)) for name, why in unknown.items()]
    versions = trace.manifest.get("versions")
    if isinstance(versions, Mapping):
        found += [Fact("versions", str(name), str(value)) for name, value in versions.items()]
    return tuple(dict.fromkeys(found))


def _case_facts(trace: Trace) -> Iterator[Fact]:
    if trace.case is not None:
        for name, value in trace.case.as_dict().items():
            if value not in (None, False, [], (), {}):
                yield from (Fact("case", path or name, text) for path, text in _flat(value, name))
    window = trace.manifest.get("workload")
    if isinstance(window, Mapping):
        yield from (Fact("workload", name, text) for name, text in _flat(window, ""))
    overhead = trace.manifest.get("profiler_overhead")
    if isinstance(overhead, (int, float)):
        yield Fact("workload", "profiler overhead", f"{overhead:.3f}")


def _flat(value: object, name: str) -> Iterator[tuple[str, str]]:
    """(dotted name, text) of every leaf; lists are one text."""
    if isinstance(value, Mapping):
        for key, one in value.items():
            yield from _flat(one, f"{name}.{key}" if name else str(key))
        return
    text = " ".join(str(one) for one in value) if isinstance(value, (list, tuple)) else str(value)
    yield name, text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}..."
