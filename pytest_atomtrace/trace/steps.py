"""Which step owns which GPU activity.

Steps own kernels by launch, not by time: on real AMD traces a kernel runs 5 to 229 ms after its launch
(medians), GPU annotations are often wrong or absent, and a kernel's External id is the innermost op's, never
the label's. An activity belongs to the label that holds its launch record, found by correlation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import numpy as np

from pytest_atomtrace.trace.data import PHASES
from pytest_atomtrace.trace.labels import DECODE_KINDS, parse_label

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pytest_atomtrace.trace.labels import Label
    from pytest_atomtrace.trace.rankevents import EventTable, RankEvents

__all__ = ["Attribution", "LabelSpan", "attribute", "gather", "in_order", "is_graph_launch", "is_launch"]

_I8: TypeAlias = "NDArray[np.int8]"
_I32: TypeAlias = "NDArray[np.int32]"
_I64: TypeAlias = "NDArray[np.int64]"
_Scalar = TypeVar("_Scalar", bound=np.generic)
_PART = 1 << 16
_FOREVER = np.iinfo(np.int64).max


@dataclass
class LabelSpan:
    """One step label on the host: `thread` indexes `RankEvents.threads` (-1: known from the GPU only)."""

    label: Label
    thread: int
    start_ns: int
    end_ns: int
    external_id: int = -1
    source: str = "launch"
    note_ns: tuple[int, int] = (-1, -1)


@dataclass
class Attribution:
    """Step, phase and launch of every GPU activity, in the order of `RankEvents.gpu`.

    `call_phase`/`call_step` are the same for host calls, `op_phase` and `note_phase` for ops and annotations.
    `launch` is the row of the launching call in `RankEvents.calls`, -1 = none.
    `mismatches` counts steps whose GPU annotation disagrees with the launches over more than 1 % of kernels.
    """

    spans: list[LabelSpan]
    step: _I32
    phase: _I8
    launch: _I32
    call_step: _I32
    op_phase: _I8
    note_phase: _I8
    mismatches: int


def is_graph_launch(name: str) -> bool:
    """True for hipGraphLaunch and its relatives."""
    return "GraphLaunch" in name


def is_launch(name: str) -> bool:
    """True for calls that start kernels: any name with both "launch" and "kernel", and graph launches."""
    lower = name.lower()
    return ("launch" in lower and "kernel" in lower) or is_graph_launch(name)


def attribute(events: RankEvents) -> Attribution:
    """Assign every GPU activity, host call and op of a rank to its step and phase."""
    spans = _host_spans(events)
    launch = _launch_rows(events)
    timeline = _Timeline(spans, events)
    call_step, call_phase = timeline.locate(events.calls)
    step = gather(call_step, launch, -1)
    phase = gather(call_phase, launch, PHASES.index("unattributed"))
    mismatches = _use_annotations(events, spans, step, phase, launch >= 0)
    _, op_phase = timeline.locate(events.ops)
    _, note_phase = timeline.locate(events.notes)
    return Attribution(spans, step, phase, launch, call_step, op_phase, note_phase, mismatches)


def gather(values: NDArray[_Scalar], index: _I32, missing: int) -> NDArray[_Scalar]:
    """`values[index]`, and `missing` where the index is -1.

    By parts: numpy widens a whole index to 64 bits first, which would double the peak of a large trace.
    """
    if not len(values):
        return np.full(len(index), missing, values.dtype)
    out = np.empty(len(index), values.dtype)
    for low in range(0, len(index), _PART):
        part = index[low : low + _PART]
        found = values.take(part, mode="clip", out=out[low : low + _PART])
        if part.min() < 0:
            found[part < 0] = missing
    return out


def in_order(start: _I64) -> bool:
    """Whether rows are sorted; by parts, which most often ends early."""
    return not any(
        (start[low + 1 : low + _PART + 1] < start[low : low + _PART][: len(start) - low - 1]).any()
        for low in range(0, len(start), _PART)
    )


def _host_spans(events: RankEvents) -> list[LabelSpan]:
    spans = []
    notes = events.notes
    labels = _labels_of(events.names, notes)
    for row in labels:
        label = parse_label(events.names[notes.name_id[row]])
        assert label is not None
        start = int(notes.start_ns[row])
        end = start + int(notes.dur_ns[row])
        spans.append(LabelSpan(label, int(notes.where[row]), start, end, int(notes.link[row])))
    # Outer before inner where both start at once.
    spans.sort(key=lambda span: (span.start_ns, -span.end_ns))
    return _without_outer_twins(spans)


def _labels_of(names: tuple[str, ...], notes: EventTable) -> list[int]:
    if not len(notes):
        return []
    used = np.unique(notes.name_id)
    is_label = np.zeros(len(names), np.bool_)
    is_label[[number for number in used.tolist() if parse_label(names[number]) is not None]] = True
    rows: list[int] = np.flatnonzero(is_label[notes.name_id]).tolist()
    return rows


def _without_outer_twins(spans: list[LabelSpan]) -> list[LabelSpan]:
    """Drop an `execute_` or `step[` label that holds another label on its thread: both tell one step."""
    outer: set[int] = set()
    open_spans: dict[int, list[int]] = {}
    for number, span in enumerate(spans):
        stack = open_spans.setdefault(span.thread, [])
        while stack and spans[stack[-1]].end_ns < span.end_ns:
            stack.pop()
        outer.update(held for held in stack if spans[held].label.style != "atom")
        stack.append(number)
    return [span for number, span in enumerate(spans) if number not in outer]


def _launch_rows(events: RankEvents) -> _I32:
    """For every GPU activity the row of the call that launched it; -1 where no call has its correlation.

    Correlation 0 and absent ones never match: two unknowns are not equal.
    """
    calls, gpu = events.calls, events.gpu
    none = np.full(len(gpu), -1, np.int32)
    if not len(calls) or not len(gpu):
        return none
    starts = np.array([is_launch(name) or _starts_copy(name) for name in events.names], np.bool_)
    useful = starts[calls.name_id]
    # A driver call may repeat its runtime call's correlation: the one that launches comes last and wins.
    order = np.lexsort((useful, calls.link)).astype(np.int32)
    links = calls.link[order]
    for low in range(0, len(gpu), _PART):
        link = gpu.link[low : low + _PART]
        # A graph's kernels follow each other: one search serves the whole run of equal correlations.
        heads = np.flatnonzero(np.append(True, link[1:] != link[:-1]))
        wanted = link[heads]
        found = np.searchsorted(links, wanted, side="right") - 1
        hit = (found >= 0) & (wanted > 0) & (links[np.maximum(found, 0)] == wanted)
        row = np.where(hit, order[found], np.int32(-1))
        none[low : low + _PART] = np.repeat(row, np.diff(np.append(heads, len(link))))
    return none


def _starts_copy(name: str) -> bool:
    return "Memcpy" in name or "Memset" in name


class _Timeline:
    """Labels laid out so that an instant on a thread finds its innermost label by binary search."""

    def __init__(self, spans: list[LabelSpan], events: RankEvents) -> None:
        self.spans = spans
        self.threads = events.threads
        # Label -1 is "outside": its phase is `other`, or `sample` after a decode label.
        self.kinds = np.array([PHASES.index(span.label.kind) for span in spans], np.int8)
        own: dict[int, list[int]] = {}
        of_process: dict[int | str, list[int]] = {}
        for number, span in enumerate(spans):
            own.setdefault(span.thread, []).append(number)
            if span.thread >= 0:
                of_process.setdefault(self.threads[span.thread][0], []).append(number)
        self.own = {thread: self._segments(members) for thread, members in own.items()}
        self.of_process = {pid: self._segments(members) for pid, members in of_process.items()}

    def _segments(self, members: list[int]) -> tuple[_I64, _I32, _I8]:
        """Starts of segments, the label (-1 = none) and the phase that hold from there on."""
        marks: list[tuple[int, int]] = [(-_FOREVER, -1)]
        stack: list[int] = []
        last_closed = -1

        def close_until(limit: int) -> None:
            nonlocal last_closed
            while stack and min(self.spans[held].end_ns for held in stack) <= limit:
                first = min(stack, key=lambda held: self.spans[held].end_ns)
                stack.remove(first)
                if not stack:
                    last_closed = first
                    marks.append((self.spans[first].end_ns, -2 - first))
                else:
                    marks.append((self.spans[first].end_ns, stack[-1]))

        for number in members:
            close_until(self.spans[number].start_ns)
            stack.append(number)
            marks.append((self.spans[number].start_ns, number))
        close_until(_FOREVER)
        starts = np.array([mark[0] for mark in marks], np.int64)
        label = np.array([max(mark[1], -1) for mark in marks], np.int32)
        phase = np.array([self._phase(mark[1]) for mark in marks], np.int8)
        return starts, label, phase

    def _phase(self, mark: int) -> int:
        if mark >= 0:
            return int(self.kinds[mark])
        after = self.spans[-2 - mark].label.kind if mark < -1 else ""
        return PHASES.index("sample" if after in DECODE_KINDS else "other")

    def locate(self, table: EventTable) -> tuple[_I32, _I8]:
        """Label (-1 = none) and phase of every row of a table of host events."""
        step = np.full(len(table), -1, np.int32)
        phase = np.full(len(table), PHASES.index("other"), np.int8)
        if not self.spans or not len(table):
            return step, phase
        for thread in np.unique(table.where).tolist():
            segments = self.own.get(thread) or self.of_process.get(self.threads[thread][0])
            if segments is None:
                continue
            starts, labels, phases = segments
            rows = np.flatnonzero(table.where == thread)
            at = np.searchsorted(starts, table.start_ns[rows], side="right") - 1
            step[rows] = labels[at]
            phase[rows] = phases[at]
        return step, phase


def _use_annotations(
    events: RankEvents, spans: list[LabelSpan], step: _I32, phase: _I8, known: NDArray[np.bool_]
) -> int:
    """Give activities without a launch record to steps by GPU annotation, where the step has no launch.

    Returns the number of steps whose annotation contradicts the launches. Steps known from the GPU only
    are appended to `spans`.
    """
    windows = _annotation_windows(events, spans)
    if not windows:
        return 0
    gpu = events.gpu
    order = None if in_order(gpu.start_ns) else np.argsort(gpu.start_ns, kind="stable").astype(np.int32)
    starts = gpu.start_ns if order is None else gpu.start_ns[order]
    owned = np.bincount(step[step >= 0], minlength=len(spans))
    mismatches = 0
    places = np.searchsorted(starts, np.array(list(windows.values()), np.int64)).tolist()
    for (number, window), (first, last) in zip(windows.items(), places, strict=True):
        spans[number].note_ns = window
        inside = np.arange(first, last, dtype=np.int32) if order is None else order[first:last]
        if number < len(owned) and owned[number]:
            mine = int((step[inside] == number).sum())
            wrong = int(owned[number]) - mine + len(inside) - mine
            mismatches += wrong > 0.01 * owned[number]
            continue
        free = inside[~known[inside] & (step[inside] < 0)]
        step[free] = number
        phase[free] = PHASES.index(spans[number].label.kind)
        spans[number].source = "annotation"
    return mismatches


def _annotation_windows(events: RankEvents, spans: list[LabelSpan]) -> dict[int, tuple[int, int]]:
    """Per step the hull of its projections: one label may have several, one per stream, same External id."""
    notes = events.gpu_notes
    by_id = {span.external_id: n for n, span in enumerate(spans) if span.external_id >= 0}
    windows: dict[int, tuple[int, int]] = {}
    orphans: list[tuple[int, int, int, int]] = []
    for row in _labels_of(events.names, notes):
        low = int(notes.start_ns[row])
        high = low + int(notes.dur_ns[row])
        external = int(notes.link[row])
        number = by_id.get(external)
        name = int(notes.name_id[row])
        if number is None:
            orphans.append((low, high, external, name))
        elif spans[number].label.text == events.names[name]:
            old = windows.get(number, (low, high))
            windows[number] = (min(low, old[0]), max(high, old[1]))
    if orphans:
        _adopt(events, spans, windows, sorted(orphans))
    return windows


def _adopt(
    events: RankEvents,
    spans: list[LabelSpan],
    windows: dict[int, tuple[int, int]],
    orphans: list[tuple[int, int, int, int]],
) -> None:
    """GPU labels without a host label become steps of their own; projections of one id become one step."""
    host_texts = {span.label.text for span in spans}
    _pair_by_order(events, spans, windows, orphans)
    groups: dict[int, int] = {}
    for low, high, external, name in orphans:
        text = events.names[name]
        label = parse_label(text)
        # With host labels present, one without its id is a projection whose link was lost, not a new step.
        if label is None or text in host_texts:
            continue
        number = groups.get(external) if external >= 0 else None
        if number is None or spans[number].label.text != text:
            number = len(spans)
            spans.append(LabelSpan(label, -1, low, high, external, "annotation"))
            windows[number] = (low, high)
            if external >= 0:
                groups[external] = number
        else:
            old = windows[number]
            windows[number] = (min(low, old[0]), max(high, old[1]))
            spans[number].end_ns = max(spans[number].end_ns, high)


def _pair_by_order(
    events: RankEvents,
    spans: list[LabelSpan],
    windows: dict[int, tuple[int, int]],
    orphans: list[tuple[int, int, int, int]],
) -> None:
    """Where no side has an External id, the n-th projection is the n-th label's, if there are equally many."""
    hosts: dict[str, list[int]] = {}
    for number, span in enumerate(spans):
        if span.external_id < 0 and number not in windows:
            hosts.setdefault(span.label.text, []).append(number)
    projections: dict[str, list[tuple[int, int]]] = {}
    for low, high, external, name in orphans:
        if external < 0:
            projections.setdefault(events.names[name], []).append((low, high))
    for text, members in hosts.items():
        found = projections.get(text, [])
        if len(found) == len(members):
            windows.update(zip(members, found, strict=True))
