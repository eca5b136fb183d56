"""The text of a piece's rows, made once and filled for every step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from pytest_atomtrace.simulator import kineto
from pytest_atomtrace.simulator.frames import inputs
from pytest_atomtrace.simulator.plan import Launch

if TYPE_CHECKING:
    from pytest_atomtrace.simulator.durations import View
    from pytest_atomtrace.simulator.plan import Piece, Plan

__all__ = ["RECORD", "RUN", "SPLIT", "STREAMS", "WARMUP", "Host", "Lane", "PieceSheets"]

#: Streams of the trace: main and side, and the same of the second half of a two-batch step.
STREAMS = (3, 7, 9, 11)
APIS = {
    "": "hipLaunchKernel",
    "module": "hipModuleLaunchKernel",
    "ext": "hipExtModuleLaunchKernel",
    "memcpy": "hipMemcpyAsync",
}
#: What the launches of an eager piece do: run; run with stand-ins for kernels that a warm-up skips; be recorded
#: into a graph; be recorded but for the splitting operators.
RUN, WARMUP, RECORD, SPLIT = "run", "warm-up", "record", "split"


@dataclass(frozen=True)
class Host:
    """Where the rows belong: process, its threads by number, device; hidden size if shapes are recorded."""

    pid: int
    threads: tuple[int, ...]
    device: int
    hidden: int = 0


class Lane(NamedTuple):
    """Where a kernel runs: stream number, may it start before the main stream, does it wait, gap after it."""

    stream: int
    early: bool
    join: bool
    gap: int


def _runs(lanes: list[Lane]) -> list[tuple[int, int]]:
    """Ranges of kernels that follow each other on one main stream without waiting; others stand alone."""
    runs: list[tuple[int, int]] = []
    for n, lane in enumerate(lanes):
        if n and not lane.stream % 2 and not lane.join and lanes[n - 1].stream == lane.stream:
            runs[-1] = (runs[-1][0], n + 1)
        else:
            runs.append((n, n + 1))
    return runs


class PieceSheets:
    """One piece of a plan under one view: which kernels, on which lanes, with which rows."""

    def __init__(
        self, plan: Plan, piece: Piece, view: View, kernels: dict[str, dict[str, Any]], host: Host, how: str = RUN
    ) -> None:
        self.piece = piece
        self._plan, self._kernels, self._host, self._how = plan, kernels, host, how
        known, extras = len(plan.keys), range(0)
        if piece is plan.pieces[-1]:
            extras = range(known, len(view.keys))
        kept = set(view.emitted)
        self.index = [i for i in (*range(piece.first, piece.last), *extras) if i in kept]
        self.whole = self.index == list(range(len(view.keys)))
        self.names = [view.names[i] for i in self.index]
        if how == WARMUP:
            self.names = [self._stand_in(i, name) for i, name in zip(self.index, self.names, strict=True)]
        self.lanes = [self._lane(i) for i in self.index]
        self.runs = _runs(self.lanes)
        self.gaps = [lane.gap for lane in self.lanes]
        self.on_main = next((n for n, lane in enumerate(self.lanes) if not lane.stream % 2), 0)
        self.launches = [] if piece.graph else [self._launch(i) for i in self.index]
        self.executed = self._executed()
        self.spans = self._spans()
        self._graphs: dict[int, kineto.Sheet] = {}
        if not piece.graph:
            self.host = kineto.Sheet(self._host_text())
            self.gpu = kineto.Sheet("".join(self._gpu_text(n) for n in self.executed))
        frames = [kineto.frame_row(frame.name, host.pid, host.threads[0]) for frame in piece.frames]
        self.frames = kineto.Sheet("".join(frames))
        self.memory = kineto.Sheet(kineto.memory_row(16777216, host.device, host.pid, host.threads[0]))

    def graph(self, count: int) -> kineto.Sheet:
        """Rows of the first ``count`` kernels of a graph piece."""
        found = self._graphs.get(count)
        if found is None:
            text = "".join(self._graph_text(n) for n in range(count))
            found = self._graphs[count] = kineto.Sheet(text)
        return found

    def _inside(self, index: int) -> bool:
        return index < len(self._plan.keys)

    def _lane(self, index: int) -> Lane:
        if not self._inside(index):
            return Lane(0, False, False, 0)
        half, code = divmod(self._plan.codes[index], 3)
        gap = 0 if code else self._plan.gaps[index]
        return Lane(2 * half + (code > 0), code == 2, bool(self._plan.joins[index]), gap)

    def _launch(self, index: int) -> Launch:
        if not self._inside(index):
            return Launch(self.piece.span, 4000, -1, 0)
        return self.piece.launches[index - self.piece.first]

    def _stand_in(self, index: int, name: str) -> str:
        key = self._kernels[self._plan.keys[index]].get("warmup") if self._inside(index) else None
        return str(self._kernels[key]["name"]) if key else name

    def _executed(self) -> list[int]:
        if self._how == RECORD:
            return []
        if self._how == SPLIT:
            return [n for n, i in enumerate(self.index) if self._inside(i) and self._plan.split[i]]
        return list(range(len(self.index)))

    def _spans(self) -> list[tuple[int, int, list[int]]]:
        """Module spans with executed kernels: node, stream, their places."""
        found = []
        for number, node in enumerate(self.piece.nodes):
            if node.is_op:
                continue
            members: dict[int, list[int]] = {}
            for n in self.executed:
                if node.first <= self.index[n] < node.last:
                    members.setdefault(self.lanes[n].stream, []).append(n)
            found += [(number, stream, places) for stream, places in members.items()]
        return found

    def _memory(self, index: int) -> str:
        return str(self._kernels[self._plan.keys[index]].get("memory", "")) if self._inside(index) else ""

    def _host_text(self) -> str:
        host = self._host
        shapes = inputs(host.hidden) if host.hidden else ""
        rows = []
        for node in self.piece.nodes:
            tid = host.threads[node.thread]
            rows.append(
                kineto.op_row(node.name, host.pid, tid, inputs=shapes)
                if node.is_op
                else kineto.span_row(node.name, host.pid, tid)
            )
        for index, name, launch in zip(self.index, self.names, self.launches, strict=True):
            api = self._kernels[self._plan.keys[index]].get("api", "") if self._inside(index) else "module"
            shown = self._memory(index) or name
            tid = host.threads[launch.thread]
            rows.append(kineto.launch_row(APIS[api], shown, host.pid, tid, external=launch.op >= 0, size=256))
        return "".join(rows)

    def _gpu_text(self, n: int) -> str:
        return kineto.gpu_row(
            self.names[n],
            self._host.device,
            STREAMS[self.lanes[n].stream],
            external=self.launches[n].op >= 0,
            graph=False,
            memory=self._memory(self.index[n]),
            size=256,
        )

    def _graph_text(self, n: int) -> str:
        stream = STREAMS[self.lanes[n].stream]
        return kineto.gpu_row(self.names[n], self._host.device, stream, external=False, graph=True)
