"""The results as Markdown: machine, versions, times, ratios, memory, profile, and what was tried."""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import os
import platform
import statistics
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from tabulate import tabulate

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchmarks.load import LoadCost
    from benchmarks.run import Outcome, Set

__all__ = ["OWN", "document"]

# How names of contenders start that are ours, or the yardstick.
OWN = ("ours", "without the compiled scanner", "atomtrace", "C++ floor")

_TRIED = Path(__file__).parent / "tried.md"
_PACKAGES = ("isal", "msgspec", "numpy", "orjson")
_SIDE_PACKAGES = ("orjson", "polars", "HolisticTraceAnalysis", "perfetto")


def document(
    sets: Sequence[Set],
    *,
    growth: Sequence[tuple[str, int, int]],
    growth_of: tuple[Set, Set],
    phases: Mapping[str, float],
    load_cost: LoadCost,
    rounds: tuple[int, int],
    python: Path | None,
) -> str:
    """The whole of RESULTS.md."""
    parts = ["# Results", _preface(rounds), "## Machine", _machine(python)]
    parts += ["## Targets", _targets({traces.key: traces for traces in sets}, load_cost)]
    for traces in sets:
        parts += [f"## {traces.title}", _table(traces), _ratios(traces), _company(traces)]
    parts += ["## Memory at one and ten times the events", _growth(growth, growth_of)]
    parts += [f"## Where the time of one process goes ({growth_of[1].key})", _phases(phases)]
    parts += ["## Loading the plugin", _load(load_cost)]
    parts += [_TRIED.read_text(encoding="utf-8").strip()]
    return "\n\n".join(parts) + "\n"


def _preface(rounds: tuple[int, int]) -> str:
    return (
        f"Written by `python -m benchmarks.run --write`. Wall time of the whole process with start and imports, page "
        f"cache warm, contenders taking turns; median of {rounds[0]} ({rounds[1]} for contenders of ten seconds and "
        "more). CPU is the processor time of all processes, which company on the machine disturbs less. A first load "
        "starts without our index and writes it. Memory is the peak sum of resident sizes over all "
        "processes of a contender, from a run of its own. Every answer was compared with the floor's: kernels by name "
        "with count and sum in ns, and the GPU time of each decode step where a contender knows steps."
    )


def _machine(python: Path | None) -> str:
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    lines = [
        f"- {_processor()}, {len(os.sched_getaffinity(0))} cores, {memory:.0f} GB memory, "
        f"{platform.system()} {platform.machine()}",
        f"- Python {platform.python_version()}, "
        + ", ".join(f"{n} {importlib.metadata.version(n)}" for n in _PACKAGES),
        f"- load average at the end: {os.getloadavg()[0]:.1f} (1 min), {os.getloadavg()[2]:.1f} (15 min); "
        f"{dt.datetime.now(dt.timezone.utc).date()}",
    ]
    side = _side_versions(python)
    if side:
        lines.append(f"- beside it: {side}")
    return "\n".join(lines)


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or "unknown processor"


def _side_versions(python: Path | None) -> str:
    if python is None:
        return ""
    code = (
        "import importlib.metadata as m\n"
        f"for n in {_SIDE_PACKAGES!r}:\n"
        "    try: print(n, m.version(n))\n"
        "    except m.PackageNotFoundError: pass"
    )
    done = subprocess.run([str(python), "-c", code], check=False, capture_output=True, text=True)
    return ", ".join(done.stdout.splitlines())


def _table(traces: Set) -> str:
    rows = []
    for outcome in traces.outcomes:
        if outcome.seconds:
            spread = f"{min(outcome.seconds):.2f}-{max(outcome.seconds):.2f}"
            right = "equal" if outcome.right else "NOT EQUAL"
            cpu = f"{statistics.median(outcome.cpu):.2f}"
            cells = [f"{outcome.median:.2f}", spread, cpu, f"{outcome.peak / 1e6:,.0f}", f"{right}: {outcome.verdict}"]
        else:
            cells = ["absent", "", "", "", outcome.absent]
        rows.append([outcome.name, *cells])
    headers = ["contender", "s", "min-max", "CPU s", "peak MB", "answer"]
    align = ("left", "right", "right", "right", "right", "left")
    return tabulate(rows, headers, tablefmt="github", colalign=align, disable_numparse=True)


def _ratios(traces: Set) -> str:
    lines = []
    for count in ("1 process", "2 processes"):
        ours, floor = traces.median(f"ours, {count}"), traces.median(f"C++ floor, {count}")
        if ours and floor:
            cpu = traces.cpu(f"ours, {count}") / traces.cpu(f"C++ floor, {count}")
            lines.append(f"- ours / floor, {count}: **{ours / floor:.1f}** (processor time: {cpu:.1f})")
        plain = traces.median(f"without the compiled scanner, {count}")
        if ours and plain:
            lines.append(f"- without the compiled scanner / ours, {count}: {plain / ours:.1f}")
    one, two = traces.median("ours, 1 process"), traces.median("ours, 2 processes")
    others = [outcome for outcome in traces.outcomes if outcome.seconds and not _own(outcome)]
    if one and two:
        lines += [
            f"- {o.name} / ours: {o.median / one:.1f} (1 process), {o.median / two:.1f} (2 processes)" for o in others
        ]
    return "\n".join(lines)


def _targets(sets: Mapping[str, Set], load_cost: LoadCost) -> str:
    rows: list[tuple[str, str, str, bool]] = []

    def most(what: str, limit: float, found: float, unit: str) -> None:
        if found:
            rows.append((what, f"at most {limit:g}{unit}", f"{found:.2f}{unit}", found <= limit))

    def least(what: str, limit: float, found: float) -> None:
        if found:
            rows.append((what, f"at least {limit:g} x", f"{found:.1f} x", found >= limit))

    if "L" in sets:
        one = sets["L"]
        for count in ("1 process", "2 processes"):
            most(f"L, ours / floor, {count}", 3, _quotient(one, f"ours, {count}", f"C++ floor, {count}"), " x")
        most("L, peak memory, 1 process", 160, one.peak("ours, 1 process") / 1e6, " MB")
        most("L, second load", 0.3, one.median("ours, second load"), " s")
        most("L, atomtrace summary, second load", 0.5, one.median("atomtrace summary, second load"), " s")
        for other, count, limit in (
            ("ATOM analyze_trace_summary.py", "1 process", 12),
            ("ATOM analyze_trace_summary.py", "2 processes", 20),
            ("TraceLens", "2 processes", 40),
            ("HolisticTraceAnalysis", "2 processes", 40),
            ("Perfetto trace_processor", "2 processes", 5),
        ):
            least(f"L, {other} / ours, {count}", limit, _quotient(one, other, f"ours, {count}"))
    if "8xM" in sets:
        eight = _quotient(sets["8xM"], "ours, 2 processes", "C++ floor, 2 processes")
        most("8xM, ours / floor, 2 processes", 3, eight, " x")
    if "S" in sets:
        most("S, peak memory, 1 process", 40, sets["S"].peak("ours, 1 process") / 1e6, " MB")
    most("plugin load over bare pytest", 5, load_cost.difference_ms, " ms")
    cells = [[what, target, found, "yes" if met else "no"] for what, target, found, met in rows]
    return tabulate(cells, ["", "target", "found", "met"], tablefmt="github", disable_numparse=True)


def _quotient(traces: Set, above: str, below: str) -> float:
    divisor = traces.median(below)
    return traces.median(above) / divisor if divisor else 0.0


def _company(traces: Set) -> str:
    """What else ran: times taken in company are too long, and ours (more memory traffic) suffer more than C++."""
    if not traces.strangers:
        return ""
    return (
        f"Before each run of this table other processes took {statistics.median(traces.strangers):.1f} cores "
        f"(median; {max(traces.strangers):.1f} at most)."
    )


def _own(outcome: Outcome) -> bool:
    return outcome.name.startswith(OWN)


def _growth(rows: Sequence[tuple[str, int, int]], sets: tuple[Set, Set]) -> str:
    texts = [f"{s.text_bytes / 1e6:,.0f} MB JSON" for s in sets]
    more = sets[1].text_bytes - sets[0].text_bytes
    cells = [
        [name, f"{small / 1e6:.0f}", f"{large / 1e6:.0f}", f"{100 * (large - small) / more:.1f} %"]
        for name, small, large in rows
    ]
    headers = ["", f"peak MB at {texts[0]}", f"at {texts[1]}", "growth / text"]
    return tabulate(
        cells, headers, tablefmt="github", colalign=("left", "right", "right", "right"), disable_numparse=True
    )


def _phases(phases: Mapping[str, float]) -> str:
    total = sum(phases.values())
    rows = [[name, f"{seconds:.2f}", f"{100 * seconds / total:.0f} %"] for name, seconds in phases.items()]
    return tabulate(
        rows, ["stage", "s", "share"], tablefmt="github", colalign=("left", "right", "right"), disable_numparse=True
    )


def _load(cost: LoadCost) -> str:
    return (
        f"`pytest --collect-only` in an empty folder, {cost.runs} pairs of runs taking turns: bare pytest "
        f"{cost.bare_ms:.0f} ms, with the plugin {cost.with_plugin_ms:.0f} ms; median of the differences "
        f"**{cost.difference_ms:+.1f} ms**; the {cost.modules} modules it brings in import in {cost.imports_ms:.1f} ms "
        "(with `-X importtime`, which itself costs). Target: under 5 ms."
    )
