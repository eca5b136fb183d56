"""Files for github-action-benchmark, one a direction: the action knows one direction per file.

Series that ATOM's own dashboard has carry ATOM's names and units (``ATOM::<model> <isl>/<osl> c=<conc> TPOT (ms)``), so
points of both join one chart; they come from a pass without the profiler (``--atom-bench=on``) or not at all. Our own
begin with ``atomtrace::`` and the case's slug.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from pytest_atomtrace.report.document import CaseRow, ReportDocument

__all__ = ["BIGGER_FILE", "SMALLER_FILE", "Dashboard", "dashboard"]

BIGGER_FILE: Final = "customBiggerIsBetter.json"
SMALLER_FILE: Final = "customSmallerIsBetter.json"

Entry: TypeAlias = "dict[str, str | int | float]"


@dataclass
class Dashboard:
    """Entries by direction, and one line for each thing that a reader would miss."""

    bigger: list[Entry] = field(default_factory=list)
    smaller: list[Entry] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def dashboard(document: ReportDocument, *, simulator_run: bool, run_url: str = "") -> Dashboard:
    """The series of every case that can be believed; `simulator_run` says that made-up numbers were asked for.

    Simulated captures are left out of any other run (a replay of them, say); in a simulator run every name begins
    with ``[simulated]``, so that one history can never hold both.
    """
    made = Dashboard()
    # Order must not hang on how a run went: the files are compared with those of other runs.
    rows = sorted(document.cases, key=lambda one: one.slug)
    names = Counter(_name(row) for row in rows if row.asked)
    for row in rows:
        why = _why_not(row, simulator_run=simulator_run)
        if why:
            made.left_out.append(f"{row.slug}: {why}")
            continue
        extra = _extra(row, run_url)
        _add_own(made, row, extra)
        if not row.bench or row.bench.get("profiled"):
            made.left_out.append(f"{row.slug}: ATOM's series need a pass without the profiler (--atom-bench=on)")
        elif names[_name(row)] > 1:
            made.left_out.append(f"{row.slug}: several cases would be called {_name(row)!r} on ATOM's dashboard")
        else:
            _add_atoms(made, row, extra)
    return made


def _why_not(row: CaseRow, *, simulator_run: bool) -> str:
    if not row.asked:
        return "there is no capture"
    if row.health:
        return f"its trace cannot be believed ({', '.join(row.health)})"
    if row.asked.get("load_dummy"):
        return "random weights have no times"
    if row.simulated and not simulator_run:
        return "its capture is simulated, and this is no simulator run (--atom-backend=sim)"
    return ""


def _mark(row: CaseRow) -> str:
    return "[simulated] " if row.simulated else ""


def _name(row: CaseRow) -> str:
    """``ATOM::DeepSeek-V4-Pro MTP3 1024/128 c=64``: the last part of the model's name, and the catalog's variant."""
    asked = row.asked
    model = f"{str(asked['model']).rstrip('/').rpartition('/')[2]} {asked.get('variant', '')}".strip()
    return f"{_mark(row)}ATOM::{model} {asked['isl']}/{asked['osl']} c={asked['conc']}"


def _extra(row: CaseRow, run_url: str) -> str:
    facts = [f"Run: {run_url}"] if run_url else []
    facts += [f"GPU: {row.gpu}"] if row.gpu else []
    facts += [f"ROCm: {row.rocm}"] if row.rocm else []
    return " | ".join([*facts, f"Case: {row.slug}"])


def _add_own(made: Dashboard, row: CaseRow, extra: str) -> None:
    name = f"{_mark(row)}atomtrace::{row.slug} decode GPU busy p50"
    _put(made.smaller, f"{name} (us/step)", "us/step", row.p50_ns, 1e-3, extra)
    _put(made.smaller, f"{name} (us/token)", "us/token", row.per_token_ns, 1e-3, extra)


def _add_atoms(made: Dashboard, row: CaseRow, extra: str) -> None:
    name, bench = _name(row), row.bench
    series = (
        (made.bigger, "throughput (tok/s)", "tok/s", "output_tokens_per_s", 1.0),
        (made.bigger, "Total Tput (tok/s)", "tok/s", "total_tokens_per_s", 1.0),
        (made.smaller, "TTFT (ms)", "ms", "ttft_mean_ns", 1e-6),
        (made.smaller, "TPOT (ms)", "ms", "tpot_mean_ns", 1e-6),
        (made.bigger, "Accept Length (tok/fwd)", "tok/fwd", "acceptance_length", 1.0),
        (made.bigger, "Acceptance Rate (%)", "%", "acceptance_rate", 100.0),
    )
    for into, metric, unit, key, factor in series:
        _put(into, f"{name} {metric}", unit, bench.get(key), factor, extra)
    tp, dp = int(row.asked.get("tp", 1)), int(row.asked.get("dp", 1))
    # With DP attention ATOM counts tp alone.
    gpus = tp if row.asked.get("dp_attention") else tp * dp
    made.bigger.append({"name": f"{name} _gpu_count", "unit": "", "value": gpus})
    made.bigger.append({"name": f"{name} _tp", "unit": "", "value": tp})


def _put(into: list[Entry], name: str, unit: str, value: object, factor: float, extra: str) -> None:
    if isinstance(value, (int, float)):
        into.append({"name": name, "unit": unit, "value": round(value * factor, 2), "extra": extra})
