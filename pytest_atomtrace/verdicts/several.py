"""Several captures of one case as one answer: what is exact holds in each of them, a time is judged by the median.

One slow window says nothing, so a budget on a case with ``captures=3`` is a budget on the middle one. A kernel that is
launched once too often in one window of three was launched once too often.
"""

from __future__ import annotations

from dataclasses import replace
from statistics import median
from typing import TYPE_CHECKING

from pytest_atomtrace.errors import InconclusiveError, InsufficientStepsError, NoStepsError, UnhealthyTraceError
from pytest_atomtrace.verdicts.evidence import LIMIT, block
from pytest_atomtrace.verdicts.outcome import Outcome, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_atomtrace.verdicts.outcome import Figure
    from pytest_atomtrace.verdicts.view import TraceView

__all__ = ["in_every", "median_over"]


def in_every(captures: Sequence[TraceView], judge: Callable[[TraceView], Verdict]) -> Verdict:
    """One verdict that holds in every capture: the first failure, else the last capture's answer.

    Raises:
        InconclusiveError: no capture failed, and one of them (it is named) cannot answer.

    """
    if len(captures) == 1:
        return judge(captures[0])
    answers = _Answers(captures, judge)
    failed = answers.first_failure(lambda _: True)
    if failed is not None:
        return failed
    return answers.agreed()


def median_over(captures: Sequence[TraceView], judge: Callable[[TraceView], Verdict]) -> Verdict:
    """One verdict on the median over captures of every figure that `judge` compares with a budget.

    What no figure tells of (a kernel that is never called has no time) fails in the capture where it arises.

    Raises:
        InconclusiveError: a capture (it is named) cannot answer: the median of the others is not what was asked for.

    """
    if len(captures) == 1:
        return judge(captures[0])
    answers = _Answers(captures, judge)
    failed = answers.first_failure(lambda verdict: not any(figure.missed for figure in verdict.figures))
    if failed is not None:
        return failed
    verdicts = answers.all_verdicts()
    if not verdicts[0].figures:
        return answers.agreed()
    middles = [_Middle([verdict.figures[index] for verdict in verdicts]) for index in range(len(verdicts[0].figures))]
    missed = [middle for middle in middles if middle.figure.missed]
    found = {middle.figure.fact: middle.figure.number for middle in middles}
    if not missed:
        facts = {**verdicts[-1].facts, **found, "captures": len(captures)}
        sentence = "; ".join(middle.text for middle in middles) + "."
        return Verdict(verdicts[-1].check, Outcome.PASS, sentence, (), answers.notes, facts)
    worst = max(missed, key=lambda middle: middle.figure.excess)
    index = worst.shown
    shown = verdicts[index]
    lines = (*block([("captures", worst.rows), ("evidence", f"of capture {index + 1}:")]), *shown.lines)
    facts = {**shown.facts, **found, "captures": len(captures), "capture": index + 1}
    return Verdict(shown.check, Outcome.FAIL, f"{worst.text}.", lines[:LIMIT], answers.notes, facts)


class _Answers:
    """What a check says of each capture; one that cannot answer does not keep another from failing."""

    def __init__(self, captures: Sequence[TraceView], judge: Callable[[TraceView], Verdict]) -> None:
        self._count = len(captures)
        self._verdicts: list[tuple[int, Verdict]] = []
        self._doubts: list[tuple[int, InconclusiveError]] = []
        for number, capture in enumerate(captures, 1):
            try:
                self._verdicts.append((number, judge(capture)))
            except InconclusiveError as error:
                self._doubts.append((number, error))

    @property
    def notes(self) -> tuple[str, ...]:
        """Every note once."""
        return tuple(dict.fromkeys(note for _, verdict in self._verdicts for note in verdict.notes))

    def first_failure(self, counts: Callable[[Verdict], bool]) -> Verdict | None:
        """The first failed verdict of those that count, its capture named."""
        for number, verdict in self._verdicts:
            if verdict.outcome is not Outcome.PASS and counts(verdict):
                sentence = f"Capture {number} of {self._count}: {verdict.sentence}"
                facts = {**verdict.facts, "captures": self._count, "capture": number}
                return replace(verdict, sentence=sentence, facts=facts)
        return None

    def all_verdicts(self) -> list[Verdict]:
        """One for each capture.

        Raises:
            InconclusiveError: the first doubt, its capture named.

        """
        if self._doubts:
            number, error = self._doubts[0]
            raise _with_capture(error, f"capture {number} of {self._count}") from error
        return [verdict for _, verdict in self._verdicts]

    def agreed(self) -> Verdict:
        """The last capture's answer, which is that of all.

        Raises:
            InconclusiveError: a capture (it is named) cannot answer.

        """
        last = self.all_verdicts()[-1]
        sentence = f"{last.sentence.rstrip('.')}; so it is in each of {self._count} captures."
        return replace(last, sentence=sentence, notes=self.notes, facts={**last.facts, "captures": self._count})


class _Middle:
    """One figure of every capture, and their median as a figure."""

    def __init__(self, each: Sequence[Figure]) -> None:
        self._each = each
        first = each[0]
        values = [figure.value for figure in each]
        worst = min(values) if first.at_least else max(values)
        self.figure = replace(first, value=worst if first.every else median(values))

    @property
    def text(self) -> str:
        """``decode p50 is 9.8 ms, within the budget of 10 ms (median of 3 captures: 9.2 ms, 9.8 ms, 10.4 ms)``."""
        how = "worst" if self.figure.every else "median"
        values = ", ".join(one.shown(one.value) for one in self._each)
        return f"{self.figure.text} ({how} of {len(self._each)} captures: {values})"

    @property
    def rows(self) -> list[str]:
        """A line for each capture."""
        return [
            f"{number}: {figure.shown(figure.value)}{f' on {figure.rank}' if figure.rank else ''}"
            f"{'  <-' if figure.missed else ''}"
            for number, figure in enumerate(self._each, 1)
        ]

    @property
    def shown(self) -> int:
        """Index of the capture whose evidence is shown: of those beyond the limit the one nearest to the median."""
        beyond = [index for index, figure in enumerate(self._each) if figure.missed]
        return min(beyond, key=lambda index: abs(self._each[index].value - self.figure.value))


def _with_capture(error: InconclusiveError, place: str) -> InconclusiveError:
    """The same error saying which capture it is about; classes that have no room for it become the plain one."""
    if isinstance(error, UnhealthyTraceError):
        return UnhealthyTraceError([f"{finding} ({place})" for finding in error.findings], error.hint)
    if isinstance(error, InsufficientStepsError):
        rank = f"{error.rank} in {place}" if error.rank else place
        return InsufficientStepsError(error.kind, error.statistic, error.have, error.need, rank=rank, hint=error.hint)
    if isinstance(error, NoStepsError):
        return NoStepsError(error.kind, error.seen, f"That is {place}. {error.hint}".rstrip())
    return InconclusiveError(f"{place.capitalize()}: {error}")
