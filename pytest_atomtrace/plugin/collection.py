"""Marks become cases: parametrization, the ``gpu`` mark, and one usage error for everything that is wrong."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_atomtrace.cases.case import Case, refuse_equal_slugs
from pytest_atomtrace.cases.matrix import FIELDS, advice, expand, merge, unknown_keys
from pytest_atomtrace.errors import ConfigError
from pytest_atomtrace.plugin.catalogs import NO_CATALOG, catalog_of
from pytest_atomtrace.plugin.mistakes import place_of_mark
from pytest_atomtrace.plugin.state import CASE, FAILED_COLLECTION, MARKS, STATE, worker_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_atomtrace.plugin.mistakes import Mistakes
    from pytest_atomtrace.settings import Settings

__all__ = ["AtomTraceWarning", "bench_problem", "cases_of", "finish", "parametrize", "warn_at"]


class AtomTraceWarning(UserWarning):
    """Something in a spec works but is seldom meant."""


def warn_at(path: Path, where: str, text: str) -> None:
    """Warn about a line of a spec: pytest then lists the warning there, and not at a line of ours."""
    line = where.rpartition(":")[2]
    warnings.warn_explicit(AtomTraceWarning(f"{where}: {text}"), None, str(path), int(line) if line.isdecimal() else 1)


def parametrize(metafunc: pytest.Metafunc) -> None:
    """Give a test that uses ``atom_case`` one call per case of its marks."""
    if "atom_case" not in metafunc.fixturenames:
        return
    definition = metafunc.definition
    state = metafunc.config.stash[STATE]
    state.collected_cases = True
    found = [pair for pair in definition.iter_markers_with_node() if pair[1].name in MARKS]
    state.used_marks.update(id(mark) for _, mark in found)
    line = (definition.location[1] or 0) + 1
    if not found:
        where = f"{definition.location[0]}:{line}"
        problem = "uses atom_trace or atom_case without a mark: add @pytest.mark.atom_case(model=..., tp=...)"
        state.mistakes.add(problem, nodeid=definition.nodeid, where=where)
        return
    where = place_of_mark(Path(definition.path), found[0][1], line, root=metafunc.config.rootpath)
    read = cases_of(definition, found, where)
    if read is None:
        return
    (cases,) = read
    if cases is None:
        marks = (pytest.mark.gpu, pytest.mark.skip(reason=NO_CATALOG))
        metafunc.parametrize("atom_case", [pytest.param(None, marks=marks, id="no-catalog")], indirect=True)
        return
    for case in cases:
        problem = bench_problem(case, state.settings)
        if problem:
            named = f"@pytest.mark.{found[0][1].name}: {problem}"
            state.mistakes.add(named, nodeid=definition.nodeid, where=where)
        for note in advice(case):
            warn_at(Path(definition.path), where, note)
    metafunc.parametrize("atom_case", cases, ids=[case.slug for case in cases], indirect=True)


def cases_of(
    definition: pytest.Function, found: Sequence[tuple[object, pytest.Mark]], where: str
) -> tuple[tuple[Case, ...] | None] | None:
    """The cases of a test's marks, closest first, as a tuple of one; in it None where their catalog is missing.

    What is wrong with them is recorded as a mistake at `where`, and None returned.
    """
    state = definition.config.stash[STATE]
    path, line, root = Path(definition.path), (definition.location[1] or 0) + 1, definition.config.rootpath
    layers: list[dict[str, object]] = []
    name = f"@pytest.mark.{found[0][1].name}"
    try:
        _refuse_two_on_one(found, definition)
        for _, mark in found:
            fields = _fields(mark)
            known = {key: value for key, value in fields.items() if key in _keys(mark)}
            for problem in unknown_keys({key: value for key, value in fields.items() if key not in known}):
                place = place_of_mark(path, mark, line, root=root)
                state.mistakes.add(f"@pytest.mark.{mark.name}: {problem}", nodeid=definition.nodeid, where=place)
            layers.append(known)
        in_catalog = any(mark.name == "atom_catalog" for _, mark in found)
        return (_from_catalog(merge(layers), definition.config) if in_catalog else expand(merge(layers)),)
    except ConfigError as error:
        for problem in [str(error)] if error.where else error.problems:
            state.mistakes.add(f"{name}: {problem}", nodeid=definition.nodeid, where=where)
        return None


def bench_problem(case: Case, settings: Settings) -> str:
    """Why the run's options leave nobody to take the case's benchmark arguments, "" where that is not known yet.

    Whether ATOM's client is installed is looked up when something is captured, and a replay sends no requests.
    """
    if not case.bench_args or settings.backend == "replay" or settings.workload == "atom":
        return ""
    for chosen, option in (
        (settings.workload == "builtin", "--atom-workload=builtin"),
        (settings.window_steps > 0, "--atom-window-steps"),
        (settings.backend == "sim", "--atom-backend=sim"),
    ):
        if chosen:
            # Their values may be keys and tokens, which no output may show; the names tell enough.
            names = [word.partition("=")[0] for word in case.bench_args if word.startswith("-")]
            return (
                f"bench_args ({', '.join(names) or 'of no name'}) are for ATOM's benchmark client, and {option} takes "
                "the built-in one; leave them out, or run ATOM's: --atom-workload=atom"
            )
    return ""


def _keys(mark: pytest.Mark) -> tuple[str, ...]:
    return FIELDS if mark.name == "atom_case" else (*FIELDS, "variants")


def _from_catalog(fields: dict[str, object], config: pytest.Config) -> tuple[Case, ...] | None:
    """Cases of the catalog, None where there is none; fields of stacked ``atom_case`` marks stand in for its own."""
    model, variants = fields.pop("model", None), fields.pop("variants", None)
    if not isinstance(model, str):
        raise ConfigError(f"takes one model of the catalog, got {model!r}")
    labels: list[str] | None = None
    if variants is not None:
        labels = (
            [variants] if isinstance(variants, str) else list(variants) if isinstance(variants, (list, tuple)) else []
        )
        if not labels or not all(isinstance(label, str) for label in labels):
            raise ConfigError(f"variants must be a list of labels, got {variants!r}")
    catalog = catalog_of(config)
    return catalog.expand(model, variants=labels, fields=fields) if catalog is not None else None


def _refuse_two_on_one(found: Sequence[tuple[object, pytest.Mark]], item: object) -> None:
    names = [mark.name for node, mark in found if node is item]
    if len(names) != len(set(names)):
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
    """Stop the run if anything is wrong in marks or settings; else bind each item to its case.

    In an xdist worker a UsageError would drown in an INTERNALERROR and the other files' items would still run,
    so the worker reports one failed collection, drops its items, and the controller raises.
    """
    config = session.config
    state = config.stash[STATE]
    cases: list[Case] = []
    for item in items:
        callspec = getattr(item, "callspec", None)
        case = callspec.params.get("atom_case") if callspec is not None else item.stash.get(CASE, None)
        if isinstance(case, Case):
            item.stash[CASE] = case
            cases.append(case)
            _mark(item)
            _refuse_late_marks(item, state.mistakes)
    if state.idle_tests:
        from pytest_atomtrace.plugin.idle_marks import judge_idle

        judge_idle(state)
    try:
        refuse_equal_slugs(cases)
    except ConfigError as error:
        state.mistakes.add(error.problem, nodeid=items[0].nodeid, where="markers")
    if not state.mistakes and not state.problems:
        if not state.settings.full:
            _leave_out_full_set(config, items)
        return
    text = "\n".join([*state.problems, *([state.mistakes.text()] if state.mistakes else [])])
    if worker_of(config) is None:
        raise pytest.UsageError(text)
    items.clear()
    report = pytest.CollectReport(nodeid="", outcome="failed", longrepr=text, result=[])
    setattr(report, FAILED_COLLECTION, text)
    config.hook.pytest_collectreport(report=report)


def _leave_out_full_set(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect what only ``--atom-full`` runs, unless its file (or its id) was asked for by name."""
    named = [Path(config.invocation_params.dir, argument.partition("::")[0]).absolute() for argument in config.args]
    left_out = [item for item in items if item.get_closest_marker("atom_full") is not None and item.path not in named]
    if left_out:
        items[:] = [item for item in items if item not in set(left_out)]
        config.hook.pytest_deselected(items=left_out)


def _mark(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") is None:
        item.add_marker("gpu")
    # A capture has deadlines of its own, stage by stage; a test time-out in between would leave half a capture.
    if item.config.pluginmanager.hasplugin("timeout") and item.get_closest_marker("timeout") is None:
        item.add_marker(pytest.mark.timeout(0))


def _refuse_late_marks(item: pytest.Item, mistakes: Mistakes) -> None:
    names = [mark.name for mark in item.own_markers if mark.name in MARKS]
    if len(names) != len(set(names)):
        where = f"{item.location[0]}:{(item.location[1] or 0) + 1}"
        problem = "atom_case inside pytest.param(marks=...) comes too late; write lists in one atom_case mark"
        mistakes.add(problem, nodeid=item.nodeid, where=where)
