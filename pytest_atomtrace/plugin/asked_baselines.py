"""What the items of a run ask of baselines: known from their code before anything is captured, unlike what they do."""

from __future__ import annotations

import ast
import inspect
import textwrap
import types
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest

__all__ = ["asks_for_baseline", "asks_for_times"]

_CHECK = "assert_no_regression"
# A test that calls its way through more functions of its own is not followed further.
_MOST_FUNCTIONS = 50


def asks_for_baseline(item: pytest.Item) -> bool:
    """Whether the item compares with a baseline, itself or through functions that it names."""
    return _entry_times(item) is not None or any(True for _ in _comparing(item))


def asks_for_times(item: pytest.Item) -> bool:
    """Whether it compares times. What cannot be read as ``metrics=["counts"]`` does: counts taken for times cost
    launches, times taken for counts would be lost.
    """
    of_entry = _entry_times(item)
    if of_entry is not None:
        return of_entry
    return any(not _counts_only(function) for function in _comparing(item))


def _entry_times(item: pytest.Item) -> bool | None:
    """Of a spec file's entry whether it compares times; None for what is no such entry or compares with nothing."""
    # The function of an entry holds what it asserts.
    entry: object = getattr(_function(item), "__globals__", {}).get("assertion")
    return bool(getattr(entry, "of_times", True)) if getattr(entry, "method", "") == _CHECK else None


def _function(item: pytest.Item) -> object:
    function = getattr(item, "obj", None)
    return getattr(function, "__func__", function)


def _comparing(item: pytest.Item) -> Iterator[types.FunctionType]:
    """The item's function and those that it calls by a global name, as far as they name the check."""
    left = [_function(item)]
    seen: set[object] = set()
    while left and len(seen) < _MOST_FUNCTIONS:
        function = left.pop()
        if isinstance(function, types.FunctionType):
            function = inspect.unwrap(function)  # what a decorator hides
        if not isinstance(function, types.FunctionType) or function in seen:
            continue
        seen.add(function)
        names = set(_names_of(function.__code__))
        if _CHECK in names:
            yield function
        left += [function.__globals__.get(name) for name in sorted(names)]


def _names_of(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for one in code.co_consts:
        if isinstance(one, types.CodeType):  # a function or lambda inside
            yield from _names_of(one)


def _counts_only(function: types.FunctionType) -> bool:
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):
        return False
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr == _CHECK]
    asked = [
        keyword.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == _CHECK
        for keyword in node.keywords
        if keyword.arg == "metrics"
    ]
    return bool(calls) and len(asked) == len(calls) and all(_is_counts(value) for value in asked)


def _is_counts(value: ast.expr) -> bool:
    if not isinstance(value, (ast.List, ast.Tuple)) or not value.elts:
        return False
    return all(isinstance(one, ast.Constant) and one.value == "counts" for one in value.elts)
