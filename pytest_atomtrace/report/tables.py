"""Tables that fit the width they are given: optional columns go first, then names are shortened."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from pytest_atomtrace.report.shortening import shortened

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["Column", "Line", "clipped", "facts", "paragraph", "percent", "signed_percent", "span_of", "table"]

# (style, text): style is "title", "dim", a colour name, or "" for plain text.
Line: TypeAlias = "tuple[str, str]"

_GAP = 2
_KEY_WIDTH = 9


@dataclass(frozen=True)
class Column:
    """A column: numbers stand right, words left.

    `drop` orders what leaves a narrow table (the highest goes first, 0 stays); `shorten` makes this the one
    column that gives way, called with each text and the room for it, down to `least` before others leave.
    Different texts stay different.
    """

    header: str
    left: bool = False
    drop: int = 0
    shorten: Callable[[str, int], str] | None = None
    least: int = 32


def table(
    columns: Sequence[Column],
    rows: Sequence[Sequence[str]],
    *,
    width: int,
    indent: int = 0,
    styles: Sequence[str] = (),
) -> Iterator[Line]:
    """Lay out `rows`; `styles` colours each of them."""
    from tabulate import tabulate

    if not rows:
        return
    keep = [place for place, column in enumerate(columns) if not column.drop or any(row[place] for row in rows)]
    room = width - indent
    while _needed(columns, rows, keep) > room:
        optional = [place for place in keep if columns[place].drop]
        if not optional:
            break
        keep.remove(max(optional, key=lambda place: (columns[place].drop, place)))
    name_room = room - _fixed(columns, rows, keep)
    by_column = [_cells(columns[place], [row[place] for row in rows], name_room) for place in keep]
    cells = list(zip(*by_column, strict=True))
    heads = [columns[place].header for place in keep]
    # Headers go in as a row: as headers tabulate pads every one of them by two.
    text = tabulate(
        [heads, *cells],
        tablefmt="plain",
        disable_numparse=True,
        colalign=["left" if columns[place].left else "right" for place in keep],
    )
    body = text.splitlines()
    padding = " " * indent
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    yield "dim", (padding + body[0]).rstrip()
    yield "dim", padding + (" " * _GAP).join("-" * width for width in widths)
    for number, line in enumerate(body[1:]):
        yield styles[number] if styles else "", (padding + line).rstrip()


def _widest(column: Column, rows: Sequence[Sequence[str]], place: int) -> int:
    return max(len(column.header), *(len(row[place]) for row in rows))


def _fixed(columns: Sequence[Column], rows: Sequence[Sequence[str]], keep: Sequence[int]) -> int:
    widths = [_widest(columns[place], rows, place) for place in keep if columns[place].shorten is None]
    return sum(widths) + _GAP * (len(keep) - 1)


def _needed(columns: Sequence[Column], rows: Sequence[Sequence[str]], keep: Sequence[int]) -> int:
    names = [place for place in keep if columns[place].shorten is not None]
    wanted = sum(min(columns[place].least, _widest(columns[place], rows, place)) for place in names)
    return _fixed(columns, rows, keep) + wanted


def _cells(column: Column, texts: Sequence[str], room: int) -> Sequence[str]:
    if column.shorten is None:
        return texts
    return shortened(texts, max(room, len(column.header), 8), column.shorten)


def clipped(text: str, width: int) -> str:
    """Cut at the end, with an ellipsis."""
    return text if len(text) <= width else text[: width - 1] + "…"


def percent(share: float) -> str:
    """``12.3 %``; what is there but rounds to nothing is ``<0.1 %``."""
    if 0 < share < 0.0005:
        return "<0.1 %"
    return f"{100 * share:.1f} %"


def signed_percent(share: float, digits: int = 1) -> str:
    """``+1.2 %``; what rounds to nothing has no sign."""
    text = f"{100 * share:+.{digits}f}"
    return f"{text if float(text) else text[1:]} %"


def span_of(low: int | None, high: int | None) -> str:
    """``58``, ``57..58``, or nothing."""
    if low is None or high is None:
        return ""
    return f"{low:,}" if low == high else f"{low:,}..{high:,}"


def paragraph(text: str, *, width: int, indent: int = 0, style: str = "dim") -> Iterator[Line]:
    """Prose under a table."""
    padding = " " * indent
    for line in textwrap.wrap(text, max(width, 40), initial_indent=padding, subsequent_indent=padding):
        yield style, line


def facts(rows: Sequence[tuple[str, str]], *, width: int) -> Iterator[Line]:
    """``key  value`` lines; long values continue under their start, paths are never broken."""
    for key, value in rows:
        head = f"{key:<{_KEY_WIDTH}} "
        body = textwrap.wrap(
            value, max(width, 40), initial_indent=head, subsequent_indent=" " * len(head), break_long_words=False,
            break_on_hyphens=False,
        )  # fmt: skip
        yield from (("", line) for line in body or [head.rstrip()])
