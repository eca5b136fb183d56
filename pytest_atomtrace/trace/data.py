"""The numbers of a trace: columns of every rank, its steps, and the findings about them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from pytest_atomtrace.trace.labels import KINDS

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from pytest_atomtrace.trace.finding import Finding
    from pytest_atomtrace.trace.labels import Label

__all__ = ["KERNEL", "MEMCPY", "MEMSET", "PHASES", "Launches", "RankData", "Step", "TraceData"]

KERNEL, MEMCPY, MEMSET = 0, 1, 2

# `sample`: launched between a decode label's end and the next step label. `unattributed`: no launch record,
# so launched before the window (or the record was lost). `other`: launched in the window, outside all labels.
PHASES = ("other", "unattributed", "sample", *KINDS)

_I8: TypeAlias = "NDArray[np.int8]"
_I32: TypeAlias = "NDArray[np.int32]"
_I64: TypeAlias = "NDArray[np.int64]"


@dataclass(frozen=True)
class Step:
    """One labelled forward pass on one rank. Times are ns on the rank's clock.

    `rows` are its GPU activities as indices into the rank's columns, in time order (kernels and copies);
    the numbers count kernels only: `gpu_busy_ns` is the union of their intervals over streams after clipping
    overlaps on each stream, `gpu_span_ns` runs from the first kernel on the busiest stream to the last end,
    `kernel_sum_ns` is the plain sum of durations (never time spent). `source` tells how kernels were found:
    by `launch` record or, where those are absent, by GPU `annotation`. `edge` marks the first and the last
    step of a rank, which may be cut by the window. `decode_index` is, for drafts, the step that they belong
    to. `overlap_ns` is what clipping took away on the step's streams. `note_start_ns`/`note_end_ns` are the hull
    of its GPU annotations (-1 = none): what ATOM's tools call the step, and often wrong.
    """

    index: int
    rank: str
    label: Label
    kind: str
    cpu_start_ns: int
    cpu_end_ns: int
    rows: _I32
    first_ns: int = 0
    last_ns: int = 0
    gpu_busy_ns: int = 0
    gpu_span_ns: int = 0
    kernel_sum_ns: int = 0
    n_kernels: int = 0
    n_graph_launches: int = 0
    source: str = "launch"
    edge: bool = False
    decode_index: int = -1
    overlap_ns: int = 0
    note_start_ns: int = -1
    note_end_ns: int = -1

    @property
    def cpu_span_ns(self) -> int:
        """Length of the host label; inflated by the profiler, to look at only."""
        return self.cpu_end_ns - self.cpu_start_ns

    @property
    def range_ns(self) -> tuple[int, int]:
        """Where the step lies in the trace: first kernel to last end, or its label where it has no kernel."""
        if self.n_kernels and self.last_ns > self.first_ns:
            return self.first_ns, self.last_ns
        return self.cpu_start_ns, max(self.cpu_end_ns, self.cpu_start_ns + 1)

    @property
    def bs(self) -> int:
        """Real batch size."""
        return self.label.bs

    @property
    def graph_bs(self) -> int:
        """Batch size that the graph was captured for."""
        return self.label.graph_bs


@dataclass
class Launches:
    """Host calls that started GPU activities, or were meant to; sorted by start.

    `n_gpu` is how many activities carry the call's correlation, `n_kernels` how many of them are kernels,
    `step` the step whose label holds the call (-1 = none).
    """

    name_id: _I32
    start_ns: _I64
    dur_ns: _I64
    correlation: _I64
    n_gpu: _I32
    n_kernels: _I32
    step: _I32

    def __len__(self) -> int:
        return len(self.name_id)


@dataclass
class RankData:
    """One rank's trace. Columns are numpy arrays of equal length, one row per GPU activity, sorted by start.

    `kind` is KERNEL, MEMCPY or MEMSET; `step` an index into `steps` or -1; `phase` an index into PHASES;
    `launch_ns` the start of the launching call (-1 = no record); `graph` true if a graph launch started it.
    `op_counts` and `annotation_counts` give, for each CPU op and host annotation, its count per phase.
    """

    name: str
    path: Path
    names: tuple[str, ...]
    name_id: _I32
    start_ns: _I64
    dur_ns: _I64
    stream: _I32
    correlation: _I64
    kind: _I8
    step: _I32
    phase: _I8
    launch_ns: _I64
    graph: NDArray[np.bool_]
    steps: tuple[Step, ...]
    launches: Launches
    op_counts: dict[str, dict[str, int]] = field(default_factory=dict)
    annotation_counts: dict[str, dict[str, int]] = field(default_factory=dict)
    meta: dict[str, object] = field(default_factory=dict)
    event_count: int = 0
    odd_times: int = 0
    annotation_mismatches: int = 0
    text_bytes: int = 0

    @property
    def is_kernel(self) -> NDArray[np.bool_]:
        """Mask of the rows that are kernels."""
        return np.asarray(self.kind == KERNEL)

    @property
    def base_time_ns(self) -> int:
        """What `start_ns` counts from, in ns since 1970 (0 if the trace does not say)."""
        value = self.meta.get("baseTimeNanoseconds", 0)
        return value if isinstance(value, int) else 0

    @property
    def simulated(self) -> bool:
        """True for what the built-in simulator wrote; its documents say so themselves."""
        return "simulatedBy" in self.meta

    def phase_names(self) -> tuple[str, ...]:
        """Phases that have GPU activities here, in the order of PHASES."""
        return tuple(PHASES[number] for number in np.unique(self.phase).tolist())


@dataclass
class TraceData:
    """All ranks of a trace, ordered by `rank_sort_key`; `findings` are what health found at loading.

    A rank whose file cannot be read is missing from `ranks` and has a fatal finding instead.
    """

    ranks: dict[str, RankData]
    findings: tuple[Finding, ...]
    source: Path
