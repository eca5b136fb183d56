"""Fields with scalars and lists become cases: the grammar of the ``atom_case`` marker is `Case`'s own fields."""

from __future__ import annotations

import dataclasses
import difflib
import itertools
import math
from typing import TYPE_CHECKING, Final

from pytest_atomtrace.cases.case import Case, refuse_equal_slugs
from pytest_atomtrace.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["FIELDS", "MAX_CASES", "advice", "expand", "field_table", "merge", "too_many", "unknown_keys"]

FIELDS = tuple(f.name for f in dataclasses.fields(Case))

_LIST_FIELDS = {"server_args", "bench_args"}
# ATOM's whole catalog has some hundred cells; each case is a server's warm-up and a capture of minutes.
MAX_CASES: Final = 1000


def merge(layers: Sequence[Mapping[str, object]]) -> dict[str, object]:
    """Join stacked marks field by field; `layers` come closest first and the closest wins."""
    merged: dict[str, object] = {}
    for layer in reversed(layers):
        merged.update(layer)
    return merged


def expand(fields: Mapping[str, object]) -> tuple[Case, ...]:
    """Multiply lists to a matrix of cases, in the order of `Case`'s fields and of the values given.

    Raises:
        ConfigError: every problem of the fields and of the cases, in one message.

    """
    problems = unknown_keys(fields)
    if "model" not in fields:
        problems.append("model is missing")
    axes: dict[str, list[object]] = {}
    for name in FIELDS:
        if name in fields:
            values, problem = _values(name, fields[name])
            problems += [problem] * bool(problem)
            if not problem:
                axes[name] = values
    number = math.prod(len(values) for values in axes.values())
    if number > MAX_CASES:
        long = " x ".join(f"{len(values)} {name}" for name, values in axes.items() if len(values) > 1)
        problems.append(f"{too_many(number)} ({long})")
    # What multiplies to no matrix is still looked at field by field: one mistake must not hide the others.
    rows = _one_by_one(axes) if problems else itertools.product(*([(n, v) for v in vs] for n, vs in axes.items()))
    found = dict.fromkeys(problems)
    cases: list[Case] = []
    for row in rows:
        try:
            cases.append(Case(**dict(row)))  # type: ignore[arg-type]  # Case checks each value itself
        except ConfigError as error:
            found.update(dict.fromkeys(error.problems))
    if found:
        raise ConfigError.of_all(list(found))
    refuse_equal_slugs(cases)
    return tuple(cases)


def too_many(number: int) -> str:
    """The sentence that refuses `number` cases."""
    return f"makes {number:,} cases, at most {MAX_CASES:,} are allowed: list fewer values"


def _one_by_one(axes: Mapping[str, Sequence[object]]) -> Iterator[tuple[tuple[str, object], ...]]:
    for name, values in axes.items():
        for value in values:
            yield ((name, value),) if name == "model" else (("model", "any"), (name, value))


def unknown_keys(fields: Mapping[str, object]) -> list[str]:
    """One problem per key that is no field of `Case`, with the nearest field or all of them."""
    problems = []
    for key in fields:
        if key not in FIELDS:
            close = difflib.get_close_matches(key, FIELDS, n=1, cutoff=0.5)
            mean = f" (did you mean {close[0]!r}?)" if close else f" (known: {', '.join(FIELDS)})"
            problems.append(f"unknown key {key!r}{mean}")
    return problems


def _values(name: str, value: object) -> tuple[list[object], str]:
    if name == "env":
        many = isinstance(value, (list, tuple))
        values: list[object] = list(value) if isinstance(value, (list, tuple)) else [value]
        if not all(isinstance(v, dict) for v in values):
            return [], f"env must be a mapping (or a list of mappings), got {value!r}"
    elif name in _LIST_FIELDS:
        many = isinstance(value, (list, tuple)) and any(isinstance(v, (list, tuple)) for v in value)
        values = list(value) if many and isinstance(value, (list, tuple)) else [value]
        if not all(isinstance(v, (list, tuple)) for v in values):
            return [], f"{name} must be a list of strings, got {value!r}"
    else:
        many = isinstance(value, (list, tuple))
        values = list(value) if isinstance(value, (list, tuple)) else [value]
    if many and not values:
        return [], f"{name} is an empty list: no case would be left"
    if len(values) > MAX_CASES:
        return [], f"{name} {too_many(len(values))}"
    for index, item in enumerate(values):
        if item in values[:index]:
            return [], f"{name} lists {item!r} twice"
    return values, ""


def advice(case: Case) -> tuple[str, ...]:
    """What will work but is seldom meant, one sentence each."""
    notes = []
    if case.prompts_per_slot > 1:
        notes.append(
            f"prompts_per_slot={case.prompts_per_slot}: a trace grows with every request and steady steps do not "
            "get steadier; 1 is enough for kernels and step times"
        )
    if case.range_ratio < 1 and case.requests > 1:
        notes.append(
            f"range_ratio={case.range_ratio:g}: requests end at different steps, the decode batch shrinks and "
            "fewer steady steps remain; 1.0 is the default for that reason"
        )
    if case.output_tokens < 28:
        notes.append(
            f"osl={case.output_tokens}: fewer than 20 steady decode steps remain, so step times and counts per "
            "step will be inconclusive"
        )
    return tuple(notes)


def field_table() -> tuple[tuple[str, str, str], ...]:
    """Name, default and meaning of every field, for help texts and the reference page."""
    rows = []
    for f in dataclasses.fields(Case):
        default = "required" if f.default is dataclasses.MISSING else repr(f.default)
        rows.append((f.name, default, str(f.metadata["doc"])))
    return tuple(rows)
