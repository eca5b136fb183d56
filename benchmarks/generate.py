"""Write ATOM-like kineto traces of any size: `python -m benchmarks.generate DIR --size L`.

The text is kineto's own indented layout, in its order: host annotations and ops first, Python frames, then
runtime records and GPU activities with their flow arrows. A decode step is one hipGraphLaunch whose kernels share
its correlation and carry no External id, an eager logits tail inside the label and sampling after it; a prefill
launches every kernel from an op of its own. Equal arguments give equal bytes of text.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from isal import igzip

from benchmarks import kinetotext as kineto
from benchmarks.program import MAIN_STREAM
from benchmarks.timeline import make_plan, steps_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from benchmarks.program import Kernel
    from benchmarks.timeline import Plan, Step

__all__ = ["SIZES", "Size", "main", "write_rank", "write_trace"]

_PID = 251
_LABEL_TAIL = 2  # of the tail's kernels, those launched inside the label: the logits
_LAUNCH_APIS = ("hipLaunchKernel", "hipModuleLaunchKernel", "hipExtModuleLaunchKernel")
_CALLS = ("hipEventRecord", "hipStreamSynchronize", "hipEventQuery", "hipStreamWaitEvent", "hipPointerGetAttribute")
_OPS = ("aten::empty", "aten::arange", "aten::copy_", "aten::to", "aten::_to_copy", "aten::select", "aten::fill_")
_FRAMES = (
    "atom/model_engine/model_runner.py({}): run_model",
    "atom/model_ops/attention_mla.py({}): forward",
    "torch/nn/modules/module.py({}): _wrapped_call_impl",
    "<built-in method empty of type object at 0x7f1abc{:06x}>",
    "nn.Module: DeepseekV2DecoderLayer_{}",
)


@dataclass(frozen=True)
class Size:
    """How much to write; `stacks` is the number of Python frames around each host op."""

    steps: int
    kernels: int
    ranks: int = 1
    stacks: int = 0


SIZES = {
    "L": Size(915, 1366),
    "L10": Size(91, 1366),
    "M": Size(229, 1366, ranks=8),
    "S": Size(71, 420, stacks=12),
    "tiny": Size(24, 60),
}


class _Sink(Protocol):
    def write(self, data: bytes, /) -> object: ...


def write_trace(directory: Path, size: Size, *, seed: int = 1) -> list[Path]:
    """Write `size.ranks` rank directories below `directory` as ATOM's exporter does; returns the trace files."""
    paths = []
    for rank in range(size.ranks):
        folder = directory / f"rank_{rank}"
        folder.mkdir(parents=True, exist_ok=True)
        paths.append(folder / "Model_ts_20260101_000000_000.pt.trace.json.gz")
        plan = make_plan(rank=rank, steps=size.steps, kernels=size.kernels, seed=seed, stacks=size.stacks)
        write_rank(paths[-1], plan, world=size.ranks)
    return paths


def write_rank(path: Path, plan: Plan, *, world: int = 1) -> int:
    """Write one rank's trace as gzip; returns the bytes of its text. Memory does not grow with the trace."""
    with igzip.open(path, "wb", compresslevel=3) as stream:  # type: ignore[no-untyped-call]
        writer = _Writer(stream, plan)
        writer.document(path.name.removesuffix(".gz"), world)
    return writer.text_bytes


def _times(start: np.ndarray, dur: np.ndarray) -> list[np.ndarray]:
    return [start // 1000, start % 1000, dur // 1000, dur % 1000]


def _filled(template: str, columns: Sequence[np.ndarray]) -> str:
    """The rows of a template whose columns are given, one entry per row."""
    return template % tuple(np.stack(columns, axis=1).ravel().tolist())


class _Writer:
    def __init__(self, stream: _Sink, plan: Plan) -> None:
        self.stream = stream
        self.plan = plan
        self.device = plan.rank
        self.text_bytes = 0
        self.events = 0
        self.first_ns = self.last_ns = 0
        graph = "".join(self._gpu(kernel, graph=True) for kernel in plan.graph)
        self.templates = {"decode": graph, "prefill": "".join(map(self._eager, enumerate(plan.graph)))}
        self.tail = "".join(map(self._eager, enumerate(plan.tail)))

    def _gpu(self, kernel: Kernel, *, graph: bool) -> str:
        return kineto.gpu_row(kernel.name, self.device, kernel.stream, graph=graph)

    def _eager(self, item: tuple[int, Kernel]) -> str:
        number, kernel = item
        api = _LAUNCH_APIS[number % len(_LAUNCH_APIS)]
        return kineto.launch_row(api, kernel.name, _PID, _PID) + self._gpu(kernel, graph=False)

    def _put(self, text: str) -> None:
        data = text.encode()
        self.text_bytes += len(data)
        self.stream.write(data)

    def document(self, name: str, world: int) -> None:
        plan = self.plan
        trace_id = f"{plan.seed:016X}{plan.rank:016X}"
        self._put(kineto.header(rank=plan.rank, world=world, stacks=plan.stacks > 0, trace_id=trace_id))
        for part in (self._host, self._frames, self._device):
            for step in steps_of(plan):
                self._put("".join(part(step)))
                self.first_ns = self.first_ns or step.host_ns - 1_000_000
                self.last_ns = int((step.start_ns + step.dur_ns).max())
        self._put(kineto.footer(pid=_PID, ranks=world, start_ns=self.first_ns, end_ns=self.last_ns, name=name))

    def _op_places(self, step: Step) -> tuple[list[str], np.ndarray, np.ndarray]:
        """Names, starts and durations of a step's host ops, outer before inner."""
        plan = self.plan
        if step.kind == "prefill":
            names = [name for kernel in step.kernels for name in (kernel.op, "aten::empty")]
            outer = np.linspace(step.host_ns + 5_000, step.host_end_ns - 20_000, len(step.kernels)).astype(np.int64)
            start = np.stack([outer, outer + 700], axis=1).ravel()
            dur = np.tile(np.array([5_300, 900], np.int64), len(step.kernels))
            return names, start, dur
        names = [_OPS[number % len(_OPS)] for number in range(plan.ops)]
        start = np.linspace(step.host_ns + 4_000, step.host_end_ns + 190_000, plan.ops).astype(np.int64)
        return names, start, np.full(plan.ops, 2_100, np.int64)

    def _host(self, step: Step) -> Iterable[str]:
        length = step.host_end_ns - step.host_ns
        label = (json.dumps(step.label), step.host_ns // 1000, step.host_ns % 1000, length // 1000, length % 1000)
        yield kineto.annotation_row(_PID, _PID) % (*label, step.external_id, step.external_id)
        names, start, dur = self._op_places(step)
        ids = step.external_id + 1 + np.arange(len(names))
        template = "".join(kineto.op_row(name, _PID, _PID) for name in names)
        yield _filled(template, [*_times(start, dur), ids, ids])

    def _frames(self, step: Step) -> Iterable[str]:
        depth = self.plan.stacks
        if not depth:
            return
        row = kineto.frame_row(_PID, _PID)
        _, start, dur = self._op_places(step)
        for op, (begin, length) in enumerate(zip(start.tolist(), dur.tolist(), strict=True)):
            for level in range(depth):
                name = _FRAMES[(op + level) % len(_FRAMES)].format((op * 37 + level * 11) % 900)
                at, long = begin - 20 * (depth - level), length + 40 * (depth - level)
                number = step.external_id * depth + op * depth + level
                times = (at // 1000, at % 1000, long // 1000, long % 1000)
                yield row % (json.dumps(name), *times, number - 1, number, number)

    def _device(self, step: Step) -> Iterable[str]:
        yield self._calls(step)
        if step.kind == "prefill":
            yield self._launched(self.templates["prefill"], step, 0, len(step.kernels), step.host_ns + 6_400)
        else:
            yield self._graph(step)
            inside = len(self.plan.graph)
            yield self._launched(self.tail, step, inside, len(step.kernels), step.host_end_ns - 14_000)
        inside = len(step.kernels) - (len(self.plan.tail) - _LABEL_TAIL if step.kind == "decode" else 0)
        low = int(step.start_ns[:inside].min())
        high = int((step.start_ns + step.dur_ns)[:inside].max())
        yield kineto.gpu_note_row(self.device, MAIN_STREAM) % (
            json.dumps(step.label), low // 1000, low % 1000,
            (high - low) // 1000, (high - low) % 1000, step.external_id,
        )  # fmt: skip

    def _calls(self, step: Step) -> str:
        """Runtime records that start nothing: events, queries, waits."""
        count = self.plan.calls
        start = np.linspace(step.host_ns + 2_000, step.host_end_ns + 200_000, count).astype(np.int64)
        correlation = step.correlation + 2 * len(step.kernels) + 4 + np.arange(count)
        rows = [kineto.call_row(_CALLS[number % len(_CALLS)], _PID, _PID) for number in range(count)]
        return _filled("".join(rows), [*_times(start, np.full(count, 640, np.int64)), correlation])

    def _graph(self, step: Step) -> str:
        at = step.host_ns + 90_000
        launch = kineto.launch_row("hipGraphLaunch", None, _PID, _PID) % (
            at // 1000, at % 1000, 212, 0, step.correlation, step.correlation, at // 1000, at % 1000
        )  # fmt: skip
        count = len(self.plan.graph)
        start, dur = step.start_ns[:count], step.dur_ns[:count]
        link = np.full(count, step.correlation, np.int64)
        columns = [*_times(start, dur), link, link, start // 1000, start % 1000]
        return launch + _filled(self.templates["decode"], columns)

    def _launched(self, template: str, step: Step, low: int, high: int, first_ns: int) -> str:
        """Launch records with their kernels; the last ones of a decode step's tail lie after its label."""
        count = high - low
        if step.kind == "prefill":
            at = np.linspace(first_ns, step.host_end_ns - 15_000, count).astype(np.int64)
        else:
            at = first_ns + 6_000 * np.arange(count)
            at[_LABEL_TAIL:] += 60_000
        start, dur = step.start_ns[low:high], step.dur_ns[low:high]
        link = step.correlation + 1 + np.arange(count)
        external = step.external_id + 1 + np.arange(count)
        call = [*_times(at, np.full(count, 4_100, np.int64)), external, link, link, at // 1000, at % 1000]
        gpu = [*_times(start, dur), external, link, link, start // 1000, start % 1000]
        return _filled(template, [*call, *gpu])


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.generate", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("directory", type=Path, help="rank directories are made below it")
    parser.add_argument("--size", choices=sorted(SIZES), default="tiny")
    parser.add_argument("--seed", type=int, default=1)
    for name in ("steps", "kernels", "ranks", "stacks"):
        parser.add_argument(f"--{name}", type=int, help=f"instead of the size's {name}")
    given = parser.parse_args(arguments)
    usual = SIZES[given.size]
    size = Size(
        *(usual_value if chosen is None else chosen for usual_value, chosen in (
            (usual.steps, given.steps), (usual.kernels, given.kernels), (usual.ranks, given.ranks),
            (usual.stacks, given.stacks),
        ))
    )  # fmt: skip
    for path in write_trace(given.directory, size, seed=given.seed):
        print(f"{path} ({path.stat().st_size / 1e6:,.1f} MB gzip)")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
