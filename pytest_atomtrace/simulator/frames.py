"""What ATOM_PROFILER_MORE=1 adds: Python frames around operators, their shapes, allocations.

Bounded: a few frames an operator, where a real stack has dozens; they are there so that a reader meets them.
"""

from __future__ import annotations

from typing import NamedTuple

from pytest_atomtrace.simulator.kineto import SLOT

__all__ = ["Frame", "frames_of", "inputs"]

_ROOTS = (
    "atom/model_engine/model_runner.py(2970): run_model",
    "torch/nn/modules/module.py(1778): _wrapped_call_impl",
)
_REPLAY = "torch/cuda/graphs.py(139): replay"
_AROUND = ("torch/_ops.py(1243): __call__", "<built-in method {op} of PyCapsule object at 0x7f6078eca900>")


class Frame(NamedTuple):
    """One Python call; ``parent`` is the place of the caller in the piece's list, -1 the outermost."""

    name: str
    start: int
    took: int
    parent: int


def frames_of(graph: bool, ops: list[tuple[str, int, int]]) -> list[Frame]:
    """Frames of a piece from its operators (name, start, duration), callers before callees."""
    if graph:
        return [Frame(_ROOTS[0], -2500, 9000, -1), Frame(_REPLAY, -1500, 7000, 0)]
    if not ops:
        return []
    end = max(start + took for _, start, took in ops)
    first = min(start for _, start, _ in ops)
    frames = [
        Frame(_ROOTS[0], first - 1000, end - first + 1600, -1),
        Frame(_ROOTS[1], first - 900, end - first + 1400, 0),
    ]
    open_ops: list[tuple[int, int]] = []  # end of the operator, place of its innermost frame
    for name, start, took in ops:
        while open_ops and open_ops[-1][0] <= start:
            open_ops.pop()
        parent = open_ops[-1][1] if open_ops else 1
        for depth, text in enumerate(_AROUND):
            margin = 300 - 100 * depth
            frames.append(Frame(text.format(op=name), start - margin, took + margin + 200 - 100 * depth, parent))
            parent = len(frames) - 1
        open_ops.append((start + took, parent))
    return frames


def inputs(hidden: int) -> str:
    """The shape arguments of an operator; one slot: the tokens of the step."""
    return (
        '"Concrete Inputs": ["", ""], "Input type": ["c10::BFloat16", "c10::BFloat16"], '
        f'"Input Strides": [[{hidden}, 1], [{hidden}, 1]], "Input Dims": [[{SLOT}, {hidden}], '
        f"[{hidden}, {hidden}]], "
    )
