"""What became of a check."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum

__all__ = ["Figure", "Outcome", "Recorder", "Verdict", "share_text"]


class Outcome(str, Enum):
    """How a check or an item ended; the values are what reports carry."""

    PASS = "pass"  # noqa: S105  # a word, no secret
    FAIL = "fail"
    REGRESSION = "regression"
    INCONCLUSIVE = "inconclusive"
    INFRA = "infra"
    WRONG_CHECK = "wrong_check"
    SKIP = "skip"


@dataclass(frozen=True)
class Figure:
    """A number that was compared with a budget, as a check of one capture measured it.

    `name` is its name in a sentence, `fact` its key among the verdict's facts, `shown` how it is written. The limit
    is an upper one, or with `at_least` a lower one. Over several captures the median is judged; a figure that must
    hold in `every` one by its worst. `rank` is where it was measured, "" for no rank.
    """

    name: str
    fact: str
    value: float
    limit: float
    shown: Callable[[float], str]
    at_least: bool = False
    every: bool = False
    rank: str = ""

    @property
    def missed(self) -> bool:
        """Whether the budget is missed."""
        return self.value < self.limit if self.at_least else self.value > self.limit

    @property
    def excess(self) -> float:
        """How far beyond the limit, as a share of it."""
        beyond = self.limit - self.value if self.at_least else self.value - self.limit
        return beyond / self.limit if self.limit else beyond

    @property
    def number(self) -> int | float:
        """The value as machines get it: whole where the limit is."""
        return round(self.value) if isinstance(self.limit, int) else round(self.value, 4)

    @property
    def text(self) -> str:
        """``decode p50 is 9.8 ms, over the budget of 9.5 ms by 3.2 %``."""
        is_ = f"{self.name} is {self.shown(self.value)}"
        if not self.missed:
            return f"{is_}, within the budget of {self.shown(self.limit)}"
        amount = f" by {self.excess * 100:.1f} %" if self.limit else ""
        return f"{is_}, {'under' if self.at_least else 'over'} the budget of {self.shown(self.limit)}{amount}"


@dataclass(frozen=True)
class Verdict:
    """One judgement.

    `check` says what was asked, `sentence` what was found (a whole sentence), `lines` the evidence,
    `notes` what weakens the verdict ("unproven: ..."), `facts` flat numbers for machines, `figures` what was compared
    with a budget.
    """

    check: str
    outcome: Outcome
    sentence: str
    lines: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    facts: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    figures: tuple[Figure, ...] = ()

    @property
    def text(self) -> str:
        """The sentence and the evidence, as a failing test shows them."""
        return "\n".join([self.sentence, *self.lines])

    def as_dict(self) -> dict[str, object]:
        """Builtin types only."""
        return {
            "check": self.check,
            "outcome": self.outcome.value,
            "sentence": self.sentence,
            "lines": list(self.lines),
            "notes": list(self.notes),
            "facts": dict(self.facts),
        }


Recorder = Callable[[Verdict], None]


def share_text(share: float) -> str:
    """``93.2 %``."""
    return f"{share * 100:.1f} %"
