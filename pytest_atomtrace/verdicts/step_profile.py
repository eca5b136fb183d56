"""What a steady step of one kind is made of: calls and exposed GPU time of every kernel on every rank.

Times are means over the middle half of the steady steps (by GPU busy time of the slowest rank): they add up to the
step's busy time, which medians do not, and a step that stumbled does not count. In collectives transfer and waiting
are told apart by aligning them over the ranks of a tensor-parallel group.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from pytest_atomtrace.errors import InsufficientStepsError
from pytest_atomtrace.trace.collectives import COLLECTIVE_FAMILIES, align_collectives
from pytest_atomtrace.trace.families import family
from pytest_atomtrace.trace.layout import tp_groups
from pytest_atomtrace.verdicts.missing_steps import few_steps_hint
from pytest_atomtrace.verdicts.step_grid import step_grid

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_atomtrace.trace.data import RankData, Step
    from pytest_atomtrace.verdicts.view import TraceView

__all__ = ["StepProfile", "Usage", "is_collective", "profile_steps"]


@dataclass(frozen=True)
class Usage:
    """Calls per step (median) and exposed nanoseconds per step."""

    calls: int
    ns: float


@dataclass(frozen=True)
class StepProfile:
    """A window's steps of one kind.

    `ranks`: usage by kernel name; `order`: kernel names by their first place in a step; `busy_ns`: p50 of each rank;
    `transfer_ns`: per collective kernel, without waiting; `late`: how many of the aligned collectives each rank came
    last to, as a share.
    """

    kind: str
    steps: int
    ranks: Mapping[str, Mapping[str, Usage]]
    order: tuple[str, ...]
    busy_ns: Mapping[str, int]
    transfer_ns: Mapping[str, float]
    late: Mapping[str, float]

    @property
    def worst_busy_ns(self) -> int:
        """Step time (p50 of GPU busy) of the slowest rank."""
        return max(self.busy_ns.values())

    @cached_property
    def one_group(self) -> bool:
        """Whether all ranks are of one tensor-parallel group, and so do the same."""
        return len(tp_groups(list(self.ranks))) == 1

    def own_ns(self, rank: str) -> float:
        """Exposed time of a rank's kernels without its collectives."""
        return sum(use.ns for name, use in self.ranks[rank].items() if not is_collective(name))

    @property
    def busiest(self) -> str:
        """The rank with the most work of its own: the one that the others wait for, if anybody waits."""
        return max(self.ranks, key=self.own_ns)

    def usage(self) -> dict[str, Usage]:
        """Every kernel once, in the order of the step: the median over the ranks that call it; collectives without
        waiting.
        """
        found: dict[str, Usage] = {}
        for name in self.order:
            uses = [table[name] for table in self.ranks.values() if name in table]
            calls = sorted(use.calls for use in uses)[(len(uses) - 1) // 2]
            ns = self.transfer_ns.get(name)
            found[name] = Usage(calls, median(use.ns for use in uses) if ns is None else ns)
        return found

    def calls_by_rank(self, name: str) -> dict[str, int]:
        """Calls per step of a kernel on each rank, 0 where it is not called; empty for data-parallel ranks, whose
        batches differ and with them what they may call.
        """
        if not self.one_group:
            return {}
        return {rank: table[name].calls if name in table else 0 for rank, table in self.ranks.items()}

    def family_ns(self) -> dict[str, float]:
        """Per family the exposed time on the rank where it is longest; collectives without waiting."""
        found: dict[str, float] = {}
        for table in self.ranks.values():
            mine: dict[str, float] = {}
            for name, use in table.items():
                ns = self.transfer_ns.get(name, use.ns)
                mine[family(name)] = mine.get(family(name), 0.0) + ns
            for key, ns in mine.items():
                found[key] = max(found.get(key, 0.0), ns)
        return found


def is_collective(name: str) -> bool:
    """Whether a kernel waits for other ranks."""
    return family(name) in COLLECTIVE_FAMILIES


def profile_steps(trace: TraceView, kind: str, *, least: int | None = None) -> StepProfile:
    """Profile the steady steps of `kind`; `least` is how many every rank must have (the setting for a median).

    Raises:
        InsufficientStepsError: a rank has fewer.

    """
    need = trace.settings.steady_min if least is None else least
    steps: dict[str, list[Step]] = {}
    for name, rank in trace.data.ranks.items():
        steps[name] = trace.steady_steps(rank, kind)
        if len(steps[name]) < max(need, 1):
            raise InsufficientStepsError(
                kind, "p50", len(steps[name]), need, rank=name, hint=few_steps_hint(trace, kind)
            )
    busy = {name: [step.gpu_busy_ns for step in found] for name, found in steps.items()}
    ranks: dict[str, dict[str, Usage]] = {}
    transfer: dict[str, list[float]] = {}
    late: dict[str, float] = {}
    order: list[str] = []
    for members in tp_groups(list(steps)).values():
        chosen = _middle_half({name: steps[name] for name in members})
        for name in members:
            ranks[name] = _usage(trace.data.ranks[name], chosen[name])
            _extend(order, _first_places(trace.data.ranks[name], chosen[name]))
        if len(members) < 2:
            continue
        report = align_collectives({name: trace.data.ranks[name] for name in members}, chosen)
        if not report.calls:
            continue
        aligned = min(len(found) for found in chosen.values()) - len(report.skipped)
        for key, ns in report.transfer_by_name_ns.items():
            transfer.setdefault(key, []).append(ns / max(aligned, 1))
        late |= {name: report.late_calls[name] / report.calls for name in members}
    return StepProfile(
        kind=kind,
        steps=min(len(found) for found in steps.values()),
        ranks=ranks,
        order=tuple(order),
        busy_ns={name: sorted(values)[(len(values) - 1) // 2] for name, values in busy.items()},
        transfer_ns={name: sum(values) / len(values) for name, values in transfer.items()},
        late=late,
    )


def _middle_half(steps: Mapping[str, Sequence[Step]]) -> dict[str, list[Step]]:
    """The same steps on all ranks where they have equally many: those whose slowest rank is neither fast nor slow."""
    lengths = {len(found) for found in steps.values()}
    if len(lengths) == 1:
        slowest = [max(step.gpu_busy_ns for step in row) for row in zip(*steps.values(), strict=True)]
        places = _inner_places(slowest)
        return {name: [found[place] for place in places] for name, found in steps.items()}
    return {
        name: [found[place] for place in _inner_places([step.gpu_busy_ns for step in found])]
        for name, found in steps.items()
    }


def _inner_places(values: Sequence[int]) -> list[int]:
    ordered = sorted(range(len(values)), key=lambda place: values[place])
    quarter = len(values) // 4
    return sorted(ordered[quarter : len(values) - quarter])


def _usage(rank: RankData, steps: Sequence[Step]) -> dict[str, Usage]:
    grid = step_grid(rank, steps)
    calls = np.median(grid.calls, axis=1)
    ns = grid.exposed_ns.mean(axis=1)
    return {
        name: Usage(int(calls[row]), float(ns[row]))
        for row, (name, layer) in enumerate(grid.keys)
        if layer == "kernel" and calls[row] >= 1
    }


def _first_places(rank: RankData, steps: Sequence[Step]) -> list[str]:
    middle = steps[len(steps) // 2]
    return list(dict.fromkeys(rank.names[number] for number in rank.name_id[middle.rows].tolist()))


def _extend(order: list[str], names: Sequence[str]) -> None:
    """Merge the names of one more rank into the order: each new one after the one that it follows there."""
    place = 0
    known = set(order)
    for name in names:
        if name in known:
            place = order.index(name) + 1
        else:
            order.insert(place, name)
            known.add(name)
            place += 1
