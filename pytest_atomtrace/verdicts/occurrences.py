"""Where a pattern occurs: per rank, layer and phase."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pytest_atomtrace.trace.data import PHASES
from pytest_atomtrace.verdicts.question import LAYERS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_atomtrace.trace.data import RankData
    from pytest_atomtrace.trace.names import Pattern

__all__ = ["Occurrences", "matching_ids", "occurrences", "steps_calling"]


class Occurrences:
    """Counts of a pattern's matches; `table` maps (rank, layer) to counts by phase."""

    def __init__(self, table: Mapping[tuple[str, str], Mapping[str, int]], names: Mapping[str, Sequence[str]]) -> None:
        self._table = table
        self._names = names

    def count(self, rank: str, layer: str, phases: frozenset[str] | None = None) -> int:
        """Calls on one rank; `phases` None means all."""
        counts = self._table.get((rank, layer), {})
        return sum(n for phase, n in counts.items() if phases is None or phase in phases)

    def count_all(self, layer: str, phases: frozenset[str] | None = None) -> int:
        """Calls on all ranks."""
        return sum(self.count(rank, layer, phases) for rank, at in self._table if at == layer)

    def best_layer(self, phases: frozenset[str] | None) -> str | None:
        """First layer of `LAYERS` with a call in these phases."""
        return next((layer for layer in LAYERS if self.count_all(layer, phases)), None)

    def names(self, layer: str) -> list[str]:
        """Distinct names matched in a layer."""
        return sorted(self._names.get(layer, ()))

    def where(self, layer: str, phases: frozenset[str] | None = None) -> str:
        """Phases in which the layer's matches lie, most frequent first."""
        totals: dict[str, int] = {}
        for (_, at), counts in self._table.items():
            if at == layer:
                for phase, n in counts.items():
                    if phases is None or phase in phases:
                        totals[phase] = totals.get(phase, 0) + n
        return ", ".join(sorted(totals, key=lambda phase: -totals[phase])) or "no phase"

    def phase_text(self, rank: str) -> str:
        """``rank_0: kernel decode 58, prefill 12; op prefill 12``."""
        parts = []
        for layer in LAYERS:
            counts = self._table.get((rank, layer), {})
            if counts:
                inner = ", ".join(f"{phase} {n:,}" for phase, n in sorted(counts.items(), key=lambda kv: -kv[1]))
                parts.append(f"{layer} {inner}")
        return f"{rank}: {'; '.join(parts) or 'nowhere'}"

    def everywhere(self) -> list[str]:
        """One line per layer with matches: phases, calls on the first rank that has them."""
        lines = []
        for layer in LAYERS:
            ranks = [rank for rank, at in self._table if at == layer and self.count(rank, layer)]
            if ranks:
                lines.append(f"{layer} in {self.where(layer)}; {self.phase_text(ranks[0])}")
        return lines


def matching_ids(rank: RankData, pattern: Pattern) -> np.ndarray:
    """Boolean mask over the rank's interned names."""
    return np.fromiter((pattern.matches(name) for name in rank.names), dtype=bool, count=len(rank.names))


def occurrences(ranks: Sequence[RankData], pattern: Pattern) -> Occurrences:
    """Find a pattern in every layer of some ranks."""
    table: dict[tuple[str, str], dict[str, int]] = {}
    names: dict[str, set[str]] = {}
    for rank in ranks:
        ids = matching_ids(rank, pattern)
        hit = ids[rank.name_id]
        for layer, of_layer in (("kernel", hit & (rank.kind == 0)), ("memory", hit & (rank.kind != 0))):
            if of_layer.any():
                counts = np.bincount(rank.phase[of_layer], minlength=len(PHASES))
                table[rank.name, layer] = {PHASES[i]: int(n) for i, n in enumerate(counts) if n}
                found = np.unique(rank.name_id[of_layer])
                names.setdefault(layer, set()).update(rank.names[i] for i in found)
        for layer, by_name in (("op", rank.op_counts), ("annotation", rank.annotation_counts)):
            for name, by_phase in by_name.items():
                if pattern.matches(name):
                    counts_here = table.setdefault((rank.name, layer), {})
                    for phase, n in by_phase.items():
                        counts_here[phase] = counts_here.get(phase, 0) + n
                    names.setdefault(layer, set()).add(name)
    return Occurrences(table, {layer: sorted(found) for layer, found in names.items()})


def steps_calling(rank: RankData, pattern: Pattern, kind: str) -> tuple[np.ndarray, set[str]]:
    """Calls of matching kernels in each step (indexed by step), and the names that matched in steps of `kind`."""
    hit = matching_ids(rank, pattern)[rank.name_id] & (rank.kind == 0) & (rank.step >= 0)
    counts = np.bincount(rank.step[hit], minlength=len(rank.steps))
    of_kind = np.array([step.kind == kind for step in rank.steps], dtype=bool)
    found = np.unique(rank.name_id[hit][of_kind[rank.step[hit]]]) if hit.any() else np.empty(0, dtype=np.int64)
    return counts, {rank.names[i] for i in found}
