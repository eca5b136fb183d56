"""Baselines are read strictly: people edit and merge these files, and a damaged one must never pass for a yardstick."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

from pytest_atomtrace.errors import ConfigError, NoBaselineError
from pytest_atomtrace.verdicts.baseline import SCHEMA, Baseline
from pytest_atomtrace.verdicts.step_profile import Usage
from pytest_atomtrace.verdicts.window_figures import STEP

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["parse_baseline", "read_baseline", "usable_baseline"]

_Object: TypeAlias = Mapping[str, object]
_Facts: TypeAlias = "dict[str, str | int | float | bool]"

# Eleven days: no figure of a step is larger, and one that is would overflow the arithmetic behind the limit.
_MOST_NS = 10**15
_REMEDY = "Restore the file from git, or record it anew with --atom-update-baselines=all."
_SHOWN = 60


def usable_baseline(path: Path, case: str, command: str) -> Baseline | None:
    """The baseline of `case` in `path`, None if there is no file.

    Raises:
        NoBaselineError: ``damaged``: the file cannot be used; with the field, its value and `command`.

    """
    try:
        return read_baseline(path, case=case)
    except ConfigError as error:
        raise NoBaselineError(case, "damaged", str(error), command) from None


def read_baseline(path: Path, *, case: str) -> Baseline | None:
    """The baseline of `case` in `path`, None if there is no file.

    Raises:
        ConfigError: the file is no baseline of this version and case; `where` is the path.

    """
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"no baseline can be read: {error.strerror or error}", str(path)) from None
    found = parse_baseline(text, where=str(path))
    if found.case != case:
        raise ConfigError(
            f"case is {found.case!r}, but the file is named for {case!r}: it was copied or renamed. {_REMEDY}",
            str(path),
        )
    return found


def parse_baseline(text: bytes, *, where: str) -> Baseline:
    """The baseline in a file's content.

    Raises:
        ConfigError: it is no baseline of this version, with the field and its value; `where` names the file.

    """
    try:
        data = json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"no baseline can be read: {error}. {_REMEDY}", where) from None
    if not isinstance(data, dict):
        raise ConfigError(f"a baseline is a JSON object, this is {_shown(data)}. {_REMEDY}", where)
    if data.get("schema") != SCHEMA or isinstance(data.get("schema"), bool):
        raise ConfigError(f"schema is {_shown(data.get('schema'))}; this version reads {SCHEMA}", where)
    try:
        return _baseline(data)
    except _DamagedError as error:
        raise ConfigError(f"{error}. {_REMEDY}", where) from None


class _DamagedError(ValueError):
    """A field is not what it must be; the text says which and what it is."""


def _baseline(data: _Object) -> Baseline:
    found = Baseline(
        case=_text(_field(data, "case"), "case"),
        simulated=_truth(_field(data, "simulated"), "simulated"),
        hardware=_facts(data, "hardware"),
        profiler=_facts(data, "profiler"),
        model=_facts(data, "model"),
        recorded=_facts(data, "recorded"),
        environment=_facts(data, "environment"),
        health=_texts(_field(data, "health"), "health"),
        untuned=_texts(data.get("untuned", []), "untuned"),
        metrics=_metrics(_object(_field(data, "metrics"), "metrics")),
    )
    kernels, ranks = _kernels(_object(_field(data, "kernels"), "kernels"))
    return replace(found, kernels=kernels, ranks=ranks)


def _metrics(rows: _Object) -> dict[str, tuple[tuple[int, ...], ...]]:
    found = {name: _launches(value, f"metrics[{json.dumps(name)}]") for name, value in rows.items()}
    if found and STEP not in found:
        raise _DamagedError(f"metrics has no {STEP}, which every baseline of times has")
    for name, launches in found.items():
        # All metrics are of the same launches; a line that a merge took from elsewhere is of others.
        if len(launches) != len(found[STEP]):
            raise _DamagedError(f"metrics: {name} has {len(launches)} launches where {STEP} has {len(found[STEP])}")
    return found


def _launches(value: object, where: str) -> tuple[tuple[int, ...], ...]:
    launches = _list(value, where, "a list of launches")
    if not launches:
        raise _DamagedError(f"{where} is []: it has no launch")
    return tuple(_windows(windows, f"{where}, launch {number}") for number, windows in enumerate(launches, 1))


def _windows(value: object, where: str) -> tuple[int, ...]:
    windows = _list(value, where, "a list of windows")
    if not windows:
        raise _DamagedError(f"{where} is []: it has no window")
    return tuple(
        _whole(one, f"{where}, window {number}", 1, _MOST_NS, " of nanoseconds")
        for number, one in enumerate(windows, 1)
    )


def _kernels(rows: _Object) -> tuple[dict[str, Usage], dict[str, dict[str, int]]]:
    found, ranks = {}, {}
    for name, value in rows.items():
        where = f"kernels[{json.dumps(name, ensure_ascii=False)}]"
        row = _object(value, where)
        calls = _whole(_field(row, "calls", where), f"{where}.calls", 1, _MOST_NS, " of calls")
        ns = _whole(_field(row, "ns", where), f"{where}.ns", 0, _MOST_NS, " of nanoseconds")
        found[name] = Usage(calls, float(ns))
        if "ranks" in row:
            ranks[name] = {
                rank: _whole(calls, f"{where}.ranks.{rank}", 0, _MOST_NS, " of calls")
                for rank, calls in _object(row["ranks"], f"{where}.ranks").items()
            }
    return found, ranks


def _facts(data: _Object, key: str) -> _Facts:
    found: _Facts = {}
    for name, one in _object(_field(data, key), key).items():
        number = isinstance(one, float) and not math.isfinite(one)
        if number or not isinstance(one, (str, int, float, bool)):
            raise _DamagedError(f"{key}.{name} is {_shown(one)}, which is no text, finite number, true or false")
        found[name] = one
    return found


def _field(data: _Object, key: str, where: str = "") -> object:
    if key not in data:
        raise _DamagedError(f"{where}.{key} is missing" if where else f"{key} is missing")
    return data[key]


def _object(value: object, where: str) -> _Object:
    if not isinstance(value, dict):
        raise _DamagedError(f"{where} is {_shown(value)}, which is no object")
    return value


def _list(value: object, where: str, what: str) -> list[object]:
    if not isinstance(value, list):
        raise _DamagedError(f"{where} is {_shown(value)}, which is no {what.removeprefix('a ')}")
    return value


def _text(value: object, where: str) -> str:
    if not isinstance(value, str) or not value:
        raise _DamagedError(f"{where} is {_shown(value)}, which is no text")
    return value


def _texts(value: object, where: str) -> tuple[str, ...]:
    return tuple(_text(one, f"{where}[{number}]") for number, one in enumerate(_list(value, where, "a list of texts")))


def _truth(value: object, where: str) -> bool:
    if not isinstance(value, bool):
        raise _DamagedError(f"{where} is {_shown(value)}, which is neither true nor false")
    return value


def _whole(value: object, where: str, least: int, most: int, what: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise _DamagedError(f"{where} is {_shown(value)}, which is no whole number{what} from {least} to {most:,}")
    return value


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """An object; a key that is there twice is what a careless merge leaves, and JSON would take the last one."""
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"{twice!r} is there twice")
    return found


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
