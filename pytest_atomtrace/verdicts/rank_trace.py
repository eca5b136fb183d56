"""One rank of a trace, as a test sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_atomtrace.verdicts.kernels import KernelTable, kernel_table
from pytest_atomtrace.verdicts.question import parse_pattern

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_atomtrace.trace.data import RankData
    from pytest_atomtrace.verdicts.steps import Steps
    from pytest_atomtrace.verdicts.view import TraceView

__all__ = ["RankTrace"]


class RankTrace:
    """One rank of a trace."""

    def __init__(self, trace: TraceView, data: RankData) -> None:
        self._trace = trace
        self._data = data

    @property
    def name(self) -> str:
        """The rank's directory name: ``rank_0``, ``dp0_tp1``, ``pp1_rank_0``."""
        return self._data.name

    @property
    def path(self) -> Path:
        """The trace file."""
        return self._data.path

    def steps(self, kind: str) -> Steps:
        """Steps of one kind on this rank."""
        return self._trace.steps(kind).rank(self.name)

    def kernels(self, pattern: str | None = None, *, during: str | None = None) -> KernelTable:
        """GPU activities of this rank by name."""
        parsed = parse_pattern(pattern) if pattern is not None else None
        return kernel_table([self._data], pattern=parsed, phases=self._trace.phases_of(during), layer=None)

    def __repr__(self) -> str:
        return f"<RankTrace {self.name}: {len(self._data.steps)} steps, {len(self._data.name_id):,} GPU activities>"
