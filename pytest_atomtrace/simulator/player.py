"""Plays programs onto the trace: host rows, launches, and kernels that run a lag after them.

The host runs ahead of the GPU, and every kernel starts a drifting lag of milliseconds after its launch record
(as measured on real machines, where host and GPU clocks and queues differ by 5 to 200 ms). Kernels of one
stream never overlap.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from pytest_atomtrace.simulator import kineto
from pytest_atomtrace.simulator.plan import EAGER, GRAPH, PIECES, Plan
from pytest_atomtrace.simulator.sheets import RUN, STREAMS, Host, PieceSheets
from pytest_atomtrace.simulator.streams import Streams

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_atomtrace.simulator.durations import Durations, Shape, View

__all__ = ["LAG_NS", "Player"]

LAG_NS = (5_000_000, 200_000_000)
GRAPH_LAUNCH_NS = 52_000
PIECE_LAUNCH_NS = 9_000
MODES = {"graph": GRAPH, "graph_tbo": GRAPH, "pieces": PIECES, "pieces_tbo": PIECES}


class Player:
    """Writes pieces of one rank. ``host`` and ``gpu`` take text; identifiers only grow."""

    def __init__(
        self,
        model: dict[str, Any],
        durations: Durations,
        *,
        seed: int,
        host: Host,
        start_ns: int,
        write_host: Callable[[str], object],
        write_gpu: Callable[[str], object],
        second: bool = False,
    ) -> None:
        self._model, self._durations, self._seed = model, durations, seed
        self._host, self._second = host, second
        self._write_host, self._write_gpu = write_host, write_gpu
        self.rng = random.Random(f"{seed}/window/{host.device}")
        self._plans: dict[str, Plan] = {}
        self._sheets: dict[tuple[object, ...], PieceSheets] = {}
        self._stamps = kineto.Stamps()
        self.lag = self.rng.randint(LAG_NS[0], 40_000_000)
        self.now = start_ns
        self.streams = Streams(start_ns)
        self.correlation = 90_000 + self.rng.randint(0, 9999)
        self.external = 200_000 + self.rng.randint(0, 9999)
        self.event = self._frame = self.rows = self.row_cap = 0

    @property
    def gpu_end(self) -> int:
        """When everything written so far has run."""
        return max(self.streams.ends)

    def plan(self, program: str) -> Plan:
        """The host side of a program, built once."""
        found = self._plans.get(program)
        if found is None:
            found = self._plans[program] = Plan(
                self._model["programs"][program],
                f"{self._seed}/host/{program}",
                mode=MODES.get(program, EAGER),
                splitting=frozenset(self._model["splitting"]),
                second=self._second,
                detailed=self._host.hidden > 0,
                together=program != "capture",
            )
        return found

    def play(
        self,
        program: str,
        phase: str,
        number: int,
        shape: Shape,
        step: int,
        *,
        keep: float = 1.0,
        whole: bool = True,
        how: str = RUN,
    ) -> int | None:
        """Run a program now; returns when its first kernel starts.

        ``number`` counts the phase's programs in the window (for mutations), ``step`` is the engine's.
        ``keep`` below 1 is the share of one graph's kernels that survives, 0 loses all GPU activity.
        """
        plan = self.plan(program)
        if not plan.keys:
            return None
        view = self._durations.view(program, plan.kernels, phase, number, whole=whole)
        times = self._durations.of(program, view, shape, step)
        graphs = [n for n, piece in enumerate(plan.pieces) if piece.graph]
        lossy = graphs[len(graphs) // 2] if graphs else -1
        two_batch = program.endswith("_tbo")
        if two_batch:
            self.streams.join()
        first: int | None = None
        begin: int | None
        for n, piece in enumerate(plan.pieces):
            token = (program, n, view.token, how)
            sheets = self._sheets.get(token)
            if sheets is None:
                sheets = PieceSheets(plan, piece, view, self._model["kernels"], self._host, how)
                self._sheets[token] = sheets
            took = times if sheets.whole else [times[i] for i in sheets.index]
            if piece.graph:
                begin = self._graph(sheets, took, keep if keep == 0 or n == lossy else 1.0, len(plan.pieces) == 1)
            else:
                begin = self._eager(sheets, took, keep > 0, shape.size)
            first = begin if first is None else first
        if two_batch:
            self.streams.join()
        return first

    def _graph(self, sheets: PieceSheets, times: list[int], keep: float, alone: bool) -> int:
        self._frames(sheets)
        self.correlation += 1
        correlation = self.correlation
        cost = GRAPH_LAUNCH_NS if alone else PIECE_LAUNCH_NS + 20 * len(times)
        took = int(cost * self.rng.lognormvariate(0, 0.18))
        row = kineto.Sheet(
            kineto.launch_row("hipGraphLaunch", None, self._host.pid, self._host.threads[0], external=False)
        )
        at, own = kineto.stamp(self.now), str(correlation)
        self.write_host(row.fill([at, kineto.stamp(took), own, own, at]), 2)
        floor = self.now + took + self.lag
        self.now += took + (0 if alone else 1500)
        starts = self.streams.place_graph(sheets, times, floor)
        count = int(len(starts) * keep)
        shown = kineto.stamps(starts[:count])
        values = [own] * (5 * count)
        values[0::5] = values[4::5] = shown
        values[1::5] = map(self._stamps.__getitem__, times[:count])
        self._gpu(sheets.graph(count).fill(values), 2 * count)
        return starts[sheets.on_main] if starts else floor

    def _eager(self, sheets: PieceSheets, times: list[int], run: bool, tokens: int) -> int | None:
        piece, begin, launches = sheets.piece, self.now, sheets.launches
        base, event, correlation = self.external, self.event, self.correlation
        values: list[str] = []
        shapes = [str(tokens)] if self._host.hidden else []
        for n, node in enumerate(piece.nodes, 1):
            values += (kineto.stamp(begin + node.start), kineto.stamp(node.took), str(base + n))
            values += shapes if node.is_op else ()
            values.append(str(event + n))
        for n, launch in enumerate(launches, 1):
            at, own = kineto.stamp(begin + launch.start), str(correlation + n)
            values += (at, kineto.stamp(launch.took))
            if launch.op >= 0:
                values.append(str(base + 1 + launch.op))
            values += (own, own, at)
        self.external, self.event = base + len(piece.nodes), event + len(piece.nodes)
        self.correlation = correlation + len(launches)
        self.now = begin + piece.span
        self.write_host(sheets.host.fill(values), len(piece.nodes) + 2 * len(launches))
        self._frames(sheets, begin)
        ran = sheets.executed
        if not ran:
            return None
        floors = [begin + launches[n].start + launches[n].took + self.lag for n in ran]
        placed = self.streams.place([sheets.lanes[n] for n in ran], [times[n] for n in ran], floors)
        starts = dict(zip(ran, placed, strict=True))
        if run:
            self._eager_gpu(sheets, starts, times, base, correlation)
        return placed[0]

    def _eager_gpu(
        self, sheets: PieceSheets, starts: dict[int, int], times: list[int], base: int, correlation: int
    ) -> None:
        values: list[str] = []
        for n, start in starts.items():
            at, own, op = kineto.stamp(start), str(correlation + 1 + n), sheets.launches[n].op
            values += (at, self._stamps[times[n]])
            if op >= 0:
                values.append(str(base + 1 + op))
            values += (own, own, at)
        self._gpu(sheets.gpu.fill(values), 2 * len(starts))
        for node, stream, places in sheets.spans:
            begin = min(starts[n] for n in places)
            end = max(starts[n] + times[n] for n in places)
            self.gpu_annotation(sheets.piece.nodes[node].name, stream, begin, end - begin, base + 1 + node)

    def _frames(self, sheets: PieceSheets, begin: int | None = None) -> None:
        frames = sheets.piece.frames
        if not frames:
            return
        begin = self.now if begin is None else begin
        values: list[str] = []
        for n, frame in enumerate(frames, 1):
            parent = str(self._frame + 1 + frame.parent) if frame.parent >= 0 else "null"
            values += (kineto.stamp(begin + frame.start), kineto.stamp(frame.took), parent)
            values += (str(self._frame + n), str(self.event + n))
        self._frame += len(frames)
        self.event += len(frames) + 1
        self.write_host(sheets.frames.fill(values), len(frames))
        self.write_host(sheets.memory.fill([kineto.stamp(begin), str(self.event)]), 1)

    def orphans(self, program: str, shape: Shape, step: int, *, since: int) -> None:
        """Kernels of the main stream of a program whose launch was before ``since``."""
        plan = self.plan(program)
        view: View = self._durations.view(program, plan.kernels, "before", -1)
        times = self._durations.of(program, view, shape, step)
        first = int(len(times) * (1 - self.rng.uniform(0.1, 0.35)))
        now = since + self.rng.randint(20_000, 200_000)
        limit, own = now + 4_000_000, str(self.correlation - 3)
        for index in range(first, len(times)):
            if plan.codes[index] or now + times[index] > limit:
                continue
            row = kineto.gpu_row(view.names[index], self._host.device, STREAMS[0], external=False, graph=True)
            at = kineto.stamp(now)
            self._gpu(kineto.Sheet(row).fill([at, self._stamps[times[index]], own, own, at]), 2)
            now += times[index] + plan.gaps[index]
        self.streams.ends[0] = max(self.streams.ends[0], now)

    def gpu_annotation(self, name: str, stream: int, begin: int, took: int, external: int) -> None:
        """One GPU annotation on the stream of that number."""
        row = kineto.gpu_annotation(
            name, self._host.device, STREAMS[stream], begin=begin, took=max(took, 0), external=external
        )
        self._gpu(row, 1)

    def annotation(self, name: str, begin: int, end: int, external: int) -> None:
        """One CPU annotation on the main thread."""
        self.event += 1
        pid, tid = self._host.pid, self._host.threads[0]
        self.write_host(
            kineto.annotation(name, pid, tid, begin=begin, took=end - begin, external=external, event=self.event),
            1,
        )

    def runtime_call(self, api: str, took: int) -> None:
        """A call that launches nothing; time passes."""
        self.correlation += 1
        row = kineto.call(
            api, self._host.pid, self._host.threads[0], begin=self.now, took=took, correlation=self.correlation
        )
        self.write_host(row, 1)
        self.now += took + 1_000

    def next_external(self) -> int:
        """A fresh External id."""
        self.external += 1
        return self.external

    def write_host(self, text: str, rows: int) -> None:
        """Host rows, unless the cap is reached."""
        if not self.row_cap or self.rows < self.row_cap:
            self.rows += rows
            self._write_host(text)

    def _gpu(self, text: str, rows: int) -> None:
        if not self.row_cap or self.rows < self.row_cap:
            self.rows += rows
            self._write_gpu(text)
