"""Marks become cases: parametrization, the ``gpu`` mark, and one usage error for everything that is wrong."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_atomtrace.cases.case import Case, refuse_equal_slugs
from pytest_atomtrace.cases.matrix import FIELDS, advice, expand, merge, unknown_keys
from pytest_atomtrace.errors import ConfigError
from pytest_atomtrace.plugin.mistakes import place_of_mark
from pytest_atomtrace.plugin.state import CASE, STATE, worker_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_atomtrace.plugin.mistakes import Mistakes

__all__ = ["AtomTraceWarning", "finish", "parametrize"]

MARK = "@pytest.mark.atom_case"
FAILED_COLLECTION = "atomtrace_mistakes"


class AtomTraceWarning(UserWarning):
    """Something in a spec works but is seldom meant."""


def parametrize(metafunc: pytest.Metafunc) -> None:
    """Give a test that uses ``atom_case`` one call per case of its marks."""
    if "atom_case" not in metafunc.fixturenames:
        return
    definition = metafunc.definition
    state = metafunc.config.stash[STATE]
    state.collected_cases = True
    found = [(node, mark) for node, mark in definition.iter_markers_with_node("atom_case")]
    path, line = Path(definition.path), (definition.location[1] or 0) + 1
    root = metafunc.config.rootpath
    if not found:
        where = f"{definition.location[0]}:{line}"
        problem = "uses atom_trace or atom_case without a mark: add @pytest.mark.atom_case(model=..., tp=...)"
        state.mistakes.add(problem, nodeid=definition.nodeid, where=where)
        return
    where = place_of_mark(path, found[0][1], line, root=root)
    layers: list[dict[str, object]] = []
    try:
        _refuse_two_on_one(found, definition)
        for _, mark in found:
            fields = _fields(mark)
            for problem in unknown_keys(fields):
                place = place_of_mark(path, mark, line, root=root)
                state.mistakes.add(f"{MARK}: {problem}", nodeid=definition.nodeid, where=place)
            layers.append({name: value for name, value in fields.items() if name in FIELDS})
        cases = expand(merge(layers))
    except ConfigError as error:
        for problem in error.problem.split("; "):
            state.mistakes.add(f"{MARK}: {problem}", nodeid=definition.nodeid, where=where)
        return
    for case in cases:
        for note in advice(case):
            warnings.warn(AtomTraceWarning(f"{where}: {note}"), stacklevel=1)
    metafunc.parametrize("atom_case", cases, ids=[case.slug for case in cases], indirect=True)


def _refuse_two_on_one(found: Sequence[tuple[object, pytest.Mark]], item: object) -> None:
    on_function = [mark for node, mark in found if node is item]
    if len(on_function) > 1:
        raise ConfigError("two marks on one function; write one with lists, or put the shared fields on the module")


def _fields(mark: pytest.Mark) -> dict[str, object]:
    if len(mark.args) > 1:
        raise ConfigError(f"takes keyword arguments, got {len(mark.args)} positional ones: {mark.args!r}")
    fields: dict[str, object] = dict(mark.kwargs)
    if mark.args:
        if "model" in fields:
            raise ConfigError("the model is given twice, by position and by name")
        fields["model"] = mark.args[0]
    return fields


def finish(session: pytest.Session, items: list[pytest.Item]) -> None:
    """Stop the run if anything is wrong; else bind each item to its case.

    In an xdist worker a UsageError would drown in an INTERNALERROR and the other files' items would still run,
    so the worker reports one failed collection, drops its items, and the controller raises.
    """
    config = session.config
    state = config.stash[STATE]
    cases: list[Case] = []
    for item in items:
        callspec = getattr(item, "callspec", None)
        case = callspec.params.get("atom_case") if callspec is not None else None
        if isinstance(case, Case):
            item.stash[CASE] = case
            cases.append(case)
            _mark(item)
            _refuse_late_marks(item, state.mistakes)
    try:
        refuse_equal_slugs(cases)
    except ConfigError as error:
        state.mistakes.add(error.problem, nodeid=items[0].nodeid, where="markers")
    if not state.mistakes:
        return
    text = state.mistakes.text()
    if worker_of(config) is None:
        raise pytest.UsageError(text)
    items.clear()
    report = pytest.CollectReport(nodeid="", outcome="failed", longrepr=text, result=[])
    setattr(report, FAILED_COLLECTION, text)
    config.hook.pytest_collectreport(report=report)


def _mark(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") is None:
        item.add_marker("gpu")
    # A capture has deadlines of its own, stage by stage; a test time-out in between would leave half a capture.
    if item.config.pluginmanager.hasplugin("timeout") and item.get_closest_marker("timeout") is None:
        item.add_marker(pytest.mark.timeout(0))


def _refuse_late_marks(item: pytest.Item, mistakes: Mistakes) -> None:
    if sum(mark.name == "atom_case" for mark in item.own_markers) > 1:
        where = f"{item.location[0]}:{(item.location[1] or 0) + 1}"
        problem = "atom_case inside pytest.param(marks=...) comes too late; write lists in one atom_case mark"
        mistakes.add(problem, nodeid=item.nodeid, where=where)
