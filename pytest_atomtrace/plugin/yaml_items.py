"""``*.atom.yaml`` files as pytest sees them: a file, a collector per case, one function item per check.

Loaded when such a file is collected and not before: msgspec and yaml come with it.
"""

from __future__ import annotations

import ast
import types
import warnings
from typing import TYPE_CHECKING

import pytest

from pytest_atomtrace.cases.specs.spec import read_spec
from pytest_atomtrace.plugin.catalogs import NO_CATALOG, catalog_of
from pytest_atomtrace.plugin.collection import bench_problem, warn_at
from pytest_atomtrace.plugin.state import CASE, STATE
from pytest_atomtrace.verdicts.questions import problem_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from pytest_atomtrace.cases.specs.entries import Check
    from pytest_atomtrace.cases.specs.grammar import Assertion
    from pytest_atomtrace.cases.specs.spec import Spec, SpecCase
    from pytest_atomtrace.verdicts.trace import Trace

__all__ = ["CaseCollector", "CheckItem", "SpecFile"]

_WHOLE_LINE = 10_000


class SpecFile(pytest.Module):
    """One spec file.

    A Module with an empty module object, since module-scoped fixtures need a module to live in.
    """

    decorators: dict[str, pytest.MarkDecorator]

    def collect(self) -> Iterator[pytest.Item | pytest.Collector]:
        """One collector per case; a file with mistakes has none, they are raised together with all others."""
        self.obj = types.ModuleType(self.path.name.partition(".")[0])
        self.obj.__file__ = str(self.path)
        self.decorators = {}
        state = self.config.stash[STATE]
        state.collected_cases = True
        spec = read_spec(self.path, judge=problem_of, catalog=lambda: catalog_of(self.config))
        where = _shown(self.path, self.config.rootpath)
        for problem in spec.problems:
            place = f"{where}:{problem.place.line}:{problem.place.column}"
            state.mistakes.add(str(problem), nodeid="", where=place)
        if self._refuse_unknown_marks(spec, where) or spec.problems:
            return
        if spec.catalog_missing:
            marks = [pytest.mark.gpu, pytest.mark.skip(reason=NO_CATALOG)]
            yield CheckItem.of(self, "from_catalog", lambda: None, marks=marks)
        for one in spec.cases:
            unused = bench_problem(one.case, state.settings)
            if unused:
                place = f"{where}:{one.place.line}:{one.place.column}"
                state.mistakes.add(unused, nodeid="", where=place)
            for note in one.notes:
                warn_at(self.path, f"{where}:{one.place.line}", note)
            yield CaseCollector.of(self, one, spec)

    def _refuse_unknown_marks(self, spec: Spec, where: str) -> bool:
        """Record marks that this run of pytest refuses (--strict-markers); whether there are any."""
        unknown = False
        for mark in dict.fromkeys((*spec.of_all, *(mark for check in spec.checks for mark in check.marks))):
            try:
                with warnings.catch_warnings(record=True) as said:
                    warnings.simplefilter("always")
                    self.decorators[mark.name] = getattr(pytest.mark, mark.name)
            except (pytest.fail.Exception, AttributeError) as error:
                unknown = True
                place = f"{where}:{mark.place.line}:{mark.place.column}"
                self.config.stash[STATE].mistakes.add(f"{mark.path}: {error}", nodeid="", where=place)
            else:
                for one in said:  # that nobody registered it, without --strict-markers
                    text = f"{mark.path}: {one.message}"
                    warnings.warn_explicit(text, one.category, str(self.path), mark.place.line)
        return unknown


class CaseCollector(pytest.Collector):
    """The checks of one case."""

    spec: Spec
    case: SpecCase
    decorators: dict[str, pytest.MarkDecorator]

    @classmethod
    def of(cls, parent: SpecFile, case: SpecCase, spec: Spec) -> CaseCollector:
        """Make one; its name is the case's slug."""
        made = cls.from_parent(parent, name=case.case.slug)
        made.case, made.spec, made.decorators = case, spec, parent.decorators
        return made

    def collect(self) -> Iterator[pytest.Item]:
        """One item per check."""
        for check in self.spec.checks:
            function = _function_at(self.path, check)
            marks = _marks(check, self.spec, self.decorators)
            item = CheckItem.of(self, check.name, function, line=check.place.line, marks=marks)
            item.stash[CASE] = self.case.case
            yield item


class CheckItem(pytest.Function):
    """One check on one case: a function like any other, so fixtures, hooks and other plugins see one."""

    line = 1

    @classmethod
    def of(
        cls,
        parent: SpecFile | CaseCollector,
        name: str,
        function: Callable[..., None],
        *,
        line: int = 1,
        marks: list[pytest.MarkDecorator],
    ) -> CheckItem:
        """Make one of a function of its own; `line` is where its entry starts."""
        # On the function as decorators would put them: -rs shows the line of such a skip, of an added mark it does not.
        setattr(function, "pytestmark", [decorator.mark for decorator in marks])  # noqa: B010  # functions have none
        made = cls.from_parent(parent, name=name, callobj=function)
        made.line = line
        return made

    def reportinfo(self) -> tuple[Path, int, str]:
        """The entry's place in the file."""
        return self.path, self.line - 1, self.name


def _marks(check: Check, spec: Spec, decorators: Mapping[str, pytest.MarkDecorator]) -> list[pytest.MarkDecorator]:
    of_file = spec.marks
    names = dict.fromkeys(mark.name for mark in (*spec.of_all, *check.marks))
    marks = [decorators[name] for name in names]
    skip, xfail = check.skip or of_file.skip, check.xfail or of_file.xfail
    if skip is not None:
        marks.append(pytest.mark.skip(reason=skip))
    if xfail is not None:
        # A trace that cannot be believed, or none at all, is not the failure that somebody expected.
        marks.append(pytest.mark.xfail(reason=xfail, raises=AssertionError))
    return marks


def _settle(trace: Trace, assertion: Assertion) -> None:
    __tracebackhide__ = True
    method = getattr(trace, assertion.method)
    first = list(assertion.first) if isinstance(assertion.first, tuple) else assertion.first
    if first is None:
        method(**assertion.arguments)
    else:
        method(first, **assertion.arguments)


def _function_at(path: Path, check: Check) -> Callable[..., None]:
    """A test function whose code lies on the entry's lines, so that tracebacks show the entry itself."""
    first, last = check.first_line, check.last_line
    blank = "\n" * (last - first) + "    " * (last > first)
    source = "\n" * (first - 1) + f"def check(atom_trace):{blank}settle(atom_trace, assertion)\n"
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, (ast.expr, ast.stmt)):
            # Spanning the whole line: carets under parts of it would be those of the text above.
            node.col_offset, node.end_col_offset = 0, _WHOLE_LINE
    namespace: dict[str, Callable[..., None]] = {}
    code = compile(tree, str(path), "exec", dont_inherit=True)
    exec(code, {"settle": _settle, "assertion": check.assertion}, namespace)  # noqa: S102  # the text is the one above
    return namespace["check"]


def _shown(path: Path, root: Path) -> str:
    try:
        return path.relative_to(root).as_posix()
    except ValueError:
        return str(path)
