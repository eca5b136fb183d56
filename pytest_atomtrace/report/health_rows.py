"""`atomtrace health` in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_atomtrace.report.document import simulated_note
from pytest_atomtrace.report.tables import facts, paragraph

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_atomtrace.report.tables import Line
    from pytest_atomtrace.trace.finding import Finding
    from pytest_atomtrace.verdicts.health_view import HealthView

__all__ = ["health_lines"]

_SHOWN_PER_CODE = 8


def health_lines(view: HealthView, *, width: int) -> Iterator[Line]:
    """The verdict, then each code with its findings, what it means and what to do."""
    if view.simulated:
        yield "yellow", simulated_note()
    yield from facts([("trace", view.source), ("ranks", ", ".join(view.ranks) or "none readable")], width=width)
    word = "sound" if view.sound else "NOT TO BE BELIEVED"
    yield "green" if view.sound else "red", f"{'health':<9} {word}"
    answers = [f"{question} {'yes' if fine else 'NO'}" for question, fine in view.answers.items()]
    yield "", f"{'may judge':<9} {', '.join(answers)}"
    for code in dict.fromkeys(finding.code for finding in view.findings):
        yield from _code(view, code, width)


def _code(view: HealthView, code: str, width: int) -> Iterator[Line]:
    mine = [finding for finding in view.findings if finding.code == code]
    fatal = [finding for finding in mine if finding.fatal]
    style = "red" if fatal else "yellow"
    scope = sorted({finding.scope for finding in fatal})
    word = f"fatal for {'everything' if 'all' in scope else ', '.join(scope)}" if fatal else "note"
    yield "", ""
    yield style, f"{code} {mine[0].title} ({word})"
    for finding in mine[:_SHOWN_PER_CODE]:
        yield from paragraph(_text(finding), width=width, indent=2, style="")
    if len(mine) > _SHOWN_PER_CODE:
        yield "", f"  ... and {len(mine) - _SHOWN_PER_CODE} more (--json has all)"
    meaning = view.meanings[code]
    yield from paragraph(meaning.meaning, width=width, indent=2)
    yield from paragraph(f"-> {meaning.remedy}", width=width, indent=2)


def _text(finding: Finding) -> str:
    return f"{finding.rank}: {finding.text}" if finding.rank else finding.text
