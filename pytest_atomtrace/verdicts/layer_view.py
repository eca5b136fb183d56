"""A decode step by model layer: which step, through which capture trace, and the table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_atomtrace.errors import ConfigError, NoStepsError, TraceFileError
from pytest_atomtrace.trace.data import KERNEL
from pytest_atomtrace.trace.layers import layer_table
from pytest_atomtrace.trace.ops import find_capture, read_capture, resolve_eager, resolve_step
from pytest_atomtrace.trace.reader import read_rank
from pytest_atomtrace.verdicts.step_grid import counted_steps
from pytest_atomtrace.verdicts.steps import Timing

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pytest_atomtrace.trace.data import RankData, Step
    from pytest_atomtrace.trace.layers import LayerGroup, LayerRow
    from pytest_atomtrace.trace.ops import KernelOrigin
    from pytest_atomtrace.verdicts.trace import Trace

__all__ = ["LayerBlock", "LayerLine", "LayerView", "StepKernel", "expand_captures", "view_layers"]


@dataclass(frozen=True)
class LayerLine:
    """One kernel: its time (mean over the block's layers) and what share of a layer and of the step it is."""

    module: str
    kernel: str
    stream: int
    time_ns: int
    share_of_layer: float | None
    share_of_step: float


@dataclass(frozen=True)
class LayerBlock:
    """Layers that run the same kernels; `time_ns` is the union of one layer's intervals, in the mean."""

    label: str
    layers: tuple[int, ...]
    time_ns: int
    share_of_step: float
    rows: tuple[LayerLine, ...]


@dataclass(frozen=True)
class StepKernel:
    """One kernel of the step: `op` and `module` are the innermost ones around its launch."""

    kernel: str
    op: str
    module: str
    layer: int | None
    how: str
    stream: int
    start_ns: int
    time_ns: int


@dataclass(frozen=True)
class LayerView:
    """A step by layer and where that comes from.

    Shares of the step are of `window_ns`: the GPU annotation's window where there is one, else the GPU span.
    `outside` are kernels of no layer, `unmatched` those whose origin is unknown, `kernels` all of the step in time
    order (starts count from the first one); `how` counts kernels by the way in which their origin was found.
    """

    source: str
    simulated: bool
    rank: str
    capture: str
    step: int
    label: str
    gpu_busy_ns: int
    window_ns: int
    window: str
    how: dict[str, int]
    blocks: tuple[LayerBlock, ...]
    outside: tuple[LayerLine, ...]
    unmatched: tuple[LayerLine, ...]
    kernels: tuple[StepKernel, ...]


def view_layers(
    trace: Trace, rank: RankData, captures: Sequence[Path], *, step: str = "first", named: bool = False
) -> LayerView:
    """Resolve every kernel of one decode step of `rank` and group them by layer.

    `step` is first (the earliest by GPU annotation, as ATOM's parse_trace.py), median, or a step's index. With
    `named` the user gave `captures`, so a single one is taken whatever its name.

    Raises:
        NoStepsError: there is no decode step.
        ConfigError: no such step, or no capture trace of its graph.
        TraceFileError: the capture trace cannot be read.

    """
    chosen = _choose(trace, rank, step)
    origins: list[KernelOrigin] = []
    capture_path: Path | None = None
    if chosen.n_graph_launches or chosen.source != "launch":
        capture_path = _capture_of(chosen, captures, named=named)
        capture = read_capture(capture_path, graph_bs=_graph_bs(capture_path, chosen), rank=rank.name)
        origins += resolve_step(rank, chosen, capture)
    done = {origin.row for origin in origins}
    left = [row for row in chosen.rows.tolist() if rank.kind[row] == KERNEL and row not in done]
    if left:
        origins += resolve_eager(rank, chosen, read_rank(rank.path, rank=rank.name, detail=True))
    origins.sort(key=lambda origin: (int(rank.start_ns[origin.row]), origin.row))
    table = layer_table(rank, chosen, origins)
    how: dict[str, int] = {}
    for origin in origins:
        how[origin.how] = how.get(origin.how, 0) + 1
    return LayerView(
        source=str(trace.directory),
        simulated=trace.simulated,
        rank=rank.name,
        capture=str(capture_path or ""),
        step=chosen.index,
        label=chosen.label.text,
        gpu_busy_ns=chosen.gpu_busy_ns,
        window_ns=table.window_ns,
        window="GPU annotation" if chosen.note_start_ns >= 0 else "GPU span",
        how=how,
        blocks=tuple(_block(group, table.window_ns) for group in table.groups),
        outside=tuple(_line(row, table.window_ns) for row in table.outside),
        unmatched=tuple(_line(row, table.window_ns) for row in table.unmatched),
        kernels=tuple(_kernel(rank, chosen, origin) for origin in origins),
    )


def _kernel(rank: RankData, step: Step, origin: KernelOrigin) -> StepKernel:
    row = origin.row
    return StepKernel(
        kernel=origin.kernel,
        op=origin.op,
        module=origin.module,
        layer=origin.layer,
        how=origin.how,
        stream=int(rank.stream[row]),
        start_ns=int(rank.start_ns[row]) - step.first_ns,
        time_ns=int(rank.dur_ns[row]),
    )


def _block(group: LayerGroup, window_ns: int) -> LayerBlock:
    count = len(group.layers)
    share = group.time_ns * count / window_ns if window_ns else 0.0
    rows = tuple(_line(row, window_ns, layer_ns=group.time_ns, count=count) for row in group.rows)
    return LayerBlock(group.label, group.layers, round(group.time_ns), share, rows)


def _line(row: LayerRow, window_ns: int, *, layer_ns: float = 0.0, count: int = 1) -> LayerLine:
    of_layer = row.time_ns / layer_ns if layer_ns else None
    of_step = row.time_ns * count / window_ns if window_ns else 0.0
    return LayerLine(row.module, row.kernel, row.stream, round(row.time_ns), of_layer, of_step)


def _choose(trace: Trace, rank: RankData, which: str) -> Step:
    decodes = [step for step in rank.steps if step.kind in {"decode", "eager_decode"}]
    if not decodes:
        raise NoStepsError("decode", sorted({step.kind for step in rank.steps}))
    if which == "first":
        noted = [step for step in decodes if step.kind == "decode" and step.note_start_ns >= 0]
        return min(noted, key=lambda step: step.note_start_ns) if noted else decodes[0]
    if which == "median":
        kind = "decode" if any(step.kind == "decode" for step in decodes) else decodes[0].kind
        steps, _ = counted_steps(trace, rank, kind)
        middle = Timing(tuple(step.gpu_busy_ns for step in steps)).p50_ns
        return next(step for step in steps if step.gpu_busy_ns == middle)
    number = int(which.removeprefix("#")) if which.removeprefix("#").isdecimal() else -1
    found = [step for step in decodes if step.index == number]
    if not found:
        known = f"decode steps are #{decodes[0].index} to #{decodes[-1].index}"
        raise ConfigError(f"{which!r} is no decode step of {rank.name} (first, median, or an index; {known})", "--step")
    return found[0]


def _capture_of(step: Step, captures: Sequence[Path], *, named: bool) -> Path:
    label = step.label
    if named and len(captures) == 1:
        return captures[0]
    found = find_capture(captures, graph_bs=label.graph_bs, query_len=label.query_len)
    if found is not None:
        return found
    if not captures:
        problem = "there is no graph capture trace: start the server with --mark-trace, or name one"
        raise ConfigError(f"{problem} (--capture-traces PATH)")
    q = f", q {label.query_len}" if label.query_len else ""
    there = ", ".join(path.name for path in captures[:6]) + (" ..." if len(captures) > 6 else "")
    raise ConfigError(f"no capture trace of graph batch {label.graph_bs}{q}; there are: {there}", "--capture-traces")


def _graph_bs(path: Path, step: Step) -> int | None:
    # A combined file of the older era holds all sizes; a file of one graph is taken as it is, since vLLM's and
    # SGLang's labels do not tell the padded batch.
    return step.label.graph_bs if path.name.startswith("capture_graph_") else None


def expand_captures(paths: Sequence[Path]) -> list[Path]:
    """Capture files named on a command line, directories opened.

    Raises:
        TraceFileError: a path is not there, or a directory holds none.

    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(one for one in path.iterdir() if one.name.endswith((".json", ".json.gz")))
            if not inside:
                raise TraceFileError(str(path), "holds no capture trace (*.json.gz)")
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise TraceFileError(str(path), "there is no such capture trace")
    return found
