"""`atomtrace traits` in words: traits down, traces across, in blocks of as many as fit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pytest_atomtrace.report.tables import Column, clipped, percent, table
from pytest_atomtrace.units import format_duration
from pytest_atomtrace.verdicts.traits import TRAITS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pytest_atomtrace.report.tables import Line
    from pytest_atomtrace.verdicts.traits import Trait, TraitColumn

__all__ = ["trait_lines"]

_HEAD = 14
_GAP = 2


def trait_lines(columns: Sequence[TraitColumn], *, width: int) -> Iterator[Line]:
    """A legend, then the table; a dash where a trace cannot show the trait."""
    heads = _heads(columns)
    legend = max(map(len, heads))
    for head, column in zip(heads, columns, strict=True):
        yield "", f"{head:<{legend}}  {column.source}"
    cells = [[_value(trait, column) for trait in TRAITS] for column in columns]
    for block in _blocks(heads, cells, width):
        header = [Column("trait", left=True), *(Column(heads[place]) for place in block)]
        rows = [[trait.title, *(cells[place][row] for place in block)] for row, trait in enumerate(TRAITS)]
        yield "", ""
        yield from table(header, rows, width=width)


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
    """Short, different names: the file's stem or the trace directory's name, numbered where equal."""
    heads: list[str] = []
    for column in columns:
        path = Path(column.source)
        # ATOM's file names carry model and time; the directory above the rank's tells more.
        in_rank = path.parent.name == column.rank
        name = path.parent.parent.name if in_rank else path.name.partition(".")[0]
        head = clipped(name, _HEAD)
        number = 2
        while head in heads:
            head = f"{clipped(name, _HEAD - len(str(number)) - 1)}~{number}"
            number += 1
        heads.append(head)
    return heads


def _value(trait: Trait, column: TraitColumn) -> str:
    value = column.values[trait.key]
    if value is None:
        return "-"
    if trait.unit == "share":
        return percent(value)
    if trait.unit == "ns":
        return format_duration(value)
    return f"{value:,}" if trait.unit == "count" else f"{value:.3f}"
