"""What the profiler records on a stack: the traits by which real traces are known, as numbers.

Their use is to show whether simulated traces are like real ones, and what a new profiler release changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pytest_atomtrace.trace.build import build_rank
from pytest_atomtrace.trace.reader import read_rank
from pytest_atomtrace.trace.stepmath import OVERLAP_TOLERANCE_NS
from pytest_atomtrace.trace.steps import is_graph_launch, is_launch
from pytest_atomtrace.verdicts.external_ids import read_external_ids

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from pytest_atomtrace.trace.data import RankData, Step
    from pytest_atomtrace.trace.rankevents import RankEvents
    from pytest_atomtrace.verdicts.external_ids import ExternalIds

__all__ = ["TRAITS", "Trait", "TraitColumn", "read_traits"]


@dataclass(frozen=True)
class Trait:
    """`unit` is share, ns, count or ratio; `title` fits a table, `meaning` says what is measured and what it tells."""

    key: str
    unit: str
    title: str
    meaning: str


TRAITS = (
    Trait("events", "count", "events", "all complete events of the file, host and GPU"),
    Trait("kernels", "count", "kernels", "GPU kernels; copies and fills are not counted"),
    Trait("kernel_names", "count", "kernel names", "different raw names among them"),
    Trait("steps", "count", "labelled steps", "forward passes with a label of ATOM, vLLM or SGLang"),
    Trait("streams", "count", "streams with kernels", "GPU streams; a second one is dual-stream MoE or a side stream"),
    Trait(
        "launching_threads",
        "count",
        "launching threads",
        "host threads that launch; in an eager ATOM step there are two",
    ),
    Trait(
        "graph_kernels", "share", "graph kernels", "kernels that a graph launch started, of those with a launch record"
    ),
    Trait(
        "graph_kernels_without_id",
        "share",
        "graph kernels without External id",
        "on ROCm all of them: graph kernels cannot be traced to an op by id",
    ),
    Trait(
        "graph_launches_without_id",
        "share",
        "graph launches without External id",
        "the same of hipGraphLaunch, so an id is never a step's",
    ),
    Trait(
        "eager_kernels_with_id",
        "share",
        "eager kernels with External id",
        "the id is the innermost CPU op's around the launch",
    ),
    Trait(
        "launches_naming_kernel",
        "share",
        "eager launches with args.kernel",
        "launch records that name their kernel, as ROCm's do; capture traces are matched through it",
    ),
    Trait(
        "decodes_of_one_graph",
        "share",
        "decodes of one graph",
        "decode steps with exactly one graph launch (FULL mode)",
    ),
    Trait("graph_launches_max", "count", "graphs in a decode, most", "more than one is PIECEWISE mode"),
    Trait(
        "kernels_per_graph_p50", "count", "kernels in a graph, median", "kernels that share one launch's correlation"
    ),
    Trait(
        "decodes_with_eager_tail",
        "share",
        "decodes with an eager tail",
        "decodes of a graph that launch kernels eagerly too, as the logits with TP > 1",
    ),
    Trait(
        "launch_lag_p50_ns",
        "ns",
        "launch lag, median",
        "from a kernel's launch to its start; 5 to 229 ms on real traces",
    ),
    Trait("launch_lag_p90_ns", "ns", "launch lag, 90th percentile", "the same for the slow tenth"),
    Trait(
        "graph_abutting",
        "share",
        "abutting graph kernels",
        "the next kernel of the graph starts within 2 ns: idle time hides inside durations (93-99 % on ROCm)",
    ),
    Trait("eager_abutting", "share", "abutting eager kernels", "the same between eager kernels"),
    Trait("overlapping", "share", "overlapping on one stream", "kernels that begin before the one before them ended"),
    Trait(
        "in_flight_kernels",
        "share",
        "in-flight head: kernels",
        "kernels launched before the window opened; they belong to no step",
    ),
    Trait("in_flight_time", "share", "in-flight head: kernel time", "their part of all kernel time (up to 30 %)"),
    Trait("side_stream_graph_kernels", "share", "graph kernels on side streams", "not on the stream with most of them"),
    Trait(
        "early_side_starts",
        "share",
        "steps begun by a side stream",
        "a side stream's kernel is the step's first, so its start is not the step's",
    ),
    Trait(
        "steps_annotated", "share", "GPU annotations: steps with one", "steps that have a gpu_user_annotation at all"
    ),
    Trait(
        "annotations_wrong",
        "share",
        "GPU annotations: wrong kernels",
        "windows that hold other kernels than the launches say, over more than 1 % of them",
    ),
    Trait("annotation_to_span_p50", "ratio", "GPU annotation / GPU span", "median; 1 where windows fit the steps"),
    Trait("graph_launch_host_mean_ns", "ns", "host time of a graph launch", "mean of hipGraphLaunch on the host"),
)


@dataclass(frozen=True)
class TraitColumn:
    """One trace's values by trait key; None where the trace cannot show the trait."""

    source: str
    simulated: bool
    rank: str
    values: dict[str, float | int | None]


def read_traits(path: Path, *, rank: str) -> TraitColumn:
    """Read the file twice (events, then External ids) and measure.

    Raises:
        TraceFileError: it cannot be read.

    """
    events = read_rank(path, rank=rank, detail=True)
    data = build_rank(rank, path, events)
    values: dict[str, float | int | None] = {}
    for measure in (_sizes, _graphs, _timing, _streams, _annotations):
        values.update(measure(data))
    values.update(_launches(events))
    values.update(_external(data, read_external_ids(path)))
    return TraitColumn(str(path), data.simulated, rank, {trait.key: values[trait.key] for trait in TRAITS})


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _quantile(values: NDArray[np.int64], q: float) -> int | None:
    return int(np.quantile(values, q, method="inverted_cdf")) if len(values) else None


def _sizes(data: RankData) -> dict[str, float | int | None]:
    kernels = data.is_kernel
    head = kernels & (data.launch_ns < 0)
    return {
        "events": data.event_count,
        "kernels": int(kernels.sum()),
        "kernel_names": len(np.unique(data.name_id[kernels])),
        "steps": len(data.steps),
        "streams": len(np.unique(data.stream[kernels])),
        "in_flight_kernels": _share(int(head.sum()), int(kernels.sum())),
        "in_flight_time": _share(int(data.dur_ns[head].sum()), int(data.dur_ns[kernels].sum())),
    }


def _launches(events: RankEvents) -> dict[str, float | int | None]:
    calls = events.calls
    launches = np.array([is_launch(name) for name in events.names] or [False], np.bool_)[calls.name_id]
    graphs = np.array([is_graph_launch(name) for name in events.names] or [False], np.bool_)[calls.name_id]
    eager = launches & ~graphs
    # `extra` is the number of the launched kernel's name; events without one share the empty name.
    named = np.array([bool(name) for name in events.names] or [False], np.bool_)
    naming = named[calls.extra[eager]] & (calls.extra[eager] >= 0)
    host = calls.dur_ns[graphs]
    return {
        "launching_threads": len(np.unique(calls.where[launches])),
        "launches_naming_kernel": _share(int(naming.sum()), int(eager.sum())),
        "graph_launch_host_mean_ns": round(float(host.mean())) if len(host) else None,
    }


def _graphs(data: RankData) -> dict[str, float | int | None]:
    kernels = data.is_kernel
    started = kernels & data.graph
    decodes = [step for step in data.steps if step.kind == "decode"]
    replayed = [step for step in decodes if step.n_graph_launches]
    tails = [step for step in replayed if bool((~data.graph[step.rows] & kernels[step.rows]).any())]
    sizes = np.unique(data.correlation[started], return_counts=True)[1]
    return {
        "graph_kernels": _share(int(started.sum()), int((kernels & (data.launch_ns >= 0)).sum())),
        "decodes_of_one_graph": _share(sum(step.n_graph_launches == 1 for step in decodes), len(decodes)),
        "graph_launches_max": max((step.n_graph_launches for step in decodes), default=None),
        "kernels_per_graph_p50": _quantile(sizes.astype(np.int64), 0.5),
        "decodes_with_eager_tail": _share(len(tails), len(replayed)),
    }


def _timing(data: RankData) -> dict[str, float | int | None]:
    kernels = data.is_kernel
    launched = kernels & (data.launch_ns >= 0)
    lag = (data.start_ns - data.launch_ns)[launched]
    rows = np.flatnonzero(kernels)
    rows = rows[np.lexsort((data.start_ns[rows], data.stream[rows]))]
    start, end = data.start_ns[rows], data.start_ns[rows] + data.dur_ns[rows]
    near = data.stream[rows][1:] == data.stream[rows][:-1]
    gap = start[1:] - end[:-1]
    abutting = np.abs(gap) <= OVERLAP_TOLERANCE_NS
    # Neighbours of one graph launch share its correlation; other neighbours tell of the host, not of the graph.
    one_graph = near & data.graph[rows][1:] & (data.correlation[rows][1:] == data.correlation[rows][:-1])
    eager = near & ~data.graph[rows][1:] & ~data.graph[rows][:-1]
    return {
        "launch_lag_p50_ns": _quantile(lag, 0.5),
        "launch_lag_p90_ns": _quantile(lag, 0.9),
        "graph_abutting": _share(int((abutting & one_graph).sum()), int(one_graph.sum())),
        "eager_abutting": _share(int((abutting & eager).sum()), int(eager.sum())),
        "overlapping": _share(int((near & (gap < -OVERLAP_TOLERANCE_NS)).sum()), int(near.sum())),
    }


def _streams(data: RankData) -> dict[str, float | int | None]:
    kernels = data.is_kernel
    started = np.flatnonzero(kernels & data.graph)
    counts = np.unique(data.stream[started], return_counts=True)[1]
    inner = [step for step in data.steps if step.n_kernels]
    early = sum(_side_begins(data, step) for step in inner)
    side = len(started) - int(counts.max()) if len(started) else 0
    return {
        "side_stream_graph_kernels": _share(side, len(started)),
        "early_side_starts": _share(early, len(inner)),
    }


def _side_begins(data: RankData, step: Step) -> bool:
    rows = step.rows[data.is_kernel[step.rows]]
    streams, number = np.unique(data.stream[rows], return_inverse=True)
    busiest = streams[np.argmax(np.bincount(number, weights=data.dur_ns[rows]))]
    return bool(data.stream[rows[0]] != busiest)


def _annotations(data: RankData) -> dict[str, float | int | None]:
    noted = [step for step in data.steps if step.note_start_ns >= 0]
    ratios = [(s.note_end_ns - s.note_start_ns) / s.gpu_span_ns for s in noted if s.gpu_span_ns]
    return {
        "steps_annotated": _share(len(noted), len(data.steps)),
        "annotations_wrong": _share(data.annotation_mismatches, len(noted)),
        "annotation_to_span_p50": float(np.median(ratios)) if ratios else None,
    }


def _external(data: RankData, ids: ExternalIds) -> dict[str, float | int | None]:
    links = np.unique(data.correlation[data.is_kernel & data.graph])
    graph = np.isin(ids.kernel_correlation, links)
    known = np.isin(ids.kernel_correlation, data.correlation[data.launch_ns >= 0])
    eager = known & ~graph
    launched = np.array(ids.graph_launch_has_id, np.bool_)
    return {
        "graph_kernels_without_id": _share(int((graph & ~ids.kernel_has_id).sum()), int(graph.sum())),
        "graph_launches_without_id": _share(int((~launched).sum()), len(launched)),
        "eager_kernels_with_id": _share(int((eager & ids.kernel_has_id).sum()), int(eager.sum())),
    }
