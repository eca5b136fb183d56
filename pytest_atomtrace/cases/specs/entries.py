"""The checks of a document: entries become assertions, each with its place and an id of its own."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping as AnyMapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from pytest_atomtrace.cases.specs.decode import decode, got, refuse_repeated_keys
from pytest_atomtrace.cases.specs.grammar import SECTIONS, Assertion, Entry, Section
from pytest_atomtrace.cases.specs.marknames import MarkUse, read_marks
from pytest_atomtrace.cases.specs.problems import meant
from pytest_atomtrace.cases.specs.words import STEP_KINDS, name_safe
from pytest_atomtrace.cases.specs.yamldoor import Mapping, Node, Scalar, Sequence

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_atomtrace.cases.specs.problems import Place, Problems

__all__ = ["Check", "Checks", "Judge"]

#: What is wrong with calling a method of `Trace` with (method, first argument, keyword arguments).
Judge: TypeAlias = Callable[[str, "str | tuple[str, ...] | None", AnyMapping[str, object]], "str | None"]


@dataclass(frozen=True)
class Check:
    """One test item: `name` is unique in its file; the lines are those of its entry."""

    name: str
    assertion: Assertion
    path: str
    place: Place
    first_line: int
    last_line: int
    marks: tuple[MarkUse, ...] = ()
    skip: str | None = None
    xfail: str | None = None


class Checks:
    """Reads the sections of one document."""

    def __init__(self, problems: Problems, judge: Judge) -> None:
        self._problems = problems
        self._judge = judge
        self._checks: list[Check] = []
        self._same: dict[tuple[object, ...], int] = {}
        self._taken: set[str] = set()
        self._next: dict[str, int] = {}

    def read(self, root: Mapping) -> tuple[Check, ...]:
        """All checks, in the order of the document."""
        for key, (_, node) in root.flat().items():
            section = SECTIONS.get(key)
            if section is None:
                continue
            for entry, kind, path, entry_node in self._entries(section, node, key):
                self._add(entry, kind, path, entry_node)
        return tuple(self._checks)

    def _entries(self, section: Section, node: Node, path: str) -> Iterator[tuple[Entry, str, str, Node]]:
        if section.shape == "choice":
            yield from self._choices(section, node, path)
        elif section.shape == "many":
            # An assertion without arguments still needs something to be written after its key.
            bare = isinstance(node, Scalar) and node.value is True
            yield from self._several(section, Mapping(node.place, node.end_line) if bare else node, "", path)
        elif not isinstance(node, Mapping):
            self._problems.add(node.place, path, f"expected a mapping by kind of step, got {got(node)}")
        else:
            refuse_repeated_keys(node, path, self._problems)
            if not node.flat():
                self._problems.add(node.place, path, "the mapping is empty: give a kind of step and what must hold")
            for kind, (place, child) in node.flat().items():
                if kind not in STEP_KINDS:
                    self._problems.add(place, path, f"{kind!r} is no kind of step{meant(kind, STEP_KINDS)}")
                else:
                    yield from self._several(section, child, kind, f"{path}.{kind}")

    def _several(self, section: Section, node: Node, kind: str, path: str) -> Iterator[tuple[Entry, str, str, Node]]:
        nodes = [(path, node)]
        if isinstance(node, Sequence):
            nodes = [(f"{path}[{index}]", one) for index, one in enumerate(node.items)]
            if not nodes:
                self._problems.add(node.place, path, "the list is empty")
        for place, one in nodes:
            entry = decode(one, section.entry, place, self._problems)
            if entry is not None:
                yield entry, kind, place, one

    def _choices(self, section: Section, node: Node, path: str) -> Iterator[tuple[Entry, str, str, Node]]:
        heads = tuple(section.entries)
        if not isinstance(node, Sequence):
            self._problems.add(node.place, path, f"expected a list of checks, got {got(node)}")
            return
        if not node.items:
            self._problems.add(node.place, path, "the list is empty")
        for index, one in enumerate(node.items):
            place = f"{path}[{index}]"
            if not isinstance(one, Mapping):
                self._problems.add(one.place, place, f"expected a check such as {heads[0]}: NAME, got {got(one)}")
                continue
            found = [head for head in heads if head in one.flat()]
            if len(found) != 1:
                self._problems.add(one.place, place, _head_problem(found, heads, one))
                continue
            entry = decode(one, section.entries[found[0]], place, self._problems)
            if entry is not None:
                yield entry, "", place, one

    def _add(self, entry: Entry, kind: str, path: str, node: Node) -> None:
        assertions = list(entry.assertions(kind))
        if not assertions:
            keys = [key for key in entry.__struct_fields__ if key not in Entry.__struct_fields__]
            self._problems.add(node.place, path, f"asserts nothing: give a budget ({', '.join(keys)})")
        for assertion in assertions:
            problem = self._judge(assertion.method, assertion.first, assertion.arguments)
            if problem is not None:
                self._problems.add(*_guilty(entry, assertion, problem, path, node), problem)
            identity = (assertion.method, assertion.first, repr(sorted(assertion.arguments.items())))
            if identity in self._same:
                text = f"the same check stands in line {self._same[identity]}"
                self._problems.add(node.place, path, text)
            self._same[identity] = node.place.line
            self._keep(entry, assertion, path, node, many=len(assertions) > 1)

    def _keep(self, entry: Entry, assertion: Assertion, path: str, node: Node, *, many: bool) -> None:
        name = assertion.name
        if entry.name is not None:
            chosen, asked = name_safe(entry.name), node.get("name") if isinstance(node, Mapping) else None
            place = asked.place if asked is not None else node.place
            name = chosen + (f"-{assertion.name.rpartition('-')[2]}" if many else "")
            if not chosen:
                self._problems.add(place, f"{path}.name", f"{entry.name!r} holds no letter and no digit")
            elif name in self._taken:
                self._problems.add(place, f"{path}.name", f"the name {name!r} is taken")
        unique = name
        while unique in self._taken:
            # Counted on from the last one: thousands of equal names must not be tried from 2 again.
            self._next[name] = self._next.get(name, 1) + 1
            unique = f"{name}-{self._next[name]}"
        self._taken.add(unique)
        last = max(node.place.line, node.end_line)
        assert isinstance(node, Mapping)
        marks = read_marks(node, path, self._problems) if entry.marks else ()
        check = Check(unique, assertion, path, node.place, node.place.line, last, marks, entry.skip, entry.xfail)
        self._checks.append(check)


def _guilty(entry: Entry, assertion: Assertion, problem: str, path: str, node: Node) -> tuple[Place, str]:
    """The key whose value a problem quotes, else one that it names, else the one that the entry begins with."""
    assert isinstance(node, Mapping)
    own = [key for key in entry.__struct_fields__ if key not in Entry.__struct_fields__]
    quoted = [key for key in assertion.keys if _quotes(problem, assertion.arguments.get(key))]
    if _quotes(problem, assertion.first):
        quoted.append(own[0])
    named = [key for key in assertion.keys if key in problem]
    for key in (*quoted, *named, *assertion.keys[:1], *own[:1]):
        child = node.get(key)
        if child is not None:
            return child.place, f"{path}.{key}"
    return node.place, path


def _quotes(problem: str, value: object) -> bool:
    values = value if isinstance(value, (list, tuple)) else [value]
    return any(repr(one) in problem for one in values if isinstance(one, str))


def _head_problem(found: list[str], heads: tuple[str, ...], node: Mapping) -> str:
    if found:
        return f"has {' and '.join(found)}; each is an entry of its own"
    near = [key for key in node.flat() if "did you mean" in meant(key, heads)]
    hint = f"unknown key {near[0]!r}{meant(near[0], heads)}" if near else f"has none of {', '.join(heads)}"
    return f"is no check: {hint}"
