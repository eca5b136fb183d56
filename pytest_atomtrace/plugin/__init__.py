"""The pytest11 entry point: hooks of a few lines and the fixtures; the work is in the modules beside it.

Loading this module must cost nothing: no numpy, yaml, HTTP or asyncio, and nothing of the rooms that need
them. It has no ``__getattr__`` or ``__dir__`` either: pytest's fixture scan reads every attribute of a plugin
and would load everything through them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_atomtrace.plugin import options
from pytest_atomtrace.plugin.state import CASE, MARKS, PLACE, REPORT_ATTRIBUTE, STATE

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from pytest_atomtrace.cases.case import Case
    from pytest_atomtrace.verdicts.bench import Bench
    from pytest_atomtrace.verdicts.trace import Trace


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the settings table."""
    options.add_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    """Read the settings and set up this process's part of the run."""
    from pytest_atomtrace.plugin import startup

    startup.configure(config)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Give back what is held."""
    from pytest_atomtrace.plugin import startup

    startup.unconfigure(config)


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Spec files are test files."""
    if not file_path.name.endswith((".atom.yaml", ".atom.yml")):
        return None
    from pytest_atomtrace.plugin.yaml_items import SpecFile

    return SpecFile.from_parent(parent, path=file_path)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One call per case of the test's marks; marks of a test that uses none of the fixtures are noted."""
    if "atom_case" in metafunc.fixturenames:
        from pytest_atomtrace.plugin import collection

        collection.parametrize(metafunc)
    elif any(mark.name in MARKS for mark in metafunc.definition.iter_markers()):
        from pytest_atomtrace.plugin import idle_marks

        idle_marks.note(metafunc)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(session: pytest.Session, items: list[pytest.Item]) -> None:
    """Raise the recorded mistakes, bind items to cases (first, so that ``-m gpu`` sees the mark)."""
    if session.config.stash[STATE].collected_cases:
        from pytest_atomtrace.plugin import collection

        collection.finish(session, items)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Number the items: reports of several workers arrive in any order."""
    if session.config.stash[STATE].collected_cases:
        for place, item in enumerate(session.items):
            item.stash[PLACE] = place


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Outermost, since what skipping and xfail made of the report must be ours to amend."""
    report = yield
    from pytest_atomtrace.plugin import outcomes

    outcomes.amend(item, call, report)
    return report


@pytest.hookimpl(tryfirst=True)
def pytest_report_teststatus(report: object) -> tuple[str, str, str] | None:
    """Name inconclusive and infra errors."""
    # Most tests of most projects are none of ours: a look at the report decides whether to load more.
    if getattr(report, REPORT_ATTRIBUTE, None) is None:
        return None
    from pytest_atomtrace.plugin import outcomes

    return outcomes.status(report)


@pytest.fixture
def atom_case(request: pytest.FixtureRequest) -> Case:
    """The case that this test measures: one of its mark's matrix, or of its spec file."""
    case: Case = getattr(request, "param", None) or request.node.stash[CASE]
    return case


@pytest.fixture
def atom_trace(request: pytest.FixtureRequest, atom_case: Case) -> Trace:
    """The trace of `atom_case`: captured once per run, shared by all its tests and all workers."""
    from pytest_atomtrace.plugin.captures import captures_of

    return captures_of(request.session).trace(request.node, atom_case)


@pytest.fixture
def atom_bench(atom_trace: Trace) -> Bench:
    """What the client saw of `atom_case` without the profiler: needs ``--atom-bench=on``."""
    from pytest_atomtrace.verdicts.bench import honest_bench

    return honest_bench(atom_trace)
