"""Answers as JSON values: a dataclass is an object whose keys are its fields, so keys are as stable as names."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = ["record"]


def record(answer: DataclassInstance) -> dict[str, object]:
    """A dataclass as an object of builtin types. Times stay integer nanoseconds, their unit is in the key."""
    return {field.name: _plain(getattr(answer, field.name)) for field in dataclasses.fields(answer)}


def _plain(value: object) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return record(value)
    if isinstance(value, (str, int, float, bool)) or value is None:
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, (Sequence, set, frozenset)):
        return [_plain(one) for one in value]
    raise TypeError(f"{type(value).__name__} has no JSON form")
