"""`atomtrace check-layout` in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_atomtrace.report.tables import Column, clipped, facts, paragraph, table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_atomtrace.report.tables import Line
    from pytest_atomtrace.verdicts.rank_layout import LayoutView

__all__ = ["layout_lines"]


def layout_lines(view: LayoutView, *, width: int) -> Iterator[Line]:
    """One row a rank, then what is wrong."""
    yield from facts([("directory", view.source)], width=width)
    wrong = [state for state in view.ranks if not state.right]
    done = len(view.ranks) - len(wrong)
    each = f"all {done} ranks" if done != 1 else "the one rank"
    verdict = f"{each} left one whole trace" if view.right else f"WRONG: {done} of {len(view.expected)} done"
    yield "green" if view.right else "red", f"{'layout':<9} {verdict}"
    yield "", ""
    columns = [
        Column("rank", left=True),
        Column("state", left=True),
        Column("size"),
        Column("capture traces", drop=1),
        Column("file", left=True, shorten=clipped),
    ]
    rows = [
        [
            state.rank,
            state.state,
            f"{state.size_bytes / 1e6:,.1f} MB" if state.file else "-",
            str(state.capture_traces) if state.capture_traces else "",
            state.file or "-",
        ]
        for state in view.ranks
    ]
    yield from table(columns, rows, width=width, styles=["" if state.right else "red" for state in view.ranks])
    for state in wrong:
        yield from paragraph(f"{state.rank}: {state.detail}", width=width, style="")
