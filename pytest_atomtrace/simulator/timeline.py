"""A window's steps on one rank, turned into host and GPU rows.

The host runs ahead of the GPU: it starts a step while the GPU is still busy with the one before, and every
kernel starts a drifting lag of milliseconds after its launch record (as measured on real machines, where host
and GPU clocks and queues differ by 5 to 200 ms). Kernels of one stream never overlap.
"""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

from pytest_atomtrace.simulator import kineto
from pytest_atomtrace.simulator.durations import Durations, Shape

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["MAIN", "SIDE", "Hosted", "Timeline"]

MAIN, SIDE = 3, 7
APIS = {
    "": "hipLaunchKernel",
    "module": "hipModuleLaunchKernel",
    "ext": "hipExtModuleLaunchKernel",
    "memcpy": "hipMemcpyAsync",
}
GRAPH_LAUNCH_NS = 52_000
LAG_NS = (5_000_000, 200_000_000)
AHEAD_NS = 350_000
EARLY_NS = 30_000


class Hosted:
    """A program's host side: operators and launches at fixed offsets from the program's start."""

    def __init__(self, items: list[list[Any]], seed: str) -> None:
        rng = random.Random(seed)
        self.keys: list[str] = []
        self.streams: list[int] = []
        self.joins: list[int] = []
        self.ops: list[list[int]] = []  # start, duration
        self.op_names: list[str] = []
        self.launches: list[tuple[int, int, int]] = []  # start, duration, index of the innermost op or -1
        now, stack = 0, []
        for item in items:
            if item[0] == "o":
                now += rng.randint(1200, 2600)
                stack.append(len(self.ops))
                self.ops.append([now, 0])
                self.op_names.append(item[1])
            elif item[0] == "e":
                now += rng.randint(500, 1500)
                index = stack.pop()
                self.ops[index][1] = now - self.ops[index][0]
            else:
                _, key, stream, join = item
                self.keys.append(key)
                self.streams.append(stream)
                self.joins.append(join)
                now += rng.randint(900, 2500)
                took = rng.randint(3200, 6900)
                self.launches.append((now, took, stack[-1] if stack else -1))
                now += took
        self.span = now + 800
        # 6 % of the neighbours in a graph leave a gap, the others abut within a nanosecond
        self.gaps = [rng.randint(300, 1600) if rng.random() < 0.06 else rng.randint(0, 1) for _ in self.keys]


class Timeline:
    """Writes one window. ``host`` and ``gpu`` take text; identifiers go on from window to window."""

    def __init__(
        self,
        model: dict[str, Any],
        durations: Durations,
        *,
        seed: int,
        rank: int,
        pid: int,
        start_ns: int,
        host: Callable[[str], object],
        gpu: Callable[[str], object],
    ) -> None:
        self._programs: dict[str, list[list[Any]]] = model["programs"]
        self._kernels: dict[str, dict[str, Any]] = model["kernels"]
        self._durations = durations
        self._seed, self._rank, self._pid = seed, rank, pid
        self._write_host, self._write_gpu = host, gpu
        self._rng = random.Random(f"{seed}/window/{rank}")
        self._hosted: dict[str, Hosted] = {}
        self._templates: dict[tuple[object, ...], str] = {}
        self._annotation = kineto.annotation_row(pid, pid)
        self._gpu_annotation = kineto.gpu_annotation_row(rank)
        self._lag = self._rng.randint(LAG_NS[0], 40_000_000)
        self.start = start_ns
        self._now = start_ns + 1_500_000
        self._main = self._side = start_ns
        self._correlation = 90_000 + self._rng.randint(0, 9999)
        self._external = 200_000 + self._rng.randint(0, 9999)
        self._event = 0
        self._phase_steps: dict[str, int] = {}
        self.rows = 0
        self.row_cap = 0
        self.labels = True

    @property
    def end(self) -> int:
        """The end of everything written so far, in ns."""
        return max(self._main, self._side, self._now)

    def hosted(self, program: str) -> Hosted:
        """The host side of a program, built once."""
        found = self._hosted.get(program)
        if found is None:
            found = self._hosted[program] = Hosted(self._programs[program], f"{self._seed}/host/{program}")
        return found

    def in_flight(self, step: dict[str, Any]) -> None:
        """Kernels of the step before the window: they run when it opens, their launch was before it."""
        program = step["program"]
        plan = self.hosted(program)
        view = self._durations.view(tuple(plan.keys), "before", -1)
        times = self._durations.of(program, view, self._shape(step), step["n"])
        first = int(len(times) * (1 - self._rng.uniform(0.1, 0.35)))
        now = self.start + self._rng.randint(20_000, 200_000)
        limit = now + 4_000_000
        correlation = self._correlation - 3
        for index in range(first, len(times)):
            if plan.streams[index] or now + times[index] > limit:
                continue
            row = kineto.gpu_row(view.names[index], self._rank, MAIN, external=False, graph=True)
            columns = (
                *divmod(now, 1000),
                *divmod(times[index], 1000),
                correlation,
                correlation,
                *divmod(now, 1000),
            )
            self._gpu_text(row % columns, 2)
            now += times[index] + plan.gaps[index]
        self._main = max(self._main, now)

    def step(self, step: dict[str, Any], *, keep: float = 1.0) -> None:
        """One executed step with what surrounds it; ``keep`` is the share of the graph's kernels that survive."""
        self._lag = min(max(self._lag + int(self._rng.gauss(0, 150_000)), LAG_NS[0]), LAG_NS[1])
        self._now = max(self._now, self._main - self._lag - AHEAD_NS)
        if step["idle"]:
            self._now = max(self._now, self._main - self._lag) + self._rng.randint(1_500_000, 4_000_000)
        kind, phase = step["kind"], step["phase"]
        number = self._phase_steps[kind] = self._phase_steps.get(kind, -1) + 1
        shape = self._shape(step)
        self._eager(f"{phase}_prepare", step, "prepare", number, shape, keep)
        begin, external = self._now, self._next_external()
        first_kernel = None
        if step["graph"]:
            self._now += self._rng.randint(6_000, 14_000)
            first_kernel = self._graph(step, number, shape, keep)
            if step["eager_logits"]:
                self._eager(f"{phase}_logits", step, kind, number, shape, keep)
        else:
            first_kernel = self._eager(step["program"], step, kind, number, shape, keep)
            self._eager(f"{phase}_logits", step, kind, number, shape, keep)
        self._now += self._rng.randint(3_000, 8_000)
        self._label(step["label"], begin, external, first_kernel if keep > 0 else None)
        if not step["dummy"]:
            self._eager(f"{phase}_sample", step, "sample", number, shape, keep)
        for index in range(step["drafts"]):
            self._draft(step, index, keep)

    def _draft(self, step: dict[str, Any], index: int, keep: float) -> None:
        number = self._phase_steps["draft"] = self._phase_steps.get("draft", -1) + 1
        begin, external = self._now + 2_000, self._next_external()
        self._now = begin + 3_000
        shape = Shape(prefill=False, size=step["bs"], ctx=self._shape(step).ctx)
        first = self._eager("draft", step, "draft", number, shape, keep)
        self._now += 3_000
        self._label(
            f"draft[{index}/{step['drafts']} bs={step['bs']}]", begin, external, first if keep > 0 else None
        )

    @staticmethod
    def _shape(step: dict[str, Any]) -> Shape:
        if step["phase"] == "prefill":
            return Shape(prefill=True, size=-(-step["tok"] // 256) * 256, ctx=0)
        return Shape(prefill=False, size=max(step["size"], 1), ctx=-(-step["ctx"] // 256) * 256)

    def _next_external(self) -> int:
        self._external += 1
        return self._external

    def _label(self, label: str, begin: int, external: int, first_kernel: int | None) -> None:
        if not self.labels:
            return
        name = json.dumps(label)
        self._event += 1
        columns = (name, *divmod(begin, 1000), *divmod(self._now - begin, 1000), external, self._event)
        self._host_text(self._annotation % columns, 1)
        if first_kernel is None:
            return
        # Real GPU annotations are often wrong: missing, far too short, or shifted.
        luck = self._rng.random()
        start, took = first_kernel, self._main - first_kernel
        if luck < 0.04:
            return
        if luck < 0.09:
            took = min(took, 18_000)
        elif luck < 0.12:
            start -= took // 3
        self._gpu_text(
            self._gpu_annotation % (name, MAIN, *divmod(start, 1000), *divmod(max(took, 0), 1000), external), 1
        )

    def _graph(self, step: dict[str, Any], number: int, shape: Shape, keep: float) -> int:
        plan = self.hosted(step["program"])
        view = self._durations.view(tuple(plan.keys), step["kind"].removeprefix("dummy_"), number)
        times = self._durations.of(step["program"], view, shape, step["n"])
        self._correlation += 1
        correlation = self._correlation
        took = int(GRAPH_LAUNCH_NS * self._rng.lognormvariate(0, 0.18))
        row = self._template(
            ("graph launch",),
            lambda: kineto.launch_row("hipGraphLaunch", None, self._pid, self._pid, external=False),
        )
        at = divmod(self._now, 1000)
        self._host_text(row % (*at, *divmod(took, 1000), correlation, correlation, *at), 2)
        floor = self._now + took + self._lag
        self._now += took
        starts = self._place(plan, view.emitted, times, [floor] * len(times))
        emitted = view.emitted[: int(len(view.emitted) * keep)]
        template = self._template(
            ("graph", step["program"], view.token, len(emitted)),
            lambda: "".join(
                kineto.gpu_row(
                    view.names[i],
                    self._rank,
                    SIDE if i < len(plan.streams) and plan.streams[i] else MAIN,
                    external=False,
                    graph=True,
                )
                for i in emitted
            ),
        )
        shown = starts[: len(emitted)]
        took_ns = times if len(emitted) == len(times) else [times[index] for index in emitted]
        columns = [correlation] * (8 * len(emitted))
        columns[0::8] = columns[6::8] = [begin // 1000 for begin in shown]
        columns[1::8] = columns[7::8] = [begin % 1000 for begin in shown]
        columns[2::8] = [duration // 1000 for duration in took_ns]
        columns[3::8] = [duration % 1000 for duration in took_ns]
        self._gpu_text(template % tuple(columns), 2 * len(emitted))
        return next(
            (
                s
                for i, s in zip(view.emitted, starts, strict=True)
                if not (i < len(plan.streams) and plan.streams[i])
            ),
            self._main,
        )

    def _place(self, plan: Hosted, emitted: tuple[int, ...], times: list[int], floors: list[int]) -> list[int]:
        """Start times of the emitted kernels; moves the ends of both streams."""
        main, side = self._main, self._side
        streams, joins, gaps, known = plan.streams, plan.joins, plan.gaps, len(plan.streams)
        starts = []
        for index in emitted:
            stream = streams[index] if index < known else 0
            floor = floors[index] if index < known else floors[-1]
            if stream == 0:
                if index < known and joins[index] and side > main:
                    main = side
                if floor > main:
                    main = floor
                starts.append(main)
                main += times[index] + (gaps[index] if index < known else 0)
                continue
            begin = max(side, main - EARLY_NS, floor - EARLY_NS) if stream == 2 else max(side, main, floor)
            starts.append(begin)
            side = begin + times[index]
        self._main, self._side = main, side
        return starts

    def _eager(
        self, program: str, step: dict[str, Any], phase: str, number: int, shape: Shape, keep: float
    ) -> int | None:
        plan = self.hosted(program)
        if not plan.keys:
            return None
        whole = not program.endswith("_logits")
        view = self._durations.view(tuple(plan.keys), phase.removeprefix("dummy_"), number, whole=whole)
        times = self._durations.of(program, view, shape, step["n"])
        base, event, correlation = self._external, self._event, self._correlation
        begin = self._now
        floors = [begin + start + took + self._lag for start, took, _ in plan.launches]
        known = len(plan.launches)
        launches = [plan.launches[i] if i < known else (plan.span, 4000, -1) for i in view.emitted]
        starts = self._place(plan, view.emitted, times, floors)
        host_template = self._template(
            (program, view.token, "host"), lambda: self._host_rows(plan, view.names, view.emitted)
        )
        columns: list[int] = []
        for index, (start, took) in enumerate(plan.ops):
            columns += (*divmod(begin + start, 1000), *divmod(took, 1000), base + 1 + index, event + 1 + index)
        for index, (start, took, op) in enumerate(launches):
            at = divmod(begin + start, 1000)
            own = correlation + 1 + index
            external = () if op < 0 else (base + 1 + op,)
            columns += (*at, *divmod(took, 1000), *external, own, own, *at)
        self._host_text(host_template % tuple(columns), len(plan.ops) + 2 * len(launches))
        if keep > 0:
            gpu_template = self._template(
                (program, view.token, "gpu"), lambda: self._gpu_rows(plan, view.names, view.emitted)
            )
            columns = []
            for index, (kernel, (_, _, op)) in enumerate(zip(view.emitted, launches, strict=True)):
                at = divmod(starts[index], 1000)
                own = correlation + 1 + index
                external = () if op < 0 else (base + 1 + op,)
                columns += (*at, *divmod(times[kernel], 1000), *external, own, own, *at)
            self._gpu_text(gpu_template % tuple(columns), 2 * len(launches))
        self._external = base + len(plan.ops)
        self._event = event + len(plan.ops)
        self._correlation = correlation + len(launches)
        self._now = begin + plan.span
        return starts[0] if starts else None

    def _template(self, token: tuple[object, ...], build: Callable[[], str]) -> str:
        found = self._templates.get(token)
        if found is None:
            found = self._templates[token] = build()
        return found

    def _memory(self, plan: Hosted, index: int) -> str:
        return str(self._kernels[plan.keys[index]].get("memory", "")) if index < len(plan.keys) else ""

    def _host_rows(self, plan: Hosted, names: tuple[str, ...], emitted: tuple[int, ...]) -> str:
        rows = [kineto.op_row(name, self._pid, self._pid) for name in plan.op_names]
        for index in emitted:
            inside = index < len(plan.keys)
            api = APIS[self._kernels[plan.keys[index]].get("api", "")] if inside else "hipModuleLaunchKernel"
            name = self._memory(plan, index) or names[index]
            external = inside and plan.launches[index][2] >= 0
            rows.append(kineto.launch_row(api, name, self._pid, self._pid, external=external, size=256))
        return "".join(rows)

    def _gpu_rows(self, plan: Hosted, names: tuple[str, ...], emitted: tuple[int, ...]) -> str:
        rows = []
        for index in emitted:
            inside = index < len(plan.keys)
            stream = SIDE if inside and plan.streams[index] else MAIN
            external = inside and plan.launches[index][2] >= 0
            rows.append(
                kineto.gpu_row(
                    names[index],
                    self._rank,
                    stream,
                    external=external,
                    graph=False,
                    memory=self._memory(plan, index),
                    size=256,
                )
            )
        return "".join(rows)

    def _host_text(self, text: str, rows: int) -> None:
        if not self.row_cap or self.rows < self.row_cap:
            self.rows += rows
            self._write_host(text)

    def _gpu_text(self, text: str, rows: int) -> None:
        if not self.row_cap or self.rows < self.row_cap:
            self.rows += rows
            self._write_gpu(text)
