"""`atomtrace summary` of several captures in words."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pytest_atomtrace.report.document import shown_engine, simulated_note
from pytest_atomtrace.report.tables import Column, clipped, paragraph, table
from pytest_atomtrace.units import format_duration

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_atomtrace.report.tables import Line
    from pytest_atomtrace.verdicts.capture_view import CaptureRow, CapturesView

__all__ = ["capture_lines"]

_COLUMNS = (
    Column("", left=True),
    Column("engine", left=True, drop=2),
    Column("ranks"),
    Column("steps", left=True, drop=3),
    Column("GPU busy p50"),
    Column("max", drop=1),
    Column("health", left=True, shorten=clipped, least=12),
)


def capture_lines(view: CapturesView, *, width: int) -> Iterator[Line]:
    """Where each capture lies, a row of figures for each, and the command that shows one whole."""
    if any(row.simulated for row in view.captures):
        mixed = not all(row.simulated for row in view.captures)
        yield "yellow", simulated_note("What has the engine sim") if mixed else simulated_note()
    yield "title", f"{len(view.captures)} captures in {view.source}"
    # Case and number are the last two names of a capture's path; on lines of their own they are never cut.
    for number, row in enumerate(view.captures, 1):
        yield "", f"#{number} {_below(row.source, view.source)}"
    yield "", ""
    cells = [_cells(number, row) for number, row in enumerate(view.captures, 1)]
    styles = ["red" if row.problem or any(one.fatal for one in row.findings) else "" for row in view.captures]
    yield from table(_COLUMNS, cells, width=width, styles=styles)
    for number, row in enumerate(view.captures, 1):
        if row.problem:
            yield from paragraph(f"#{number}: {row.problem}", width=width, style="red")
    yield "", ""
    yield "", f"one of them: atomtrace summary {view.captures[0].source}"


def _below(path: str, root: str) -> str:
    try:
        return str(Path(path).relative_to(root))
    except ValueError:
        return path


def _cells(number: int, row: CaptureRow) -> list[str]:
    steps = f"{row.main_steps} {'steady ' if row.main_steady else ''}{row.main}" if row.main else "no labels"
    times = [format_duration(ns) if ns is not None else "-" for ns in (row.main_p50_ns, row.main_max_ns)]
    if row.problem:
        return [f"#{number}", "-", "-", "-", *times, "unreadable"]
    return [
        f"#{number}", shown_engine(row.engine, simulated=row.simulated), str(row.ranks), steps, *times, _health(row)
    ]  # fmt: skip


def _health(row: CaptureRow) -> str:
    fatal = list(dict.fromkeys(one.code for one in row.findings if one.fatal))
    noted = list(dict.fromkeys(one.code for one in row.findings if not one.fatal))
    if fatal:
        return f"{', '.join(fatal)}: NOT TO BE BELIEVED"
    return f"sound ({', '.join(noted)})" if noted else "sound"
