"""The fields of a case as YAML writes them: generated from `Case`, so that there is one table of them."""

from __future__ import annotations

import dataclasses
import typing
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from pytest_atomtrace.cases.case import Case

__all__ = ["CaseFields", "one_or_many"]


def one_or_many(kind: Any) -> Any:  # noqa: ANN401  # a type built from a type has no better one
    """``T`` or ``list[T]``: a list multiplies to a matrix."""
    return typing.Union[kind, list[kind]]  # noqa: UP007  # `|` does not take every special form


def _field_type(name: str, hint: Any) -> Any:  # noqa: ANN401
    # Values of every scalar type pass: Case itself refuses wrong ones, in the words that markers get.
    if name in ("server_args", "bench_args"):
        return list[typing.Union[str, int, float, list[str]]]  # noqa: UP007
    if name == "env":
        return one_or_many(dict[str, typing.Union[str, int, float]])  # noqa: UP007
    return one_or_many(hint)


def _fields() -> list[tuple[str, Any, Any]]:
    hints = typing.get_type_hints(Case)
    rows = []
    for one in dataclasses.fields(Case):
        text = f"{one.metadata['doc']}; a list makes a matrix"
        kind = Annotated[_field_type(one.name, hints[one.name]), Meta(description=text)]  # type: ignore[valid-type]
        rows.append((one.name, typing.Union[kind, msgspec.UnsetType], msgspec.UNSET))  # noqa: UP007
    return rows


CaseFields = msgspec.defstruct("CaseFields", _fields(), kw_only=True, forbid_unknown_fields=True, module=__name__)
CaseFields.__doc__ = "What to measure: the fields of the atom_case marker; a list in a field makes a matrix."
