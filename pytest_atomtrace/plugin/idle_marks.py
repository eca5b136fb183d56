"""Marks that nothing uses: a test that asks for none of our fixtures measures nothing, whatever its mark names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pytest_atomtrace.plugin.collection import AtomTraceWarning, cases_of, warn_at
from pytest_atomtrace.plugin.mistakes import place_of_mark
from pytest_atomtrace.plugin.state import MARKS, STATE

if TYPE_CHECKING:
    import pytest

    from pytest_atomtrace.plugin.state import State

__all__ = ["judge_idle", "note"]


def note(metafunc: pytest.Metafunc) -> None:
    """Remember a test that has marks of ours and uses none of the fixtures."""
    state = metafunc.config.stash[STATE]
    state.collected_cases = True
    state.idle_tests.append(metafunc.definition)


def judge_idle(state: State) -> None:
    """Check the arguments of marks that no test uses, and warn that they do nothing.

    A mark on a module or class is used if one of its tests uses it: the others may be plain tests.
    """
    seen: set[int] = set()
    for test in state.idle_tests:
        found = [pair for pair in test.iter_markers_with_node() if pair[1].name in MARKS]
        mark = found[0][1]
        if id(mark) in state.used_marks or id(mark) in seen:
            continue
        seen.add(id(mark))
        line = (test.location[1] or 0) + 1
        where = place_of_mark(Path(test.path), mark, line, root=test.config.rootpath)
        if cases_of(test, found, where) is not None:
            problem = (
                f"@pytest.mark.{mark.name} does nothing, since {test.nodeid} uses neither atom_trace nor "
                "atom_case nor atom_bench: it runs once and measures nothing. Add atom_trace to its arguments, or take "
                "the mark away"
            )
            try:
                warn_at(Path(test.path), where, problem)
            except AtomTraceWarning:  # warnings are errors here; raised from this hook it would be an INTERNALERROR
                state.mistakes.add(problem, nodeid=test.nodeid, where=where)
