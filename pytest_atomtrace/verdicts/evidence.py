"""How evidence is laid out: short aligned lines under one whole sentence, never more than fits a screen."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pytest_atomtrace.trace.names import short_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pytest_atomtrace.trace.data import Step

__all__ = [
    "LIMIT",
    "block",
    "count_of",
    "did_you_mean",
    "listed",
    "near_path",
    "on_ranks",
    "shell_quoted",
    "shown",
    "shown_engine",
    "step_rows",
    "step_time_text",
]

LIMIT = 40
_KEY_WIDTH = 9


def block(rows: Iterable[tuple[str, str | Sequence[str]]]) -> tuple[str, ...]:
    """``key   value`` lines; several values continue under the first, empty ones leave no line."""
    lines: list[str] = []
    for key, value in rows:
        values = [value] if isinstance(value, str) else list(value)
        for index, text in enumerate(v for v in values if v):
            lines.append(f"  {key if index == 0 else '':<{_KEY_WIDTH}} {text}")
    return tuple(lines[:LIMIT])


def listed(items: Sequence[str], *, limit: int = 6) -> str:
    """``a, b, c and 4 more``."""
    shown = ", ".join(items[:limit])
    return f"{shown} and {len(items) - limit} more" if len(items) > limit else shown


def count_of(number: int, noun: str, plural: str = "") -> str:
    """``1 call``, ``58 calls``."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def did_you_mean(word: object, words: Sequence[str]) -> str:
    """``; did you mean 'decode'?`` where one of `words` is near, else all of them in parentheses."""
    import difflib

    close = difflib.get_close_matches(str(word), words, n=1)
    return f"; did you mean {close[0]!r}?" if close else f" ({', '.join(words)})"


def on_ranks(names: Sequence[str], *, any_of: bool = False) -> str:
    """``on rank_0``, ``on 8 ranks``, ``on any of 8 ranks``."""
    if len(names) == 1:
        return f"on {names[0]}"
    return f"on {'any of ' if any_of else ''}{len(names)} ranks"


def shown(names: Iterable[str]) -> list[str]:
    """Kernel names for people: base names, each once, in order; raw ones fill a screen with template arguments."""
    return list(dict.fromkeys(short_name(name, 90) for name in names))


def near_path(path: Path) -> str:
    """The path relative to the current directory if it lies below it: shorter, and still good to paste."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def shown_engine(engine: str, *, simulated: bool) -> str:
    """Who sees the figures must be able to tell made-up ones, whatever brought them here."""
    return f"{engine} of sim" if simulated and engine != "sim" else engine


def step_rows(step: Step) -> list[tuple[str, str]]:
    """Which step it is, and where in the trace it lies."""
    return [("step", f"{step.rank} step {step.index}: {step.label.text}"), ("time", step_time_text(step))]


def step_time_text(step: Step) -> str:
    """``4651916129277.514 to 4651916129746.658 us``: the step's kernels on the clock of the trace's ``ts``."""
    low, high = step.range_ns
    what = "its kernels" if step.n_kernels else "its label, for it has no kernels"
    return f"{_us(low)} to {_us(high)} us on the trace's clock ({what})"


def _us(ns: int) -> str:
    return f"{ns // 1000}.{ns % 1000:03d}"


def shell_quoted(text: str) -> str:
    """Quote a pattern for the command line that the evidence offers."""
    return "'" + text.replace("'", "'\\''") + "'"
