"""A rank's events become its data: sorted columns, steps with their figures, counts per phase."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pytest_atomtrace.trace.data import KERNEL, PHASES, Launches, RankData, Step
from pytest_atomtrace.trace.stepmath import step_figures
from pytest_atomtrace.trace.steps import attribute, gather, in_order, is_graph_launch, is_launch

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from pytest_atomtrace.trace.rankevents import EventTable, RankEvents
    from pytest_atomtrace.trace.steps import Attribution, LabelSpan

__all__ = ["build_rank", "make_steps"]


def build_rank(name: str, path: Path, events: RankEvents) -> RankData:
    """Attribute, sort and summarise one rank's events, whose GPU table is used up."""
    gpu, calls = events.gpu, events.calls
    _sort(gpu)
    found = attribute(events)
    place = _time_order(found)
    launches = _launches(events, found, place)
    launch = found.launch
    graph_names = np.array([is_graph_launch(text) for text in events.names] or [False], np.bool_)
    data = RankData(
        name=name,
        path=path,
        names=events.names,
        name_id=gpu.name_id,
        start_ns=gpu.start_ns,
        dur_ns=gpu.dur_ns,
        stream=gpu.where,
        correlation=gpu.link,
        kind=gpu.extra.astype(np.int8, copy=False),
        step=_renumbered(found.step, place),
        phase=found.phase,
        launch_ns=gather(calls.start_ns, launch, -1),
        graph=gather(graph_names[calls.name_id], launch, 0),
        steps=(),
        launches=launches,
        op_counts=_counts(events, events.ops, found.op_phase),
        annotation_counts=_counts(events, events.notes, found.note_phase),
        meta=events.meta,
        event_count=events.event_count,
        odd_times=events.odd_times,
        annotation_mismatches=int(found.mismatches),
        text_bytes=events.text_bytes,
    )
    spans = [found.spans[number] for number in np.argsort(place).tolist()]
    del launch, found, gpu, calls, events  # their columns would otherwise outlive the figures' temporaries
    data.steps = make_steps(data, spans)
    return data


def _sort(gpu: EventTable) -> None:
    """Put a table in time order, column by column: twice all of them would be the peak of a load."""
    if in_order(gpu.start_ns):
        return
    order = np.argsort(gpu.start_ns, kind="stable").astype(np.int32)
    for column in ("name_id", "start_ns", "dur_ns", "where", "link", "extra"):
        setattr(gpu, column, gather(getattr(gpu, column), order, -1))


def _time_order(found: Attribution) -> NDArray[np.int32]:
    """New number of every label, so that numbers follow time."""
    starts = np.array([span.start_ns for span in found.spans], np.int64)
    place = np.empty(len(starts), np.int32)
    place[np.argsort(starts, kind="stable")] = np.arange(len(starts), dtype=np.int32)
    return place


def _renumbered(step: NDArray[np.int32], place: NDArray[np.int32]) -> NDArray[np.int32]:
    return gather(place, step, -1)


def _launches(events: RankEvents, found: Attribution, place: NDArray[np.int32]) -> Launches:
    calls = events.calls
    carried = _counted(found.launch, len(calls))
    is_kernel = events.gpu.extra == KERNEL
    kernels = carried if is_kernel.all() else _counted(found.launch[is_kernel], len(calls))
    starts = np.array([is_launch(text) for text in events.names] or [False], np.bool_)
    keep = np.flatnonzero(starts[calls.name_id] | (carried > 0))
    keep = keep[np.argsort(calls.start_ns[keep], kind="stable")]
    return Launches(
        name_id=calls.name_id[keep],
        start_ns=calls.start_ns[keep],
        dur_ns=calls.dur_ns[keep],
        correlation=calls.link[keep],
        n_gpu=carried[keep].astype(np.int32),
        n_kernels=kernels[keep].astype(np.int32),
        step=_renumbered(found.call_step[keep], place),
    )


def _counted(rows: NDArray[np.int32], count: int) -> NDArray[np.int64]:
    """How often each of `count` rows is named; -1 names none."""
    # Shifted by one, so that nothing needs to be picked out first; by parts, for bincount widens its input.
    total = np.zeros(count + 1, np.int64)
    part = max(count, 1 << 16)
    for low in range(0, len(rows), part):
        total += np.bincount(rows[low : low + part] + 1, minlength=count + 1)
    return total[1:]


def _counts(events: RankEvents, table: EventTable, phase: NDArray[np.int8]) -> dict[str, dict[str, int]]:
    """Per name the number of events in each phase."""
    cell = table.name_id.astype(np.int64) * len(PHASES) + phase
    cells, numbers = np.unique(cell, return_counts=True)
    counts: dict[str, dict[str, int]] = {}
    for where, number in zip(cells.tolist(), numbers.tolist(), strict=True):
        name = events.names[where // len(PHASES)]
        counts.setdefault(name, {})[PHASES[where % len(PHASES)]] = number
    return counts


def make_steps(data: RankData, spans: list[LabelSpan]) -> tuple[Step, ...]:
    """Steps of `data` in time order; `spans` are their labels, numbered as `data.step` is."""
    count = len(spans)
    kernels: NDArray[np.int64] | slice = np.flatnonzero(data.kind == KERNEL)
    if not (data.kind != KERNEL).any():
        kernels = slice(None)
    figures = step_figures(
        data.step[kernels], data.start_ns[kernels], data.dur_ns[kernels], data.stream[kernels], count
    )
    owned = np.flatnonzero(data.step >= 0).astype(np.int32)
    owner = data.step[owned]
    if (owner[1:] < owner[:-1]).any():
        owned = owned[np.argsort(owner, kind="stable")]
    bounds = np.searchsorted(data.step[owned], np.arange(count + 1))
    graph = np.array([is_graph_launch(text) for text in data.names] or [False], np.bool_)
    launched = data.launches.step[graph[data.launches.name_id]] if len(data.launches) else np.empty(0, np.int32)
    graphs = np.bincount(launched[launched >= 0], minlength=count)
    steps: list[Step] = []
    decode_index = -1
    for number, span in enumerate(spans):
        kind = span.label.kind
        if kind in {"decode", "eager_decode", "prefill"}:
            # Drafts also follow a prefill; those belong to no decode.
            decode_index = -1 if kind == "prefill" else number
        steps.append(
            Step(
                index=number,
                rank=data.name,
                label=span.label,
                kind=kind,
                cpu_start_ns=span.start_ns,
                cpu_end_ns=span.end_ns,
                rows=owned[bounds[number] : bounds[number + 1]],
                first_ns=int(figures.first_ns[number]),
                last_ns=int(figures.last_ns[number]),
                gpu_busy_ns=int(figures.busy_ns[number]),
                gpu_span_ns=int(figures.span_ns[number]),
                kernel_sum_ns=int(figures.sum_ns[number]),
                n_kernels=int(figures.kernels[number]),
                n_graph_launches=int(graphs[number]),
                source=span.source,
                edge=number in {0, count - 1},
                decode_index=decode_index if kind == "draft" or kind.startswith("dspark") else -1,
                overlap_ns=int(figures.overlap_ns[number]),
                note_start_ns=span.note_ns[0],
                note_end_ns=span.note_ns[1],
            )
        )
    return tuple(steps)
