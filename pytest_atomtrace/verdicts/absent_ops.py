"""The false red and the false green of graph replay: ops captured in a graph do not reappear in the trace."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_atomtrace.errors import TraceFileError
from pytest_atomtrace.trace.names import Pattern
from pytest_atomtrace.trace.opkernels import kernels_under_op
from pytest_atomtrace.trace.reader import read_rank
from pytest_atomtrace.verdicts.evidence import count_of, listed, shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_atomtrace.trace.data import RankData
    from pytest_atomtrace.verdicts.occurrences import Occurrences
    from pytest_atomtrace.verdicts.view import TraceView

__all__ = ["launched_by", "op_in_graph"]


def op_in_graph(trace: TraceView, name: str, during: str | None, ranks: Sequence[RankData], seen: Occurrences) -> str:
    """A sentence, if `name` is a CPU op that `during` replays inside graphs, else an empty string."""
    if during is None or seen.count_all("kernel") or not seen.count_all("op"):
        return ""
    phases = trace.phases_of(during)
    if seen.count_all("op", phases):
        return ""
    graphs = sum(step.n_graph_launches for rank in ranks for step in rank.steps if step.kind == during)
    if not graphs:
        return ""
    total = seen.count_all("op")
    launches = count_of(graphs, "graph launch", "graph launches")
    return (
        f"{name} is a CPU op, and {during} replays graphs ({launches}): ops captured in a graph do not reappear. "
        f"It was seen as op in {seen.where('op')} ({count_of(total, 'call')}). Ask for it there, or name a kernel "
        "that it launches."
    )


def launched_by(rank: RankData, name: str) -> str:
    """Kernels that the op launches where it is dispatched eagerly: what a check of a replayed phase can name.

    Reads the rank's file once more, with its ops; only a failing check pays for it.
    """
    try:
        events = read_rank(rank.path, rank=rank.name, detail=True)
    except (TraceFileError, OSError):
        return ""  # the file went away since it was loaded: the sentence stands without this line
    return listed(shown(kernels_under_op(events, Pattern.parse(name).matches)), limit=4)
