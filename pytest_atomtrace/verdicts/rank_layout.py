"""Did every rank of a server leave exactly one whole trace?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_atomtrace.errors import TraceFileError
from pytest_atomtrace.trace.integrity import check_export
from pytest_atomtrace.trace.layout import RankFiles, find_ranks, rank_sort_key

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["LayoutView", "RankState", "check_layout"]


@dataclass(frozen=True)
class RankState:
    """One rank's files.

    `state` is done, missing (no directory), empty (a directory without a trace), json (no .gz yet),
    compressing (.json beside the .gz), doubled (several traces), damaged, or extra (this server has no such
    rank). Only done is as it must be. `capture_traces` counts graph capture traces, which are never taken for the
    run's trace.
    """

    rank: str
    state: str
    file: str
    size_bytes: int
    detail: str
    capture_traces: int

    @property
    def right(self) -> bool:
        """As it must be."""
        return self.state == "done"


@dataclass(frozen=True)
class LayoutView:
    """All ranks expected or found, in rank order."""

    source: str
    expected: tuple[str, ...]
    right: bool
    ranks: tuple[RankState, ...]


def check_layout(directory: Path, expected: Sequence[str], *, quick: bool = False) -> LayoutView:
    """Compare `directory` with the exact rank set `expected`; files are read to their end unless `quick`.

    Raises:
        TraceFileError: `directory` is no directory.

    """
    if not directory.is_dir():
        problem = "is a file, not a trace directory" if directory.exists() else "there is no such directory"
        raise TraceFileError(str(directory), problem)
    found = find_ranks(directory)
    names = sorted({*expected, *found}, key=rank_sort_key)
    states = tuple(_state(name, found.get(name), expected=name in expected, quick=quick) for name in names)
    return LayoutView(str(directory), tuple(expected), all(state.right for state in states), states)


def _state(rank: str, files: RankFiles | None, *, expected: bool, quick: bool) -> RankState:
    if files is None:
        return RankState(rank, "missing", "", 0, "there is no such directory", 0)
    path = files.trace
    size = path.stat().st_size if path is not None else 0
    state, detail = _verdict(rank, files, quick=quick)
    if not expected:
        # A smaller server leaves the directories of an earlier, larger one.
        detail = f"this server has no such rank; {state}" + (f": {detail}" if detail else "")
        state = "extra"
    return RankState(rank, state, path.name if path else "", size, detail, len(files.capture_traces))


def _verdict(rank: str, files: RankFiles, *, quick: bool) -> tuple[str, str]:
    path = files.trace
    if path is None:
        return "empty", "the directory holds no trace: nothing was exported, or the export failed"
    beside = [left.name for left in files.json_left if left not in files.traces]
    if beside:
        return "compressing", f"{beside[0]} lies beside the .gz: the export goes on, or was killed"
    if path.name.endswith(".json"):
        return "json", "no .gz yet: the export goes on, or was killed while it wrote"
    if len(files.traces) > 1:
        return "doubled", f"{len(files.traces)} traces: {', '.join(one.name for one in files.traces)}"
    try:
        check_export(path, quick=quick, rank=rank)
    except TraceFileError as error:
        place = f" at byte {error.offset:,}" if error.offset >= 0 else ""
        return "damaged", f"{error.problem}{place}"
    return "done", ""
