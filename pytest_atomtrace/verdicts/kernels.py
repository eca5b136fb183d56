"""Kernels by name: how often, how long, in which phase, on which rank."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pytest_atomtrace.trace.data import PHASES
from pytest_atomtrace.trace.families import family
from pytest_atomtrace.trace.names import base_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from pytest_atomtrace.trace.data import RankData
    from pytest_atomtrace.trace.names import Pattern

__all__ = ["KernelRow", "KernelTable", "kernel_table"]


@dataclass(frozen=True)
class KernelRow:
    """One GPU kernel (or memcpy, memset) name over the selected ranks and phases.

    `share` is of the summed durations of all selected activities, ranks together. `by_phase` and `by_rank`
    count calls.
    """

    name: str
    layer: str
    count: int
    total_ns: int
    share: float
    by_phase: Mapping[str, int]
    by_rank: Mapping[str, int]

    @property
    def base_name(self) -> str:
        """Namespace and function without template arguments and parameters."""
        return base_name(self.name)

    @property
    def family(self) -> str:
        """Kernel family by the table of rules, ``unclassified`` if none fits."""
        return family(self.name)

    @property
    def mean_ns(self) -> int:
        """Mean duration of a call, in nanoseconds."""
        return round(self.total_ns / self.count)


class KernelTable:
    """Rows by total time, longest first."""

    def __init__(self, rows: Iterable[KernelRow]) -> None:
        self._rows = tuple(sorted(rows, key=lambda row: (-row.total_ns, row.name)))

    def __iter__(self) -> Iterator[KernelRow]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __repr__(self) -> str:
        return f"<{len(self)} kernel names, {self.count:,} calls>"

    @property
    def count(self) -> int:
        """Calls of all rows."""
        return sum(row.count for row in self._rows)

    @property
    def total_ns(self) -> int:
        """Summed durations of all rows, in nanoseconds; overlaps count twice, so this is no time spent."""
        return sum(row.total_ns for row in self._rows)


_LAYERS = ("kernel", "memory", "memory")


def kernel_table(
    ranks: Sequence[RankData], *, pattern: Pattern | None, phases: frozenset[str] | None, layer: str | None
) -> KernelTable:
    """Count and sum GPU activities by name.

    `phases` None means all of them, unattributed activities included; `layer` is ``kernel``, ``memory`` or
    None for both.
    """
    counts: dict[tuple[str, str], np.ndarray] = {}
    totals: dict[tuple[str, str], int] = {}
    by_rank: dict[tuple[str, str], dict[str, int]] = {}
    everything_ns = 0
    for rank in ranks:
        wanted = np.ones(len(rank.name_id), dtype=bool)
        if phases is not None:
            codes = [PHASES.index(phase) for phase in phases]
            wanted &= np.isin(rank.phase, codes)
        if layer is not None:
            wanted &= (rank.kind == 0) if layer == "kernel" else (rank.kind != 0)
        everything_ns += int(rank.dur_ns[wanted].sum())
        for key, phase_counts, total_ns in _rows_of(rank, wanted, pattern):
            counts[key] = counts.get(key, 0) + phase_counts
            totals[key] = totals.get(key, 0) + total_ns
            by_rank.setdefault(key, {})[rank.name] = int(phase_counts.sum())
    return KernelTable(
        KernelRow(
            name=key[0],
            layer=key[1],
            count=int(phase_counts.sum()),
            total_ns=totals[key],
            share=totals[key] / everything_ns if everything_ns else 0.0,
            by_phase={PHASES[i]: int(n) for i, n in enumerate(phase_counts) if n},
            by_rank=by_rank[key],
        )
        for key, phase_counts in counts.items()
    )


def _rows_of(
    rank: RankData, wanted: np.ndarray, pattern: Pattern | None
) -> Iterator[tuple[tuple[str, str], np.ndarray, int]]:
    name_id, phase, kind = rank.name_id[wanted], rank.phase[wanted], rank.kind[wanted]
    width = len(PHASES)
    names = len(rank.names)
    for code in (0, 1):
        of_kind = (kind == 0) if code == 0 else (kind != 0)
        ids = name_id[of_kind].astype(np.int64)
        if not len(ids):
            continue
        grid = np.bincount(ids * width + phase[of_kind], minlength=names * width).reshape(names, width)
        total_ns = np.bincount(ids, weights=rank.dur_ns[wanted][of_kind], minlength=names)
        for index in np.flatnonzero(grid.sum(axis=1)):
            name = rank.names[index]
            if pattern is None or pattern.matches(name):
                # Sums of integer ns stay exact in float64 up to 2**53 ns, some 104 days of kernel time.
                yield (name, _LAYERS[code]), grid[index], int(total_ns[index])
