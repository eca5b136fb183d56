"""When everything happens in a generated trace: steps on the host, kernels on the GPU, all in integer ns.

Every number of a step comes from a generator seeded by (seed, rank, step), so a trace can be written in several
passes without being held in memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from benchmarks.program import SIDE_STREAM, Kernel, layer_program, tail_program

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

__all__ = ["Plan", "Step", "make_plan", "steps_of"]

_I64: TypeAlias = "NDArray[np.int64]"

_START_NS = 4_909_913_692_199_694
_PREFILL_SLOWER = 9
_LAUNCH_GAP_NS = 6_100
_DECODE_HOST_NS = 430_000
_GRAPH_LAUNCH_NS = 212_000


@dataclass(frozen=True)
class Plan:
    """Size and content of one rank's trace; `stacks` is the number of Python frames around each host op."""

    rank: int
    steps: int
    prefill_every: int
    seed: int
    stacks: int
    graph: list[Kernel]
    tail: list[Kernel]
    ops: int
    calls: int


@dataclass(frozen=True)
class Step:
    """One step: host label, GPU window, and start and duration of each of its kernels.

    `kernels` are those of the graph (decode) or all (prefill), then the eager tail; `correlation` is that of
    its first launch, the tail's follow.
    """

    number: int
    kind: str
    label: str
    host_ns: int
    host_end_ns: int
    correlation: int
    external_id: int
    start_ns: _I64
    dur_ns: _I64
    kernels: list[Kernel]


def make_plan(*, rank: int, steps: int, kernels: int, seed: int, stacks: int = 0, prefill_every: int = 16) -> Plan:
    """Plan one rank. Host ops and runtime calls of a decode step are as many as ATOM's scheduler and sampler make."""
    graph, tail = layer_program(kernels, seed), tail_program()
    return Plan(rank, steps, prefill_every, seed, stacks, graph, tail, ops=110, calls=110)


def steps_of(plan: Plan) -> Iterator[Step]:
    """The steps of a rank in time order: a prefill, then `prefill_every` decodes, and so on.

    The GPU lags the host by some milliseconds; the host waits for it before the next step but one.
    """
    host = _START_NS
    gpu = _START_NS + 5_000_000
    correlation = 1000
    external = 1
    decodes = 0
    number = 0
    while decodes < plan.steps:
        prefill = number % (plan.prefill_every + 1) == 0
        rng = np.random.default_rng((plan.seed, plan.rank, number))
        kernels = plan.graph if prefill else plan.graph + plan.tail
        usual = np.array([kernel.usual_ns for kernel in kernels], np.int64)
        spread = rng.normal(1.0, 0.02, len(kernels)).clip(0.8, 1.6)
        dur = (usual * spread * (_PREFILL_SLOWER if prefill else 1)).astype(np.int64)
        host_length = len(kernels) * _LAUNCH_GAP_NS + 80_000 if prefill else _DECODE_HOST_NS
        start = _starts(kernels, dur, max(gpu, host + 1_900_000), eager=prefill, rng=rng)
        bs = 64
        label = f"prefill[bs=4 tok=4096 ctx={1024 + number}]" if prefill else f"decode[bs={bs} tok={bs} d={bs}]"
        yield Step(
            number=number,
            kind="prefill" if prefill else "decode",
            label=label,
            host_ns=host,
            host_end_ns=host + host_length,
            correlation=correlation,
            external_id=external,
            start_ns=start,
            dur_ns=dur,
            kernels=kernels,
        )
        correlation += 2 * len(kernels) + plan.calls + 8
        external += 2 * len(kernels) + plan.ops + 8
        gpu = int((start + dur).max()) + 1_500
        host = max(host + host_length + 300_000, gpu - 900_000)
        decodes += not prefill
        number += 1


def _starts(kernels: list[Kernel], dur: _I64, first_ns: int, *, eager: bool, rng: np.random.Generator) -> _I64:
    """Starts in launch order; kernels abut within 2 ns in a graph, the side stream's overlap the main one's."""
    side = np.array([kernel.stream == SIDE_STREAM for kernel in kernels], np.bool_)
    gap = rng.integers(0, 2600, len(kernels)) if eager else rng.integers(0, 3, len(kernels))
    advance = np.where(side, 0, dur + gap)
    start = np.empty(len(kernels), np.int64)
    start[0] = first_ns
    start[1:] = first_ns + np.cumsum(advance)[:-1]
    # Kernels of the side stream that follow each other run one after the other.
    shift = 0
    for row in np.flatnonzero(side).tolist():
        shift = shift + int(dur[row - 1]) if row and side[row - 1] else 0
        start[row] += shift
    return start
