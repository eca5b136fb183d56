"""What a trace shows at a glance: phases, drafts, iterations, ranks, and where a step's time goes.

The figures of ATOM's tools/analyze_trace_summary.py (which reports the host annotation only) beside the time in
which the GPU worked: under graph replay the first is the time to launch, the second is the step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_atomtrace.trace.data import KERNEL
from pytest_atomtrace.trace.families import family
from pytest_atomtrace.trace.labels import KINDS
from pytest_atomtrace.trace.metrics import attributed_share, iterations
from pytest_atomtrace.trace.stepmath import distinct
from pytest_atomtrace.verdicts.step_grid import StepGrid, counted_steps, step_grid
from pytest_atomtrace.verdicts.steps import Timing

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pytest_atomtrace.trace.data import RankData, Step
    from pytest_atomtrace.trace.finding import Finding
    from pytest_atomtrace.verdicts.trace import Trace

__all__ = [
    "DraftFigures",
    "FamilyFigures",
    "IterationFigures",
    "KernelFigures",
    "OneIteration",
    "PhaseFigures",
    "RankFigures",
    "Spread",
    "Summary",
    "slowest_rank",
    "summarize",
]

_LISTED_ITERATIONS = 10


@dataclass(frozen=True)
class Spread:
    """Times of some steps."""

    mean_ns: int
    p50_ns: int
    min_ns: int
    max_ns: int
    total_ns: int

    @classmethod
    def of(cls, values: Iterable[int]) -> Spread:
        """Spread of at least one value."""
        timing = Timing(tuple(values))
        return cls(timing.mean_ns, timing.p50_ns, timing.min_ns, timing.max_ns, sum(timing.values_ns))


@dataclass(frozen=True)
class PhaseFigures:
    """All steps of one kind on one rank; `steady` tells how many of them budgets would look at."""

    kind: str
    steps: int
    steady: int
    bs_min: int
    bs_max: int
    kernels_min: int
    kernels_max: int
    gpu_busy: Spread
    host_label: Spread


@dataclass(frozen=True)
class DraftFigures:
    """Drafts of one place in the chain; `slower_than_first_ns` compares the means of GPU busy."""

    position: str
    steps: int
    gpu_busy: Spread
    host_label: Spread
    slower_than_first_ns: int


@dataclass(frozen=True)
class OneIteration:
    """A decode and the drafts that follow it."""

    step: int
    label: str
    drafts: int
    decode_busy_ns: int
    drafts_busy_ns: int
    decode_host_ns: int
    drafts_host_ns: int


@dataclass(frozen=True)
class IterationFigures:
    """From one decode label's start to the next one's.

    `busy` is everything launched meanwhile (sampling, drafts and copies too), `period` the distance of the
    label starts on the host, `first` the first few decodes with their drafts.
    """

    iterations: int
    with_drafts: int
    busy: Spread | None
    period: Spread | None
    first: tuple[OneIteration, ...]


@dataclass(frozen=True)
class FamilyFigures:
    """A kernel family in the steps of the main phase; `share` is of all kernel time in them."""

    family: str
    names: int
    calls_per_step_min: int
    calls_per_step_max: int
    time_per_step_ns: int
    share: float


@dataclass(frozen=True)
class KernelFigures:
    """A kernel in the steps of the main phase; `share` as in its family."""

    name: str
    family: str
    calls_per_step_min: int
    calls_per_step_max: int
    time_per_step_ns: int
    mean_ns: int
    share: float


@dataclass(frozen=True)
class RankFigures:
    """One rank in a line; p50 is of GPU busy over the steps that figures per step rest on."""

    rank: str
    file: str
    events: int
    kernels: int
    streams: int
    steps: dict[str, int]
    main_p50_ns: int | None
    main_max_ns: int | None
    unattributed_share: float


@dataclass(frozen=True)
class Summary:
    """The whole picture; `focus` is the rank whose phases and kernels are shown, `main` its main phase."""

    source: str
    slug: str
    gpu: str
    simulated: bool
    findings: tuple[Finding, ...]
    ranks: tuple[RankFigures, ...]
    focus: str
    main: str | None
    main_steps: int
    main_steady: bool
    phases: tuple[PhaseFigures, ...]
    drafts: tuple[DraftFigures, ...]
    iterations: IterationFigures | None
    families: tuple[FamilyFigures, ...]
    kernels: tuple[KernelFigures, ...]


def summarize(trace: Trace, *, rank: str | None = None) -> Summary:
    """Summarise `trace`; phases and kernels are those of `rank`, by default of the slowest one.

    Raises:
        ConfigError: there is no such rank.

    """
    main = _main_kind(trace)
    focus = trace.select_ranks(rank)[0] if rank is not None else slowest_rank(trace, main)
    steps, steady = counted_steps(trace, focus, main) if main else ([], False)
    grid = step_grid(focus, steps) if steps else None
    return Summary(
        source=str(trace.directory),
        slug=str(trace.manifest.get("slug") or ""),
        gpu=_gpu(focus),
        simulated=trace.simulated,
        findings=trace.health,
        ranks=tuple(_rank_figures(trace, one, main) for one in trace.data.ranks.values()),
        focus=focus.name,
        main=main,
        main_steps=len(steps),
        main_steady=steady,
        phases=_phases(trace, focus),
        drafts=_drafts(focus),
        iterations=_iterations(focus),
        families=_families(grid) if grid is not None else (),
        kernels=_kernels(grid) if grid is not None else (),
    )


def _main_kind(trace: Trace) -> str | None:
    """Decode if there is any, else the kind with the most steps."""
    counts: dict[str, int] = {}
    for rank in trace.data.ranks.values():
        for step in rank.steps:
            counts[step.kind] = counts.get(step.kind, 0) + 1
    if "decode" in counts:
        return "decode"
    return max(counts, key=lambda kind: counts[kind], default=None)


def slowest_rank(trace: Trace, kind: str | None) -> RankData:
    """The rank with the largest median GPU busy time per step of `kind`, the first one where none has any."""
    ranks = list(trace.data.ranks.values())
    medians = [_busy(counted_steps(trace, rank, kind)[0]) if kind else None for rank in ranks]
    timed = [(timing.p50_ns, -place) for place, timing in enumerate(medians) if timing is not None]
    return ranks[-max(timed)[1]] if timed else ranks[0]


def _busy(steps: Sequence[Step]) -> Timing | None:
    return Timing(tuple(step.gpu_busy_ns for step in steps)) if steps else None


def _gpu(rank: RankData) -> str:
    devices = rank.meta.get("deviceProperties")
    first = devices[0] if isinstance(devices, list) and devices else None
    return str(first.get("name", "")) if isinstance(first, dict) else ""


def _rank_figures(trace: Trace, rank: RankData, main: str | None) -> RankFigures:
    counts: dict[str, int] = {}
    for step in rank.steps:
        counts[step.kind] = counts.get(step.kind, 0) + 1
    busy = _busy(counted_steps(trace, rank, main)[0]) if main else None
    return RankFigures(
        rank=rank.name,
        file=str(rank.path),
        events=rank.event_count,
        kernels=int((rank.kind == KERNEL).sum()),
        streams=len(distinct(rank.stream)),
        steps=dict(sorted(counts.items(), key=lambda item: KINDS.index(item[0]))),
        main_p50_ns=busy.p50_ns if busy else None,
        main_max_ns=busy.max_ns if busy else None,
        unattributed_share=attributed_share(rank).get("unattributed", 0.0),
    )


def _phases(trace: Trace, rank: RankData) -> tuple[PhaseFigures, ...]:
    found = []
    for kind in KINDS:
        steps = [step for step in rank.steps if step.kind == kind]
        if steps:
            found.append(
                PhaseFigures(
                    kind=kind,
                    steps=len(steps),
                    steady=len(trace.steady_steps(rank, kind)),
                    bs_min=min(step.bs for step in steps),
                    bs_max=max(step.bs for step in steps),
                    kernels_min=min(step.n_kernels for step in steps),
                    kernels_max=max(step.n_kernels for step in steps),
                    gpu_busy=Spread.of(step.gpu_busy_ns for step in steps),
                    host_label=Spread.of(step.cpu_span_ns for step in steps),
                )
            )
    return tuple(found)


def _drafts(rank: RankData) -> tuple[DraftFigures, ...]:
    by_place: dict[tuple[int, int], list[Step]] = {}
    for step in rank.steps:
        label = step.label
        if step.kind == "draft":
            by_place.setdefault((label.draft_count or 0, label.draft_index or 0), []).append(step)
    found: list[DraftFigures] = []
    for (count, index), steps in sorted(by_place.items()):
        busy = Spread.of(step.gpu_busy_ns for step in steps)
        first = found[0].gpu_busy.mean_ns if found else busy.mean_ns
        host = Spread.of(step.cpu_span_ns for step in steps)
        place = f"draft[{index}/{count}]" if count else "draft"
        found.append(DraftFigures(place, len(steps), busy, host, busy.mean_ns - first))
    return tuple(found)


def _iterations(rank: RankData) -> IterationFigures | None:
    decodes = [step for step in rank.steps if step.kind == "decode"]
    if not decodes:
        return None
    drafts: dict[int, list[Step]] = {}
    for step in rank.steps:
        if step.kind == "draft" and step.decode_index >= 0:
            drafts.setdefault(step.decode_index, []).append(step)
    whole = iterations(rank)
    return IterationFigures(
        iterations=len(decodes),
        with_drafts=sum(step.index in drafts for step in decodes),
        busy=Spread.of(one.busy_ns for one in whole) if whole else None,
        period=Spread.of(one.period_ns for one in whole) if whole else None,
        first=tuple(_one(step, drafts.get(step.index, [])) for step in decodes[:_LISTED_ITERATIONS]),
    )


def _one(step: Step, drafts: Sequence[Step]) -> OneIteration:
    return OneIteration(
        step=step.index,
        label=step.label.text,
        drafts=len(drafts),
        decode_busy_ns=step.gpu_busy_ns,
        drafts_busy_ns=sum(draft.gpu_busy_ns for draft in drafts),
        decode_host_ns=step.cpu_span_ns,
        drafts_host_ns=sum(draft.cpu_span_ns for draft in drafts),
    )


def _families(grid: StepGrid) -> tuple[FamilyFigures, ...]:
    rows = [row for row, (_, layer) in enumerate(grid.keys) if layer == "kernel"]
    whole = int(grid.total_ns[rows].sum())
    members: dict[str, list[int]] = {}
    for row in rows:
        members.setdefault(family(grid.keys[row][0]), []).append(row)
    found = []
    for name, mine in members.items():
        calls = grid.calls[mine].sum(axis=0)
        total = int(grid.total_ns[mine].sum())
        share = total / whole if whole else 0.0
        per_step = round(total / grid.steps)
        found.append(FamilyFigures(name, len(mine), int(calls.min()), int(calls.max()), per_step, share))
    return tuple(sorted(found, key=lambda one: (-one.time_per_step_ns, one.family)))


def _kernels(grid: StepGrid) -> tuple[KernelFigures, ...]:
    rows = [row for row, (_, layer) in enumerate(grid.keys) if layer == "kernel"]
    whole = int(grid.total_ns[rows].sum())
    found = []
    for row in rows:
        calls, total = grid.calls[row], int(grid.total_ns[row].sum())
        name = grid.keys[row][0]
        found.append(
            KernelFigures(
                name=name,
                family=family(name),
                calls_per_step_min=int(calls.min()),
                calls_per_step_max=int(calls.max()),
                time_per_step_ns=round(total / grid.steps),
                mean_ns=round(total / int(calls.sum())),
                share=total / whole if whole else 0.0,
            )
        )
    return tuple(sorted(found, key=lambda one: (-one.time_per_step_ns, one.name)))
