"""All contenders in one run: `python -m benchmarks.run --work DIR` (see README.md beside this file).

Contenders take turns, so that what the machine does meanwhile meets all of them. A contender's answer is compared
with the floor's (without a floor: with that of the orjson script, then ours) before its times count.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import load
from benchmarks.answers import judge
from benchmarks.field import Contender, Sites, contenders, without_index
from benchmarks.generate import SIZES, Size, write_trace
from benchmarks.measure import FailedRunError, peak_bytes, timed
from benchmarks.report import OWN, document

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Outcome", "Set", "main"]

_FLOOR_BUILD = Path(__file__).parent / "floor" / "build"


@dataclass
class Outcome:
    """What a contender did on one set of traces; no seconds where it is absent, failed, or answered wrongly."""

    name: str
    processes: int
    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    peak: int = 0
    verdict: str = ""
    right: bool = False
    absent: str = ""

    @property
    def median(self) -> float:
        """Median of the wall times; 0 where there are none."""
        return statistics.median(self.seconds) if self.seconds else 0.0


def _strangers() -> float:
    """Processor time that others take, in cores, over a moment in which nothing of ours runs."""

    def busy() -> int:
        return sum(map(int, Path("/proc/stat").read_text(encoding="utf-8").split("\n", 1)[0].split()[1:4]))

    before = busy()
    time.sleep(0.2)
    return (busy() - before) / os.sysconf("SC_CLK_TCK") / 0.2


@dataclass
class Set:
    """One set of traces with everyone's outcome."""

    key: str
    title: str
    traces: list[Path]
    text_bytes: int
    outcomes: list[Outcome] = field(default_factory=list)
    strangers: list[float] = field(default_factory=list)

    def median(self, name: str) -> float:
        """A contender's median, 0 if it has none."""
        return next((o.median for o in self.outcomes if o.name == name), 0.0)

    def peak(self, name: str) -> int:
        """A contender's peak memory in bytes, 0 if it has none."""
        return next((o.peak for o in self.outcomes if o.name == name), 0)

    def cpu(self, name: str) -> float:
        """Median of a contender's processor time, 0 if it has none."""
        return next((statistics.median(o.cpu) for o in self.outcomes if o.name == name and o.cpu), 0.0)


def _text_bytes(traces: Sequence[Path]) -> int:
    from pytest_atomtrace.trace.inflate import pieces

    return sum(len(piece) for trace in traces for piece in pieces(trace))


def _traces(work: Path, key: str, size: Size) -> Set:
    place = work / f"{key}-{size.steps}-{size.kernels}-{size.ranks}-{size.stacks}"
    done = place / "done"
    if not done.exists():
        write_trace(place, size)
        done.touch()
    traces = sorted(place.glob("rank_*/*.json.gz"))
    text = _text_bytes(traces)  # also warms the page cache
    ranks = f"{size.ranks} ranks of " if size.ranks > 1 else ""
    stacks = f", {size.stacks} Python frames around each op" if size.stacks else ""
    title = f"{key}: {ranks}{size.steps} steps x {size.kernels} kernels, {text / size.ranks / 1e6:,.0f} MB JSON{stacks}"
    return Set(key, title, traces, text)


def _build_floor(work: Path) -> Path | None:
    target = work / "floor"
    done = subprocess.run([str(_FLOOR_BUILD), str(target)], check=False, capture_output=True, text=True)
    if done.returncode:
        print(done.stderr.strip(), file=sys.stderr)
        return None
    return target


def _reference(everyone: Sequence[Contender], traces: Sequence[Path]) -> list[dict[str, Any]]:
    order = ["C++ floor, 1 process", "ours, 1 process"]
    for name in order:
        chosen = next((c for c in everyone if c.name == name and not c.absent), None)
        if chosen is not None:
            chosen.prepare(traces)
            answer: list[dict[str, Any]] = json.loads(timed(chosen.command(traces), chosen.environ()).output)
            return answer
    raise RuntimeError("nobody can give the reference answer")


def _compete(everyone: Sequence[Contender], traces: Set, rounds: int, slow_rounds: int) -> None:
    reference = _reference(everyone, traces.traces)
    traces.outcomes = [Outcome(c.name, c.processes, absent=c.absent) for c in everyone]
    pairs = list(zip(everyone, traces.outcomes, strict=True))
    for contender, outcome in pairs:
        if not (outcome.absent or contender.slow):
            # Untimed: compiles modules and warms the cache.
            contender.prepare(traces.traces)
            subprocess.run(contender.command(traces.traces), env=contender.environ(), capture_output=True, check=False)
    # The first round also judges, the last one (by itself) takes memory.
    for number in range(rounds):
        for contender, outcome in pairs:
            if outcome.absent or (contender.slow and number >= slow_rounds):
                continue
            traces.strangers.append(_strangers())
            _once(contender, outcome, traces.traces, reference)
            print(f"{traces.key} {number + 1}/{rounds} {contender.name}: {outcome.seconds[-1:]} {outcome.verdict}",
                  file=sys.stderr)  # fmt: skip
    for contender, outcome in pairs:
        if outcome.seconds:
            contender.prepare(traces.traces)
            outcome.peak = peak_bytes(contender.command(traces.traces), contender.environ())


def _once(contender: Contender, outcome: Outcome, traces: list[Path], reference: list[dict[str, Any]]) -> None:
    contender.prepare(traces)
    try:
        run = timed(contender.command(traces), contender.environ())
        verdict = judge(contender.answers, run.output, reference)
    except FailedRunError as error:
        outcome.absent = f"failed: {error}"
        return
    except (ValueError, KeyError) as error:
        outcome.absent = f"failed: no readable answer ({error})"
        return
    outcome.verdict, outcome.right = verdict.text, verdict.right
    outcome.seconds.append(run.seconds)
    outcome.cpu.append(run.cpu_seconds)


def _growth(everyone: Sequence[Contender], small: Set, large: Set) -> list[tuple[str, int, int]]:
    rows = []
    for contender in everyone:
        if contender.absent or contender.name not in {"ours, 1 process", "C++ floor, 1 process"}:
            continue
        peaks = []
        for traces in (small, large):
            contender.prepare(traces.traces)
            peaks.append(peak_bytes(contender.command(traces.traces), contender.environ()))
        rows.append((contender.name, peaks[0], peaks[1]))
    return rows


def _phases(trace: Path, rounds: int, environment: dict[str, str]) -> dict[str, float]:
    runs = []
    for _ in range(rounds):
        command = [sys.executable, "-m", "benchmarks.phases", str(trace)]
        runs.append(json.loads(timed(command, environment).output))
    return {name: statistics.median(run[name] for run in runs) for name in runs[0]}


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--work", type=Path, help="where traces are made and kept (default: a temporary folder)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--slow-rounds", type=int, default=3, help="rounds of contenders that take ten seconds and more"
    )
    parser.add_argument("--sets", default="S,L,8xM", help="of S, L, 8xM and tiny")
    parser.add_argument(
        "--only", default="", help="only contenders whose name has this text, beside ours and the floor"
    )
    parser.add_argument("--load-runs", type=int, default=40, help="pairs of pytest runs for the plugin's load time")
    parser.add_argument("--atom-root", type=Path, help="an ATOM checkout")
    parser.add_argument("--tracelens-python", type=Path, help="an interpreter with TraceLens or what it needs")
    parser.add_argument("--tracelens-root", type=Path, help="a TraceLens checkout")
    parser.add_argument("--side-python", type=Path, help="an interpreter with orjson, polars, hta, perfetto")
    parser.add_argument("--perfetto-shell", type=Path, help="a trace_processor_shell")
    parser.add_argument("--write", action="store_true", help="write benchmarks/RESULTS.md instead of printing it")
    return parser.parse_args(arguments)


def _measure(given: argparse.Namespace, work: Path) -> str:
    sizes = {"S": SIZES["S"], "L": SIZES["L"], "8xM": SIZES["M"], "tiny": SIZES["tiny"]}
    sites = Sites(
        floor=_build_floor(work),
        atom=given.atom_root,
        tracelens_python=given.tracelens_python,
        tracelens_root=given.tracelens_root,
        side_python=given.side_python,
        perfetto_shell=given.perfetto_shell,
    )
    everyone = contenders(sites)
    sets = []
    for key in given.sets.split(","):
        traces = _traces(work, key, sizes[key])
        chosen = [c for c in everyone if _takes_part(c, key, given.only)]
        _compete(chosen, traces, given.rounds, given.slow_rounds)
        sets.append(traces)
    last = next((s for s in sets if s.key == "L"), sets[-1])
    large = sizes[last.key]
    tenth = Size(max(large.steps // 10, 1), large.kernels, large.ranks, large.stacks)
    small = _traces(work, f"{last.key}-tenth", tenth)
    growth = _growth(everyone, small, last)
    without_index(last.traces)
    phases = _phases(last.traces[0], min(given.rounds, 3), everyone[0].environ())
    return document(
        sets, growth=growth, growth_of=(small, last), phases=phases,
        load_cost=load.measure(given.load_runs), rounds=(given.rounds, given.slow_rounds),
        python=sites.side_python,
    )  # fmt: skip


def _takes_part(contender: Contender, key: str, only: str) -> bool:
    own = contender.name.startswith(OWN)
    if key == "8xM":
        # The tools know one trace a run; times of eight in a row would say the same as L's.
        return own
    return own or not only or only.lower() in contender.name.lower()


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    given = _arguments(arguments)
    with tempfile.TemporaryDirectory(prefix="atomtrace-bench-") as temporary:
        work = given.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        text = _measure(given, work.resolve())
    if given.write:
        (Path(__file__).parent / "RESULTS.md").write_text(text, encoding="utf-8")
    else:
        print(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
