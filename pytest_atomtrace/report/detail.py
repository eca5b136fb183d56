"""The details of one case, as builtin types: all that a writer may draw or list, computed before any writer starts.

Times are whole nanoseconds. Columns of one series have equal lengths and the same order. Texts are as they were
recorded: kernel names and log lines are untrusted, and each writer escapes them for its own format.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "BaselineBand",
    "BaselineChange",
    "BaselineComparison",
    "BenchLine",
    "Budget",
    "CaseDetail",
    "Command",
    "Distribution",
    "Fact",
    "FamilyLine",
    "HealthLine",
    "KernelLine",
    "Lane",
    "StepContrast",
    "StepSeries",
    "StepTimeline",
]


@dataclass(frozen=True)
class StepSeries:
    """Steps of one kind on one rank, in time order.

    `step` is the index on the rank, `gpu_busy_ns` the union of the step's kernel intervals, `steady` 1 or 0. Of a
    series that is too long the extremes of each stretch are kept; `left_out` says how many steps are not here.
    """

    rank: str
    kind: str
    step: tuple[int, ...]
    gpu_busy_ns: tuple[int, ...]
    bs: tuple[int, ...]
    steady: tuple[int, ...]
    left_out: int = 0


@dataclass(frozen=True)
class Distribution:
    """GPU busy times of one kind of step on one rank, steady steps where there are any (`is_steady`).

    `counts` are steps per bin; bin i covers ``low_ns + i * width_ns`` up to, not including, the next one's start. All
    ranks of a kind share the bins. `firm` names the statistics that have steps enough to be judged.
    """

    rank: str
    kind: str
    is_steady: bool
    steps: int
    min_ns: int
    p50_ns: int
    p90_ns: int
    p99_ns: int
    max_ns: int
    mean_ns: int
    firm: tuple[str, ...]
    low_ns: int
    width_ns: int
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Budget:
    """A time budget of one statistic, what was measured, and what came of the check that asked."""

    kind: str
    metric: str
    statistic: str
    limit_ns: int
    measured_ns: int
    rank: str
    outcome: str
    check: str

    @property
    def used(self) -> float:
        """Measured time as a share of the budget."""
        return self.measured_ns / self.limit_ns if self.limit_ns else 0.0


@dataclass(frozen=True)
class BaselineBand:
    """A metric of the baseline: the mean over its launches, the lowest and highest launch, and the judged limit.

    `limit_ns` is what a launch may not exceed. `now_ns` is the metric of this window, `change` relative to the mean,
    `result` ok, improved, regression or suspicious, by the rule of `assert_no_regression` but of this window alone.
    """

    metric: str
    mean_ns: int
    low_ns: int
    high_ns: int
    limit_ns: int
    now_ns: int
    change: float
    result: str
    launches: int


@dataclass(frozen=True)
class BaselineChange:
    """One part of the difference to the baseline; `sort` is grew, shrank, came, went, replaced, fused or split.

    Calls and exposed time are per decode step on the rank that works longest; `ranks` are those that stand out.
    """

    sort: str
    before: tuple[str, ...]
    after: tuple[str, ...]
    family: str
    before_calls: int
    after_calls: int
    before_ns: int
    after_ns: int
    delta_ns: int
    ranks: tuple[str, ...]


@dataclass(frozen=True)
class BaselineComparison:
    """This window against the case's baseline. `problem` says why there is none to compare with ("" if there is).

    `step_ns` is the difference of the step, `rank` the one whose kernels were compared, `families` (name, difference),
    `same_ns` the sum of differences too small to be listed, `rest_ns` waiting for other ranks.
    """

    path: str
    problem: str = ""
    bands: tuple[BaselineBand, ...] = ()
    anchor_ns: int | None = None
    step_ns: int = 0
    rank: str = ""
    alike: float = 0.0
    alike_ns: int = 0
    same_ns: int = 0
    rest_ns: int = 0
    changes: tuple[BaselineChange, ...] = ()
    families: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class Lane:
    """One GPU stream within a step: bars in time order.

    `start_ns` counts from the step's first activity; `name` and `call` index into the timeline's `names` and the
    kernel's own calls (0 for its first call in the step).
    """

    stream: int
    busy_ns: int
    start_ns: tuple[int, ...]
    dur_ns: tuple[int, ...]
    name: tuple[int, ...]
    call: tuple[int, ...]


@dataclass(frozen=True)
class StepTimeline:
    """One step, kernel by kernel. `which` is ``median`` or ``worst``.

    `begin_ns` and `end_ns` are on the rank's clock, the ``ts`` of its trace file. `families` are parallel to `names`
    (``copy`` for memory copies and fills). `left_out` bars, the shortest, are missing from a step with too many.
    """

    which: str
    rank: str
    kind: str
    is_steady: bool
    step: int
    label: str
    begin_ns: int
    end_ns: int
    gpu_busy_ns: int
    gpu_span_ns: int
    kernels: int
    names: tuple[str, ...]
    families: tuple[str, ...]
    lanes: tuple[Lane, ...]
    left_out: int = 0


@dataclass(frozen=True)
class StepContrast:
    """A kernel in the worst step against the median step of the same rank; times are sums of durations."""

    name: str
    family: str
    median_calls: int
    worst_calls: int
    median_ns: int
    worst_ns: int

    @property
    def delta_ns(self) -> int:
        """What the worst step spent more on it."""
        return self.worst_ns - self.median_ns


@dataclass(frozen=True)
class KernelLine:
    """A kernel per step, over the steps that figures rest on; `share` is of their summed kernel time."""

    name: str
    family: str
    calls_min: int
    calls_max: int
    time_per_step_ns: int
    mean_ns: int
    share: float


@dataclass(frozen=True)
class FamilyLine:
    """A kernel family per step; `names` is how many kernels it has."""

    family: str
    names: int
    calls_min: int
    calls_max: int
    time_per_step_ns: int
    share: float


@dataclass(frozen=True)
class HealthLine:
    """One doubt about the trace, what it means and what helps."""

    code: str
    title: str
    fatal: bool
    scope: str
    rank: str
    text: str
    count: int
    meaning: str
    remedy: str


@dataclass(frozen=True)
class Fact:
    """One thing known about the machine, the software or the server."""

    group: str
    name: str
    value: str


@dataclass(frozen=True)
class BenchLine:
    """One figure of the workload's own client; `unit` is ns, tokens/s, share, tokens or empty for a count."""

    name: str
    value: float
    unit: str


@dataclass(frozen=True)
class Command:
    """What to type, and what it shows."""

    purpose: str
    line: str


@dataclass(frozen=True)
class CaseDetail:
    """All that is known of one case beyond its row; keyed by `slug`.

    With `problem` the capture could not be read, and only what does not need it is here. `main` is the kind of step
    that kernels and timelines are of (decode where there is any; "" in a trace without labels, whose kernels are of the
    whole window), `focus` the rank: the slowest by its median.
    `profiled` tells whether `bench` was measured under the profiler. `verdict` is what the run's own check against the
    baseline said.
    """

    slug: str
    problem: str = ""
    source: str = ""
    gpu: str = ""
    is_simulated: bool = False
    main: str = ""
    focus: str = ""
    main_steps: int = 0
    main_is_steady: bool = False
    series: tuple[StepSeries, ...] = ()
    distributions: tuple[Distribution, ...] = ()
    budgets: tuple[Budget, ...] = ()
    baseline: BaselineComparison | None = None
    timelines: tuple[StepTimeline, ...] = ()
    contrast: tuple[StepContrast, ...] = ()
    contrast_rank: str = ""
    kernels: tuple[KernelLine, ...] = ()
    kernels_left_out: int = 0
    families: tuple[FamilyLine, ...] = ()
    health: tuple[HealthLine, ...] = ()
    facts: tuple[Fact, ...] = ()
    bench: tuple[BenchLine, ...] = ()
    bench_is_profiled: bool = False
    commands: tuple[Command, ...] = ()
