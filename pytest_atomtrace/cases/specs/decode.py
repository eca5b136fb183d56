"""Nodes against msgspec types: every problem of a document at once, each with its place, then typed values.

msgspec stops at its first error and knows no places, so the walk over its own type descriptions finds all of
them; what the walk has found sound is converted by msgspec.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec
from msgspec import inspect

from pytest_atomtrace.cases.specs.problems import meant
from pytest_atomtrace.cases.specs.yamldoor import Mapping, Node, Scalar, Sequence
from pytest_atomtrace.errors import ConfigError
from pytest_atomtrace.units import parse_duration_ns, parse_share

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_atomtrace.cases.specs.problems import Problems

__all__ = ["decode", "described", "got", "keys_of", "refuse_odd_keys", "refuse_repeated_keys"]

_S = TypeVar("_S", bound=msgspec.Struct)
_READERS: Final[dict[str, Callable[[object], object]]] = {"duration": parse_duration_ns, "share": parse_share}


def decode(node: Node, kind: type[_S], path: str, problems: Problems) -> _S | None:
    """`node` as a struct, None (and the problems recorded) if it is not one."""
    before = len(problems)
    value = _struct(node, _info(kind), path, problems)
    if len(problems) > before:
        return None
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        problems.add(node.place, path, str(error))
        return None


def keys_of(kind: type[msgspec.Struct]) -> tuple[str, ...]:
    """The keys that a struct has."""
    return tuple(one.encode_name for one in _info(kind).fields)


def refuse_odd_keys(node: Mapping, known: tuple[str, ...], path: str, problems: Problems) -> None:
    """Record keys used twice, keys that are no words, and unknown keys with what was probably meant."""
    refuse_repeated_keys(node, path, problems)
    odd = {key for key, _ in node.odd_keys}
    for key, place in node.odd_keys:
        problems.add(place, path, f"the key {key} is no word to YAML; quote it if it is meant")
    for key, (place, _) in node.flat().items():
        if key not in known and key not in odd:
            problems.add(place, path, f"unknown key {key!r}{meant(key, known)}")
    for source in node.merged:
        if not isinstance(source, Mapping) and not (
            isinstance(source, Sequence) and all(isinstance(one, Mapping) for one in source.items)
        ):
            problems.add(source.place, _joined(path, "<<"), f"only mappings can be merged, got {got(source)}")


def refuse_repeated_keys(node: Mapping, path: str, problems: Problems) -> None:
    """Record keys used twice: YAML would keep the last one and drop what the first one asked."""
    for key, place, first in node.repeated:
        problems.add(place, _joined(path, key), f"the key {key!r} is there already, in line {first.line}")


@lru_cache(maxsize=64)
def _info(kind: type[msgspec.Struct]) -> inspect.StructType:
    info = inspect.type_info(kind)
    assert isinstance(info, inspect.StructType)
    return info


def _joined(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _value(node: Node, kind: inspect.Type, path: str, problems: Problems) -> object:
    if isinstance(kind, inspect.Metadata):
        reader = _READERS.get(str((kind.extra or {}).get("read")))
        if reader is not None:
            return _read(node, reader, path, problems)
        return _value(node, kind.type, path, problems)
    if isinstance(kind, inspect.UnionType):
        fitting = [one for one in kind.types if _fits(node, one)]
        if fitting:
            return _value(node, fitting[0], path, problems)
    elif _fits(node, kind):
        if isinstance(kind, inspect.StructType):
            return _struct(node, kind, path, problems)
        if isinstance(kind, inspect.DictType) and isinstance(node, Mapping):
            return _dict(node, kind, path, problems)
        if isinstance(kind, inspect.ListType) and isinstance(node, Sequence):
            return _list(node, kind, path, problems)
        if isinstance(node, Scalar):
            return _leaf(node, kind, path, problems)
    problems.add(node.place, path, f"expected {described(kind)}, got {got(node)}{_advice(node, kind)}")
    return None


def _read(node: Node, reader: Callable[[object], object], path: str, problems: Problems) -> object:
    if not isinstance(node, Scalar) or node.value is None:
        problems.add(node.place, path, f"expected a value with its unit, got {got(node)}")
        return None
    value = node.text if isinstance(node.value, (int, float)) else node.value
    try:
        reader(value)
    except ConfigError as error:
        problems.add(node.place, path, error.problem)
    return value


def _fits(node: Node, kind: inspect.Type) -> bool:
    if isinstance(kind, inspect.Metadata):
        return isinstance(node, Scalar) and node.value is not None if kind.extra else _fits(node, kind.type)
    if isinstance(kind, inspect.UnionType):
        return any(_fits(node, one) for one in kind.types)
    if isinstance(kind, (inspect.StructType, inspect.DictType)):
        return isinstance(node, Mapping)
    if isinstance(kind, inspect.ListType):
        return isinstance(node, Sequence)
    if not isinstance(node, Scalar):
        return False
    value = node.value
    if isinstance(kind, inspect.BoolType):
        return isinstance(value, bool)
    # No NoneType: null stands for "not given" inside, in a file it is a value that somebody forgot to write.
    if isinstance(kind, inspect.IntType):
        return isinstance(value, int) and not isinstance(value, bool)
    if isinstance(kind, inspect.FloatType):
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return isinstance(kind, (inspect.StrType, inspect.LiteralType)) and isinstance(value, str)


def _struct(node: Node, kind: inspect.StructType, path: str, problems: Problems) -> object:
    if not isinstance(node, Mapping):
        problems.add(node.place, path, f"expected a mapping, got {got(node)}")
        return None
    fields = {one.encode_name: one for one in kind.fields}
    refuse_odd_keys(node, tuple(fields), path, problems)
    found = {}
    for key, (_, child) in node.flat().items():
        if key in fields:
            found[key] = _value(child, fields[key].type, _joined(path, key), problems)
    for key, one in fields.items():
        if one.required and key not in found:
            problems.add(node.place, path, f"{key} is missing")
    return found


def _dict(node: Mapping, kind: inspect.DictType, path: str, problems: Problems) -> object:
    key_kind = kind.key_type
    if isinstance(key_kind, inspect.LiteralType):
        refuse_odd_keys(node, tuple(str(value) for value in key_kind.values), path, problems)
    else:
        refuse_odd_keys(node, tuple(node.flat()), path, problems)
    return {
        key: _value(child, kind.value_type, _joined(path, key), problems) for key, (_, child) in node.flat().items()
    }


def _list(node: Sequence, kind: inspect.ListType, path: str, problems: Problems) -> object:
    least = kind.min_length or 0
    if len(node.items) < least:
        what = "the list is empty" if not node.items else f"expected at least {least} values, got {len(node.items)}"
        problems.add(node.place, path, what)
    return [_value(child, kind.item_type, f"{path}[{index}]", problems) for index, child in enumerate(node.items)]


def _leaf(node: Scalar, kind: inspect.Type, path: str, problems: Problems) -> object:
    value = node.value
    if isinstance(kind, inspect.LiteralType) and value not in kind.values:
        known = [str(one) for one in kind.values]
        problems.add(node.place, path, f"{value!r} is not allowed here{meant(str(value), known)}")
    if isinstance(kind, (inspect.IntType, inspect.FloatType)) and isinstance(value, (int, float)):
        if kind.ge is not None and value < kind.ge:
            problems.add(node.place, path, f"expected {described(kind)}, got {value}")
        if isinstance(kind, inspect.FloatType):
            return float(value)
    if isinstance(kind, inspect.StrType) and isinstance(value, str) and len(value.strip()) < (kind.min_length or 0):
        problems.add(node.place, path, "the text is empty")
    return value


def described(kind: inspect.Type) -> str:
    """A type in words."""
    if isinstance(kind, inspect.Metadata):
        return str((kind.extra or {}).get("shown") or described(kind.type))
    if isinstance(kind, inspect.UnionType):
        words = list(dict.fromkeys(described(one) for one in kind.types if not isinstance(one, inspect.NoneType)))
        return f"{', '.join(words[:-1])} or {words[-1]}" if len(words) > 1 else words[0]
    if isinstance(kind, inspect.IntType):
        return "a whole number" if kind.ge is None else f"a whole number of at least {kind.ge}"
    if isinstance(kind, inspect.ListType):
        return "a list of them" if not isinstance(kind.item_type, inspect.StructType) else "a list of mappings"
    if isinstance(kind, inspect.LiteralType):
        return f"one of {', '.join(str(value) for value in kind.values)}"
    simple: tuple[tuple[type[inspect.Type], str], ...] = (
        (inspect.StrType, "text"),
        (inspect.FloatType, "a number"),
        (inspect.BoolType, "true or false"),
        (inspect.NoneType, "null"),
        (inspect.DictType, "a mapping"),
        (inspect.StructType, "a mapping"),
    )
    return next((text for one, text in simple if isinstance(kind, one)), "a value")


def got(node: Node) -> str:
    """What is there, in words."""
    if isinstance(node, Mapping):
        return "a mapping"
    if isinstance(node, Sequence):
        return "a list"
    assert isinstance(node, Scalar)
    if node.value is None:
        return "nothing"
    if isinstance(node.value, bool):
        return f"the boolean {node.text}"
    if isinstance(node.value, (int, float)):
        return f"the number {node.text}"
    text = node.text if len(node.text) <= 60 else node.text[:57] + "..."
    return f"the text {text!r}"


def _advice(node: Node, kind: inspect.Type) -> str:
    wants_text = "text" in described(kind)
    if isinstance(node, Scalar) and wants_text and isinstance(node.value, (bool, int, float)):
        return f'; quote it to make it text: "{node.text}"'
    if isinstance(node, Mapping) and wants_text:
        return "; text with a colon and a blank must be quoted"
    return ""
