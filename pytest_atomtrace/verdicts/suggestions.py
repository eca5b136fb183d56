"""What somebody who named a kernel that is not there may have meant."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_atomtrace.trace.names import nearest, short_name
from pytest_atomtrace.verdicts.kernels import kernel_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_atomtrace.trace.data import RankData

__all__ = ["nearest_names"]


def nearest_names(name: str, ranks: Sequence[RankData]) -> list[str]:
    """Nearest names with layer, phases and calls, for "not found" texts."""
    table = kernel_table(ranks, pattern=None, phases=None, layer="kernel")
    by_name = {row.name: row for row in table}
    ops = {op: counts for rank in ranks for op, counts in rank.op_counts.items()}
    lines = []
    for close in nearest(name, [*by_name, *ops]):
        if close in by_name:
            row = by_name[close]
            phases = ", ".join(f"{phase} {n:,}" for phase, n in row.by_phase.items())
            lines.append(f"{short_name(close, 80)}  (kernel: {phases})")
        else:
            phases = ", ".join(f"{phase} {n:,}" for phase, n in ops[close].items())
            lines.append(f"{close}  (op: {phases})")
    return lines
