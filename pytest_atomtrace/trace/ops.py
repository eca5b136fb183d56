"""Which op, module and layer stands behind every kernel.

Eager kernels: the launching call lies inside ops and annotations on its thread. Replayed graph kernels have
no such surroundings; the capture trace has: there every launch is recorded (`args.kernel`) and not executed,
and these launches equal the replayed kernels position by position, per stream. Where positions disagree a
longest common subsequence of names decides; traces without `args.kernel` fall back to the warm-up pass before
the capture, as ATOM's tools/parse_trace.py does.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import TYPE_CHECKING

import numpy as np

from pytest_atomtrace.trace.names import base_name
from pytest_atomtrace.trace.reader import read_rank
from pytest_atomtrace.trace.steps import is_launch

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from pytest_atomtrace.trace.data import RankData, Step
    from pytest_atomtrace.trace.rankevents import EventTable, RankEvents

__all__ = [
    "Capture",
    "CaptureLaunch",
    "KernelOrigin",
    "capture_references",
    "find_capture",
    "layer_of",
    "match_kernels",
    "read_capture",
    "resolve_eager",
    "resolve_step",
]

_LAYER = re.compile(r"(?:^|\.)layers\.(\d+)(?:\.|$)")
_SPAN = re.compile(r"capture_graph_bs_(?P<bs>\d+)|capture_(?P<bs2>\d+)_(?:FULL|PIECEWISE)\w*")
_CAPTURE_NAME = re.compile(r"bs_(?P<bs>\d+)(?:_q_(?P<q>\d+))?_rank(?P<rank>\d+)\.json(?:\.gz)?")
_NOISE = re.compile(r"ProfilerStep#|## Call CompiledFxGraph|capture_(?:graph_bs_)?\d+")


@dataclass(frozen=True)
class CaptureLaunch:
    """One launch recorded while a graph was captured, or in its warm-up.

    The kernel's name, the innermost op and the innermost named module around it, and the stream if it ran.
    """

    kernel: str
    op: str
    module: str
    stream: int | None = None
    executed: bool = False


@dataclass(frozen=True)
class KernelOrigin:
    """Where a kernel of a step comes from. `how` is eager, position, sequence, stand-in, warm-up or unmatched."""

    row: int
    kernel: str
    op: str = ""
    module: str = ""
    how: str = "unmatched"

    @property
    def layer(self) -> int | None:
        """Number of the model layer in the module's path."""
        return layer_of(self.module)


def layer_of(module: str) -> int | None:
    """Layer number in a module path such as `model.layers.12.mlp.experts`."""
    match = _LAYER.search(module)
    return int(match[1]) if match else None


def find_capture(captures: Sequence[Path], *, graph_bs: int, query_len: int | None) -> Path | None:
    """The capture trace of a graph: its (bs, q), else the only one of its bs, else a legacy combined file."""
    of_bs = []
    for path in captures:
        match = _CAPTURE_NAME.fullmatch(path.name)
        if match is None or int(match["bs"]) != graph_bs:
            continue
        if match["q"] is not None and query_len is not None and int(match["q"]) == query_len:
            return path
        of_bs.append(path)
    if len(of_bs) == 1:
        return of_bs[0]
    legacy = sorted((p for p in captures if p.name.startswith("capture_graph_")), key=lambda p: p.name)
    return legacy[-1] if legacy and not of_bs else None


@dataclass
class Capture:
    """Launches of one graph: `recorded` while capturing (not executed), `warmup` before it (executed)."""

    recorded: list[CaptureLaunch]
    warmup: list[CaptureLaunch]


def read_capture(path: Path, *, graph_bs: int | None = None, rank: str = "") -> Capture:
    """Read a capture trace. With `graph_bs` only that size's span counts; else the file's only or first one.

    A file without a capture span (PIECEWISE writes none) is taken whole.
    """
    events = read_rank(path, rank=rank, detail=True)
    start, end, warm_from = _window(events, graph_bs)
    surroundings = _Surroundings(events)
    executed = {int(link): row for row, link in enumerate(events.gpu.link.tolist()) if link > 0}
    calls = events.calls
    recorded: list[CaptureLaunch] = []
    warmup: list[CaptureLaunch] = []
    launching = np.array([is_launch(name) for name in events.names], np.bool_)
    rows = np.flatnonzero(launching[calls.name_id])
    for row in rows[np.argsort(calls.start_ns[rows], kind="stable")].tolist():
        at = int(calls.start_ns[row])
        ran = executed.get(int(calls.link[row]))
        if start <= at < end and ran is None:
            recorded.append(surroundings.launch(row, None))
        elif warm_from <= at < start and ran is not None:
            warmup.append(surroundings.launch(row, ran))
    return Capture(recorded, warmup)


def _window(events: RankEvents, graph_bs: int | None) -> tuple[int, int, int]:
    """Start and end of the capture span, and where its warm-up begins (the span before, or the file)."""
    spans: list[tuple[int, int, int]] = []
    notes = events.notes
    for row in range(len(notes)):
        match = _SPAN.fullmatch(events.names[notes.name_id[row]])
        if match:
            low = int(notes.start_ns[row])
            spans.append((low, low + int(notes.dur_ns[row]), int(match["bs"] or match["bs2"])))
    spans.sort()
    lowest = -(1 << 62)
    for number, (low, high, bs) in enumerate(spans):
        if graph_bs is None or bs == graph_bs:
            return low, high, spans[number - 1][1] if number else lowest
    if spans:
        return lowest, lowest, lowest  # a combined file that has other sizes only
    return lowest, 1 << 62, lowest


def capture_references(
    captures: Sequence[Path], shapes: Iterable[tuple[int, int | None]]
) -> dict[tuple[int, int | None], int]:
    """Kernels that the graph of each (graph bs, query length) was captured with: the reference of H05.

    Only captures that record launches without executing them count; a shape without one is left out.
    """
    found: dict[tuple[int, int | None], int] = {}
    for graph_bs, query_len in dict.fromkeys(shapes):
        path = find_capture(captures, graph_bs=graph_bs, query_len=query_len)
        count = len(read_capture(path, graph_bs=graph_bs).recorded) if path is not None else 0
        if count:
            found[graph_bs, query_len] = count
    return found


class _Surroundings:
    """Finds the innermost op and the innermost named module around a host call on its thread."""

    def __init__(self, events: RankEvents) -> None:
        self.events = events
        self.ops = _Nest(events.names, events.ops)
        self.notes = _Nest(events.names, events.notes)

    def launch(self, call: int, gpu_row: int | None) -> CaptureLaunch:
        events = self.events
        calls = events.calls
        thread, at = int(calls.where[call]), int(calls.start_ns[call])
        number = int(calls.extra[call])
        kernel = events.names[number] if number >= 0 else ""
        stream = None
        if gpu_row is not None:
            kernel = events.names[events.gpu.name_id[gpu_row]]
            stream = int(events.gpu.where[gpu_row])
        op = self.ops.innermost(thread, at)
        module = self.notes.innermost(thread, at)
        return CaptureLaunch(kernel, op, module, stream, gpu_row is not None)


class _Nest:
    """Named intervals per thread, nested as calls are."""

    def __init__(self, names: tuple[str, ...], notes: EventTable) -> None:
        self.of_thread: dict[int, tuple[list[int], list[tuple[int, str, int]]]] = {}
        order = np.lexsort((-notes.dur_ns, notes.start_ns))
        kept: dict[int, list[tuple[int, int, str]]] = {}
        for row in order.tolist():
            name = names[notes.name_id[row]]
            if _NOISE.match(name):
                continue
            start = int(notes.start_ns[row])
            kept.setdefault(int(notes.where[row]), []).append((start, start + int(notes.dur_ns[row]), name))
        for thread, members in kept.items():
            self.of_thread[thread] = _with_parents(members)

    def innermost(self, thread: int, at: int) -> str:
        from bisect import bisect_right

        starts, members = self.of_thread.get(thread, ([], []))
        place = bisect_right(starts, at) - 1
        while place >= 0:
            end, name, parent = members[place]
            if at < end:
                return name
            place = parent
        return ""


def _with_parents(members: list[tuple[int, int, str]]) -> tuple[list[int], list[tuple[int, str, int]]]:
    """Starts, and (end, name, place of the enclosing interval) of each."""
    starts: list[int] = []
    out: list[tuple[int, str, int]] = []
    stack: list[int] = []
    for place, (start, end, name) in enumerate(members):
        while stack and members[stack[-1]][1] <= start:
            stack.pop()
        starts.append(start)
        out.append((end, name, stack[-1] if stack else -1))
        stack.append(place)
    return starts, out


def match_kernels(replayed: Sequence[str], recorded: Sequence[CaptureLaunch]) -> list[tuple[CaptureLaunch | None, str]]:
    """For every replayed kernel (in order) its launch in the capture and how it was found.

    By position where names agree; if the two sequences differ, by longest common subsequence.
    """
    wanted = [base_name(name) for name in replayed]
    offered = [base_name(launch.kernel) for launch in recorded]
    if wanted == offered:
        return [(launch, "position") for launch in recorded]
    found: list[tuple[CaptureLaunch | None, str]] = [(None, "unmatched")] * len(wanted)
    matcher = SequenceMatcher(None, wanted, offered, autojunk=False)
    for tag, low, high, low_b, high_b in matcher.get_opcodes():
        if tag == "equal":
            found[low:high] = [(launch, "sequence") for launch in recorded[low_b:high_b]]
        elif tag == "replace":
            _stand_ins(found, wanted, recorded, range(low, high), range(low_b, high_b))
    return found


def _stand_ins(
    found: list[tuple[CaptureLaunch | None, str]],
    wanted: Sequence[str],
    recorded: Sequence[CaptureLaunch],
    replayed: range,
    offered: range,
) -> None:
    """A custom all-reduce does not run in warm-up, where a fill of its output stands for it."""
    fills = [place for place in offered if "FillFunctor" in recorded[place].kernel]
    for place in replayed:
        if "cross_device_reduce" in wanted[place] and fills:
            found[place] = (recorded[fills.pop(0)], "stand-in")


def resolve_step(rank: RankData, step: Step, capture: Capture) -> list[KernelOrigin]:
    """Origin of every graph kernel of `step`, in time order, through the capture trace of its graph.

    The capture order is the host's, the replay order the GPU's: where a graph runs on several streams, a
    kernel of a side stream may overtake. Positions are tried over the whole step first, then per stream by
    longest common subsequence, and the warm-up pass serves captures without `args.kernel`.
    """
    graph = rank.graph[step.rows] & (rank.kind[step.rows] == 0)
    # By annotation there are no launch records, so the whole step is taken for the replay.
    rows = step.rows[graph] if step.source == "launch" else step.rows[rank.kind[step.rows] == 0]
    names = [rank.names[number] for number in rank.name_id[rows].tolist()]
    recorded = [launch for launch in capture.recorded if launch.kernel]
    how = ""
    if not recorded:
        recorded, how = capture.warmup, "warm-up"
    matches = match_kernels(names, recorded)
    if any(launch is None for launch, _ in matches) or not how:
        matches = _better(matches, _per_stream(rank, rows.tolist(), names, recorded))
    origins = []
    for row, name, (launch, found) in zip(rows.tolist(), names, matches, strict=True):
        if launch is None:
            origins.append(KernelOrigin(row, name))
        else:
            origins.append(KernelOrigin(row, name, launch.op, launch.module, how or found))
    return origins


def resolve_eager(rank: RankData, step: Step, events: RankEvents) -> list[KernelOrigin]:
    """Origin of every eagerly launched kernel of `step`: innermost op and module around its launch.

    `events` are the rank's events, read with `detail` (the columns of RankData no longer hold the ops).
    """
    surroundings = _Surroundings(events)
    calls = events.calls
    launching = np.array([is_launch(name) for name in events.names], np.bool_)
    rows = np.flatnonzero(launching[calls.name_id]) if len(calls) else np.empty(0, np.int64)
    call_of = dict(zip(calls.link[rows].tolist(), rows.tolist(), strict=True))
    origins = []
    for row in step.rows[~rank.graph[step.rows] & (rank.kind[step.rows] == 0)].tolist():
        name = rank.names[rank.name_id[row]]
        call = call_of.get(int(rank.correlation[row]))
        if call is None:
            origins.append(KernelOrigin(row, name))
        else:
            launch = surroundings.launch(call, None)
            origins.append(KernelOrigin(row, name, launch.op, launch.module, "eager"))
    return origins


def _better(
    first: list[tuple[CaptureLaunch | None, str]], second: list[tuple[CaptureLaunch | None, str]]
) -> list[tuple[CaptureLaunch | None, str]]:
    def hits(matches: list[tuple[CaptureLaunch | None, str]]) -> int:
        return sum(launch is not None for launch, _ in matches)

    return second if hits(second) > hits(first) else first


def _per_stream(
    rank: RankData, rows: list[int], names: list[str], recorded: Sequence[CaptureLaunch]
) -> list[tuple[CaptureLaunch | None, str]]:
    """Match stream by stream, busiest first, each taking from what the streams before left."""
    found: list[tuple[CaptureLaunch | None, str]] = [(None, "unmatched")] * len(rows)
    left = list(recorded)
    places: dict[int, list[int]] = {}
    for place, row in enumerate(rows):
        places.setdefault(int(rank.stream[row]), []).append(place)
    for members in sorted(places.values(), key=len, reverse=True):
        matches = match_kernels([names[place] for place in members], left)
        taken = set()
        for place, (launch, how) in zip(members, matches, strict=True):
            if launch is not None:
                found[place] = (launch, how)
                taken.add(id(launch))
        left = [launch for launch in left if id(launch) not in taken]
    return found
