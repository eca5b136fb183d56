"""A check that asks wrongly: neither a "no" nor a doubt, but a mistake in the test, told at the test's own line.

As a failure a typo would read like a regression, and under ``xfail`` it would pass for the expected one for ever.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_atomtrace.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

__all__ = ["wrong_check"]

_OWN_ROOM = Path(__file__).parents[1]
_PACKAGE = "pytest_atomtrace."
# What Python says of a call that does not fit: "Trace.assert_step_time() got an unexpected keyword argument 'p5'".
_MISCALLED = re.compile(r"(?P<owner>\w+)\.(?P<method>\w+)\(\) (?P<rest>(?:got|takes|missing) .+)", re.DOTALL)
_UNEXPECTED = re.compile(r"got an unexpected keyword argument '(?P<name>\w+)'")
_LONGEST_SOURCE = 200


def wrong_check(item: pytest.Item, error: pytest.ExceptionInfo[BaseException]) -> str:
    """What is wrong with the check that raised `error`, led by ``file:line``; "" if something else happened.

    Wrong are questions that no trace could answer (`ConfigError`), and calls that do not fit what is called: misspelt
    methods and arguments of a trace.
    """
    problem = _problem(error)
    if not problem:
        return ""
    path, line = _place(item, error)
    try:
        place = path.relative_to(item.config.rootpath).as_posix()
    except ValueError:
        place = str(path)
    source = _source(path, line)
    return f"{place}:{line}: {problem}" + (f"\n    {source}" if source else "")


def _problem(error: pytest.ExceptionInfo[BaseException]) -> str:
    value = error.value
    if isinstance(value, ConfigError):
        return str(value)
    # A frame of ours at the end would be a fault of ours: it keeps its traceback.
    if not isinstance(value, (TypeError, AttributeError)) or _is_ours(error.traceback[-1].path):
        return ""
    return _unknown_name(value) if isinstance(value, AttributeError) else _misfit(str(value))


def _unknown_name(error: AttributeError) -> str:
    owner = getattr(error, "obj", None)
    if not type(owner).__module__.startswith(_PACKAGE):
        return ""
    from pytest_atomtrace.verdicts.evidence import did_you_mean

    names = [name for name in dir(owner) if not name.startswith("_")]
    return f"a {type(owner).__name__} has no {error.name!r}{did_you_mean(error.name, names)}"


def _misfit(text: str) -> str:
    said = _MISCALLED.fullmatch(text)
    method = _public_method(said["owner"], said["method"]) if said is not None else None
    if said is None or method is None:
        return ""
    import inspect

    from pytest_atomtrace.verdicts.evidence import did_you_mean

    parameters = [name for name in inspect.signature(method).parameters if name != "self"]
    unexpected = _UNEXPECTED.match(said["rest"])
    if unexpected is None:
        by_name = "; all but the first are given by name" if said["rest"].startswith("takes") else ""
        return f"{said['method']}() {said['rest']}{by_name} ({', '.join(parameters)})"
    name = unexpected["name"]
    return f"{said['method']}() has no argument {name!r}{did_you_mean(name, parameters)}"


def _public_method(owner: str, method: str) -> Callable[..., object] | None:
    """The method of a class that a test gets from us; classes of the test that have such a name are its own affair."""
    for module in ("trace", "view", "steps", "kernels", "bench"):
        found = getattr(sys.modules.get(f"{_PACKAGE}verdicts.{module}"), owner, None)
        if isinstance(found, type) and found.__module__.startswith(_PACKAGE):
            return getattr(found, method, None)
    return None


def _place(item: pytest.Item, error: pytest.ExceptionInfo[BaseException]) -> tuple[Path, int]:
    """The last line of the spec that led to the error; of a fixture elsewhere, the last line that is not ours.

    An entry of a YAML spec is one question, and is found by its first line.
    """
    if item.path.suffix != ".py":
        return item.path, (item.location[1] or 0) + 1
    lines = [(Path(entry.path), entry.lineno + 1) for entry in error.traceback]
    foreign = [place for place in lines if not _is_ours(place[0])] or lines
    return next((place for place in reversed(foreign) if place[0] == item.path), foreign[-1])


def _is_ours(path: str | Path) -> bool:
    return _OWN_ROOM in Path(path).parents


def _source(path: Path, line: int) -> str:
    import linecache

    text = linecache.getline(str(path), line).strip()
    return text if len(text) <= _LONGEST_SOURCE else f"{text[:_LONGEST_SOURCE]} ..."
