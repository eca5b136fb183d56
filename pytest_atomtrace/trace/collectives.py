"""Collectives aligned over tensor-parallel ranks: what is transfer, what is waiting, and who was late.

A collective's kernel spins until all ranks have come, so its duration on a rank is transfer plus waiting for
the latest. Aligned by call (the n-th of a step everywhere), the shortest duration is the transfer and the
rest is wait; the rank with the shortest duration came last and is charged with the others' wait. A slow
kernel on one rank must never be reported as a slower all-reduce on the seven others.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from pytest_atomtrace.trace.data import KERNEL
from pytest_atomtrace.trace.families import family

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_atomtrace.trace.data import RankData, Step

__all__ = ["COLLECTIVE_FAMILIES", "CollectiveReport", "align_collectives", "collective_rows"]

COLLECTIVE_FAMILIES = frozenset({"allreduce", "rccl"})


@dataclass
class CollectiveReport:
    """Sums over the aligned calls.

    `transfer_ns` is the sum of each call's shortest duration (the same for every rank), `transfer_by_name_ns` the
    same by kernel, `wait_ns` what each rank waited, `charged_ns` the wait that each rank caused to all others,
    `late_calls` how often it came last, `calls` how many were aligned, `skipped` names what could not be (with the
    reason).
    """

    calls: int = 0
    transfer_ns: int = 0
    transfer_by_name_ns: dict[str, int] = field(default_factory=dict)
    wait_ns: dict[str, int] = field(default_factory=dict)
    charged_ns: dict[str, int] = field(default_factory=dict)
    late_calls: dict[str, int] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)

    @property
    def latest(self) -> str | None:
        """The rank that made the others wait longest; None if nobody waited."""
        worst = max(self.charged_ns, key=lambda name: self.charged_ns[name], default=None)
        return worst if worst is not None and self.charged_ns[worst] else None


def collective_rows(rank: RankData, step: Step) -> list[int]:
    """Rows of the step's collective kernels, in time order."""
    wanted = {number for number in np.unique(rank.name_id[step.rows]).tolist() if _is_collective(rank, number)}
    return [row for row in step.rows.tolist() if int(rank.name_id[row]) in wanted and rank.kind[row] == KERNEL]


def _is_collective(rank: RankData, number: int) -> bool:
    return family(rank.names[number]) in COLLECTIVE_FAMILIES


def align_collectives(ranks: Mapping[str, RankData], steps: Mapping[str, Sequence[Step]]) -> CollectiveReport:
    """Align the n-th collective of the n-th given step over all ranks of one TP group.

    `steps` gives each rank's steps, the same ones everywhere. A step whose collectives differ in number or
    name between ranks is skipped and named: aligning it would charge the wrong rank.
    """
    report = CollectiveReport()
    for name in ranks:
        report.wait_ns[name] = report.charged_ns[name] = report.late_calls[name] = 0
    if len(ranks) < 2:
        return report
    lengths = {name: len(steps[name]) for name in ranks}
    if len(set(lengths.values())) != 1:
        report.skipped.append(f"ranks have different numbers of steps: {lengths}")
    for number in range(min(lengths.values())):
        rows = {name: collective_rows(rank, steps[name][number]) for name, rank in ranks.items()}
        names = {tuple(ranks[n].names[ranks[n].name_id[row]] for row in found) for n, found in rows.items()}
        if len(names) != 1:
            label = steps[next(iter(ranks))][number].label.text
            report.skipped.append(f"step {number} ({label}): collectives differ between ranks")
            continue
        _charge(report, ranks, rows, names.pop())
    return report


def _charge(
    report: CollectiveReport,
    ranks: Mapping[str, RankData],
    rows: Mapping[str, Sequence[int]],
    names: tuple[str, ...],
) -> None:
    order = list(ranks)
    durations = np.array([[int(ranks[name].dur_ns[row]) for row in rows[name]] for name in order], np.int64)
    if not durations.size:
        return
    shortest = durations.min(axis=0)
    wait = durations - shortest
    late = durations.argmin(axis=0)
    report.calls += durations.shape[1]
    report.transfer_ns += int(shortest.sum())
    for name, took in zip(names, shortest.tolist(), strict=True):
        report.transfer_by_name_ns[name] = report.transfer_by_name_ns.get(name, 0) + took
    for index, name in enumerate(order):
        report.wait_ns[name] += int(wait[index].sum())
        report.charged_ns[name] += int(wait[:, late == index].sum())
        report.late_calls[name] += int((late == index).sum())
