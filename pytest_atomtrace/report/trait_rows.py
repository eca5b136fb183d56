"""`atomtrace traits` in words: traits down, traces across, in blocks of as many as fit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pytest_atomtrace.report.shortening import shortened
from pytest_atomtrace.report.tables import Column, clipped, paragraph, percent, table
from pytest_atomtrace.units import format_duration
from pytest_atomtrace.verdicts.evidence import near_path
from pytest_atomtrace.verdicts.traits import TRAITS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pytest_atomtrace.report.tables import Line
    from pytest_atomtrace.verdicts.traits import Trait, TraitColumn

__all__ = ["meaning_lines", "trait_lines"]

_HEAD = 13
_GAP = 2
_ENDINGS = (".gz", ".json", ".trace", ".pt")


def trait_lines(columns: Sequence[TraitColumn], *, width: int) -> Iterator[Line]:
    """A legend, then the table; a dash where a trace cannot show the trait."""
    heads = _heads(columns)
    yield from _legend(heads, columns, width)
    cells = [[_value(trait, column) for trait in TRAITS] for column in columns]
    for block in _blocks(heads, cells, width):
        header = [Column("trait", left=True), *(Column(heads[place]) for place in block)]
        rows = [[trait.title, *(cells[place][row] for place in block)] for row, trait in enumerate(TRAITS)]
        yield "", ""
        yield from table(header, rows, width=width)
    yield "dim", "What each of them means: atomtrace traits --explain"


def meaning_lines(*, width: int) -> Iterator[Line]:
    """Every trait with what it is."""
    for trait in TRAITS:
        yield "title", trait.title
        yield from paragraph(trait.meaning, width=width, indent=2, style="")


def _legend(heads: Sequence[str], columns: Sequence[TraitColumn], width: int) -> Iterator[Line]:
    """What stands under which head, a line each whatever the length of its path (--json has it whole)."""
    room = max(map(len, heads))
    for head, column in zip(heads, columns, strict=True):
        path = Path(column.source)
        mark = " (simulated)" if column.simulated else ""
        # A rank's directory holds one trace, under a name of model and time.
        shown = near_path(path.parent if path.parent.name == column.rank else path)
        yield "", f"{head:<{room}}  {_middle_cut(shown, max(32, width - room - _GAP - len(mark)))}{mark}"


def _middle_cut(path: str, room: int) -> str:
    """A path whose ends stay: where it is, and which file."""
    if len(path) <= room:
        return path
    tail = 2 * room // 3
    return f"{path[: room - 1 - tail]}…{path[-tail:]}"


def _blocks(heads: Sequence[str], cells: Sequence[Sequence[str]], width: int) -> list[list[int]]:
    """Places of the columns that stand side by side."""
    used = titles = max(len(trait.title) for trait in TRAITS)
    blocks: list[list[int]] = [[]]
    for place, (head, column) in enumerate(zip(heads, cells, strict=True)):
        wide = max(len(head), *map(len, column)) + _GAP
        if blocks[-1] and used + wide > width:
            blocks.append([])
            used = titles
        blocks[-1].append(place)
        used += wide
    return blocks


def _heads(columns: Sequence[TraitColumn]) -> list[str]:
    """Short, different names: the case of a saved capture, the trace directory's name, or the file's."""
    names = [_name(column) for column in columns]
    # Two files of one name are two traces.
    alike: dict[str, int] = {}
    for place, name in enumerate(names):
        alike[name] = alike.get(name, 0) + 1
        names[place] = f"{name}~{alike[name]}" if alike[name] > 1 else name
    return shortened(names, _HEAD, clipped)


def _name(column: TraitColumn) -> str:
    path = Path(column.source)
    if path.parent.name == column.rank:
        # ATOM's file names carry model and time; the directory above the rank's tells more, unless it is a number.
        place = path.parent.parent
        return place.parent.name if place.name.isdigit() and place.parent.name else place.name
    name = path.name
    for ending in _ENDINGS:
        name = name.removesuffix(ending)
    return name


def _value(trait: Trait, column: TraitColumn) -> str:
    value = column.values[trait.key]
    if value is None:
        return "-"
    if trait.unit == "share":
        return percent(value)
    if trait.unit == "ns":
        return format_duration(value)
    return f"{value:,}" if trait.unit == "count" else f"{value:.3f}"
