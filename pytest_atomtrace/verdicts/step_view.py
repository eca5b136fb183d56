"""Steps of a trace as rows, the quantiles under them, and the one step that ATOM's parse_trace would pick."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_atomtrace.errors import ConfigError
from pytest_atomtrace.trace.labels import KINDS
from pytest_atomtrace.trace.metrics import iterations, span_is_launch_bound
from pytest_atomtrace.verdicts.step_grid import counted_steps
from pytest_atomtrace.verdicts.steps import Timing
from pytest_atomtrace.verdicts.summary import slowest_rank

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_atomtrace.trace.data import RankData, Step
    from pytest_atomtrace.verdicts.trace import Trace

__all__ = ["FirstDecode", "Quantiles", "StepLine", "StepView", "first_decode", "view_steps"]


@dataclass(frozen=True)
class StepLine:
    """One step. `period_ns` is the host's distance to the next step of the kind, None at the end of a row."""

    rank: str
    step: int
    kind: str
    label: str
    kernels: int
    graph_launches: int
    gpu_busy_ns: int
    gpu_span_ns: int
    host_label_ns: int
    period_ns: int | None
    steady: bool
    edge: bool
    launch_bound: bool
    source: str


@dataclass(frozen=True)
class Quantiles:
    """Nearest-rank quantiles of one metric over the steps of one kind on one rank."""

    rank: str
    kind: str
    metric: str
    steps: int
    steady: bool
    min_ns: int
    p50_ns: int
    p90_ns: int
    p99_ns: int
    max_ns: int
    mean_ns: int


@dataclass(frozen=True)
class FirstDecode:
    """The first decode beside the median.

    ATOM's tools/parse_trace.py takes the earliest ``decode[`` GPU annotation and calls its window the step;
    `window_ns` is None where the trace has no such annotation (the tool gives up there). `step` is then the first
    decode by its label.
    """

    rank: str
    step: int
    label: str
    kernels: int
    window_ns: int | None
    gpu_busy_ns: int
    gpu_span_ns: int
    median_steps: int
    median_steady: bool
    median_busy_ns: int
    median_span_ns: int
    median_kernels: int


@dataclass(frozen=True)
class StepView:
    """Rows of the shown rank, quantiles of every selected rank."""

    source: str
    simulated: bool
    ranks: tuple[str, ...]
    shown_rank: str
    kinds: tuple[str, ...]
    rows: tuple[StepLine, ...]
    quantiles: tuple[Quantiles, ...]
    first: FirstDecode | None


def view_steps(
    trace: Trace, *, kind: str | None = None, rank: str | None = None, first: bool = False, steady: bool = False
) -> StepView:
    """Answer `atomtrace steps`; rows are those of `rank`, by default of the slowest one.

    Raises:
        ConfigError: there is no such rank or kind.
        NoStepsError: the trace has no step of this kind, or none at all.

    """
    if kind is not None and kind not in KINDS:
        raise ConfigError(f"{kind!r} is no kind of step ({', '.join(KINDS)})", "--kind")
    ranks = trace.select_ranks(rank if rank is not None else "all")
    seen = [one for one in KINDS if any(step.kind == one for data in ranks for step in data.steps)]
    if kind is not None or not seen:
        trace.require_kind(kind or "labelled")
    kinds = [kind] if kind is not None else seen
    main = "decode" if "decode" in kinds else kinds[0]
    shown = ranks[0] if rank is not None else slowest_rank(trace, main)
    return StepView(
        source=str(trace.directory),
        simulated=trace.simulated,
        ranks=tuple(data.name for data in ranks),
        shown_rank=shown.name,
        kinds=tuple(kinds),
        rows=tuple(_lines(trace, shown, kinds, only_steady=steady)),
        quantiles=tuple(q for data in ranks for one in kinds for q in _quantiles(trace, data, one)),
        first=first_decode(trace, shown) if first else None,
    )


def _periods(rank: RankData, kinds: Sequence[str]) -> dict[int, int]:
    found: dict[int, int] = {}
    for kind in kinds:
        if kind != "draft" and not kind.startswith("dspark"):
            found.update({one.step.index: one.period_ns for one in iterations(rank, kind=kind)})
    return found


def _lines(trace: Trace, rank: RankData, kinds: Sequence[str], *, only_steady: bool) -> list[StepLine]:
    steady = {step.index for kind in kinds for step in trace.steady_steps(rank, kind)}
    periods = _periods(rank, kinds)
    return [
        StepLine(
            rank=rank.name,
            step=step.index,
            kind=step.kind,
            label=step.label.text,
            kernels=step.n_kernels,
            graph_launches=step.n_graph_launches,
            gpu_busy_ns=step.gpu_busy_ns,
            gpu_span_ns=step.gpu_span_ns,
            host_label_ns=step.cpu_span_ns,
            period_ns=periods.get(step.index),
            steady=step.index in steady,
            edge=step.edge,
            launch_bound=span_is_launch_bound(step),
            source=step.source,
        )
        for step in rank.steps
        if step.kind in kinds and (not only_steady or step.index in steady)
    ]


def _quantiles(trace: Trace, rank: RankData, kind: str) -> list[Quantiles]:
    steps, steady = counted_steps(trace, rank, kind)
    periods = _periods(rank, [kind])
    columns = {
        "gpu_busy": [step.gpu_busy_ns for step in steps],
        "gpu_span": [step.gpu_span_ns for step in steps],
        "period": [periods[step.index] for step in steps if step.index in periods],
    }
    found = []
    for metric, values in columns.items():
        if values:
            t = Timing(tuple(values))
            quantiles = (t.min_ns, t.p50_ns, t.p90_ns, t.p99_ns, t.max_ns, t.mean_ns)
            found.append(Quantiles(rank.name, kind, metric, t.n, steady, *quantiles))
    return found


def first_decode(trace: Trace, rank: RankData) -> FirstDecode | None:
    """ATOM's choice on this rank beside the median; None without a decode step."""
    decodes = [step for step in rank.steps if step.kind == "decode"]
    if not decodes:
        return None
    noted = [step for step in decodes if step.note_start_ns >= 0]
    step: Step = min(noted, key=lambda one: one.note_start_ns) if noted else decodes[0]
    steps, steady = counted_steps(trace, rank, "decode")
    return FirstDecode(
        rank=rank.name,
        step=step.index,
        label=step.label.text,
        kernels=step.n_kernels,
        window_ns=step.note_end_ns - step.note_start_ns if noted else None,
        gpu_busy_ns=step.gpu_busy_ns,
        gpu_span_ns=step.gpu_span_ns,
        median_steps=len(steps),
        median_steady=steady,
        median_busy_ns=Timing(tuple(one.gpu_busy_ns for one in steps)).p50_ns,
        median_span_ns=Timing(tuple(one.gpu_span_ns for one in steps)).p50_ns,
        median_kernels=Timing(tuple(one.n_kernels for one in steps)).p50_ns,
    )
