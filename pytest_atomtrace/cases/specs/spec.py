"""A spec file as a whole: cases, checks, and every problem with its place."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
from msgspec import Meta

from pytest_atomtrace.cases.case import refuse_equal_slugs
from pytest_atomtrace.cases.matrix import FIELDS, MAX_CASES, advice, expand, merge, too_many
from pytest_atomtrace.cases.specs.casefields import CaseFields
from pytest_atomtrace.cases.specs.decode import decode, got, refuse_odd_keys
from pytest_atomtrace.cases.specs.entries import Check, Checks
from pytest_atomtrace.cases.specs.grammar import SECTIONS
from pytest_atomtrace.cases.specs.marknames import MarkName, MarkUse, read_marks
from pytest_atomtrace.cases.specs.problems import Place, Problem, Problems
from pytest_atomtrace.cases.specs.words import Reason  # noqa: TC001  # msgspec looks it up
from pytest_atomtrace.cases.specs.yamldoor import MAX_BYTES, Mapping, Node, Scalar, Sequence, YamlError, parse
from pytest_atomtrace.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pytest_atomtrace.cases.case import Case
    from pytest_atomtrace.cases.catalog import Catalog
    from pytest_atomtrace.cases.specs.entries import Judge

__all__ = ["CATALOG_FIELDS", "CatalogEntry", "FileMarks", "Spec", "SpecCase", "read_spec"]

SOURCES: Final = ("case", "cases", "from_catalog")
CATALOG_FIELDS: Final = ("model", "variants")


class FileMarks(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What holds for every item of the file."""

    marks: Annotated[list[MarkName], Meta(description="pytest marks of every item")] = []
    skip: Reason | None = None
    xfail: Annotated[str, Meta(min_length=1, description="why every item fails; errors are never expected")] | None = (
        None
    )


class CatalogEntry(msgspec.Struct, kw_only=True):
    """A model of ATOM's models.json; further keys (isl, osl, conc, ...) stand in for its scenarios' own."""

    model: Annotated[str, Meta(min_length=1, description="display name, prefix or path in the catalog")]
    variants: (
        Annotated[list[str], Meta(min_length=1, description='labels or suffixes; "" is the base; unset: all')] | None
    ) = None


@dataclass(frozen=True)
class SpecCase:
    """A case and where it is written; `notes` are what works but is seldom meant."""

    case: Case
    place: Place
    notes: tuple[str, ...] = ()


@dataclass
class Spec:
    """What one file asks. With problems in it, cases and checks are those that were sound."""

    cases: list[SpecCase] = field(default_factory=list)
    checks: tuple[Check, ...] = ()
    marks: FileMarks = field(default_factory=FileMarks)
    # The names in `marks`, each with its place.
    of_all: tuple[MarkUse, ...] = ()
    problems: tuple[Problem, ...] = ()
    # There are no cases although nothing is wrong: no catalog is at hand.
    catalog_missing: bool = False


def read_spec(path: Path, *, judge: Judge, catalog: Callable[[], Catalog | None]) -> Spec:
    """Read a file; every problem is in the result, nothing is raised.

    `judge` says what is wrong with one assertion's arguments (None: nothing), `catalog` is asked only by a spec
    that names one; it may raise ConfigError.
    """
    try:
        if path.exists() and not path.is_file():
            # A named pipe would be waited for until somebody writes to it.
            return Spec(problems=(Problem(Place(), "", "cannot be read: it is no regular file"),))
        with path.open("rb") as stream:
            # Not read whole before its size is known: a 10 MB file costs what 512 kB cost.
            root = parse(stream.read(MAX_BYTES + 1))
    except YamlError as error:
        return Spec(problems=(error.problem,))
    except OSError as error:
        return Spec(problems=(Problem(Place(), "", f"cannot be read: {error.strerror}"),))
    return _Reader(judge, catalog).read(root)


class _Reader:
    def __init__(self, judge: Judge, catalog: Callable[[], Catalog | None]) -> None:
        self._problems = Problems()
        self._judge = judge
        self._catalog = catalog
        self._spec = Spec()

    def read(self, root: Node | None) -> Spec:
        """The document as a spec."""
        problems, spec = self._problems, self._spec
        if not isinstance(root, Mapping):
            what = "is empty" if root is None else f"expected a mapping with a case and checks, got {got(root)}"
            problems.add(root.place if root is not None else Place(), "", what)
        else:
            own = tuple(FileMarks.__struct_fields__)
            refuse_odd_keys(root, (*SOURCES, "defaults", *SECTIONS, *own), "", problems)
            self._read_cases(root)
            present = Mapping(root.place, root.end_line, {k: p for k, p in root.flat().items() if k in own})
            spec.marks = decode(present, FileMarks, "", problems) or spec.marks
            spec.of_all = read_marks(present, "", problems)
            spec.checks = Checks(problems, self._judge).read(root)
            self._refuse_times_of_random_weights()
            if not spec.checks and not problems:
                problems.add(root.place, "", f"asserts nothing: add one of {', '.join(SECTIONS)}")
        spec.problems = problems.sorted()
        return spec

    def _refuse_times_of_random_weights(self) -> None:
        dummy = [one.case.slug for one in self._spec.cases if one.case.load_dummy]
        for check in self._spec.checks if dummy else ():
            if check.assertion.of_times:
                text = f"{dummy[0]} has load_dummy: random weights give counts, no times; ask for them in another case"
                self._problems.add(check.place, check.path, text)

    def _read_cases(self, root: Mapping) -> None:
        defaults: dict[str, object] = {}
        node = root.get("defaults")
        if node is not None:
            defaults = self._fields(node, "defaults") or {}
        given = [name for name in SOURCES if root.get(name) is not None]
        if len(given) != 1:
            what = "names no case" if not given else f"has {' and '.join(given)}"
            self._problems.add(root.place, "", f"{what}; write one of case, cases and from_catalog")
        for name in given:
            node = root.get(name)
            assert node is not None
            if name == "case" and isinstance(node, Sequence):
                self._problems.add(
                    node.place, name, "expected a mapping, got a list; several cases are written as cases"
                )
            elif name == "case":
                self._case(node, name, defaults)
            elif name == "cases" and not isinstance(node, Sequence):
                self._problems.add(node.place, name, f"expected a list of cases, got {got(node)}")
            elif name == "cases" and isinstance(node, Sequence):
                if not node.items:
                    self._problems.add(node.place, name, "the list is empty: no case would be left")
                for index, one in enumerate(node.items):
                    self._case(one, f"{name}[{index}]", defaults)
            else:
                self._from_catalog(node, name, defaults)
            self._refuse_twins(node, name)

    def _refuse_twins(self, node: Node, path: str) -> None:
        seen: dict[Case, Place] = {}
        for one in self._spec.cases:
            if one.case in seen:
                text = f"the case {one.case.slug} is there already, from line {seen[one.case].line}"
                self._problems.add(one.place, path, text)
            seen[one.case] = one.place
        try:
            refuse_equal_slugs(list(seen))
        except ConfigError as error:
            self._problems.add(node.place, path, error.problem)

    def _fields(self, node: Node, path: str) -> dict[str, object] | None:
        """The sound fields of a case; None if it is no mapping."""
        if not isinstance(node, Mapping):
            self._problems.add(node.place, path, f"expected a mapping, got {got(node)}")
            return None
        refuse_odd_keys(node, FIELDS, path, self._problems)
        fields: dict[str, object] = {}
        for name, pair in node.flat().items():
            if name in FIELDS:
                # One by one: a wrong isl must not hide a wrong tp.
                decoded = decode(Mapping(node.place, node.end_line, {name: pair}), CaseFields, path, self._problems)
                if decoded is not None:
                    value = getattr(decoded, name)
                    fields[name] = _as_words(value) if name in ("server_args", "bench_args") else value
        return fields

    def _case(self, node: Node, path: str, defaults: dict[str, object]) -> None:
        fields = self._fields(node, path)
        if fields is None:
            return
        if "model" not in {**defaults, **fields} and node.get("model") is not None:  # type: ignore[attr-defined]
            fields["model"] = "refused"
        try:
            self._add(expand(merge([fields, defaults])), node)
        except ConfigError as error:
            self._blame(error, node, path)

    def _add(self, cases: tuple[Case, ...], node: Node) -> None:
        number = len(self._spec.cases) + len(cases)
        if number > MAX_CASES:
            raise ConfigError(f"the file {too_many(number)}")
        self._spec.cases += [SpecCase(case, node.place, advice(case)) for case in cases]

    def _blame(self, error: ConfigError, node: Node, path: str) -> None:
        """Put each problem of a case at the field that it starts with."""
        for problem in error.problems:
            word = re.split(r"\W", problem, maxsplit=1)[0]
            child = node.get(word) if isinstance(node, Mapping) and word in FIELDS else None
            if child is None:
                self._problems.add(node.place, path, problem)
            else:
                self._problems.add(child.place, f"{path}.{word}", problem)

    def _from_catalog(self, node: Node, path: str, defaults: dict[str, object]) -> None:
        if isinstance(node, Sequence):
            if not node.items:
                self._problems.add(node.place, path, "the list is empty: no case would be left")
            for index, one in enumerate(node.items):
                self._from_catalog(one, f"{path}[{index}]", defaults)
            return
        if isinstance(node, Scalar) and isinstance(node.value, str):
            node = Mapping(node.place, node.end_line, {"model": (node.place, node)})
        if not isinstance(node, Mapping):
            self._problems.add(node.place, path, f"expected a model of the catalog, or a mapping, got {got(node)}")
            return
        refuse_odd_keys(node, (*CATALOG_FIELDS, *FIELDS[1:]), path, self._problems)
        flat = node.flat()
        own = Mapping(node.place, node.end_line, {k: p for k, p in flat.items() if k in CATALOG_FIELDS})
        more = Mapping(node.place, node.end_line, {k: p for k, p in flat.items() if k in FIELDS[1:]})
        entry = decode(own, CatalogEntry, path, self._problems)
        fields = self._fields(more, path)
        if entry is None or fields is None:
            return
        try:
            catalog = self._catalog()
            if catalog is None:
                self._spec.catalog_missing = True
                return
            self._add(catalog.expand(entry.model, variants=entry.variants, fields=merge([fields, defaults])), node)
        except ConfigError as error:
            if error.where:
                self._problems.add(node.place, path, str(error))
            else:
                self._blame(error, node, path)


def _as_words(value: object) -> object:
    """Numbers of an argument list as text; a matrix of lists stays one."""
    if isinstance(value, list):
        return [_as_words(one) if isinstance(one, list) else str(one) for one in value]
    return value
