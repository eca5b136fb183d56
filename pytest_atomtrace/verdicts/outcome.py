"""What became of a check."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum

__all__ = ["Outcome", "Recorder", "Verdict"]


class Outcome(str, Enum):
    """How a check or an item ended; the values are what reports carry."""

    PASS = "pass"  # noqa: S105  # a word, no secret
    FAIL = "fail"
    REGRESSION = "regression"
    INCONCLUSIVE = "inconclusive"
    INFRA = "infra"
    SKIP = "skip"


@dataclass(frozen=True)
class Verdict:
    """One judgement.

    `check` says what was asked, `sentence` what was found (a whole sentence), `lines` the evidence,
    `notes` what weakens the verdict ("unproven: ..."), `facts` flat numbers for machines.
    """

    check: str
    outcome: Outcome
    sentence: str
    lines: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    facts: Mapping[str, str | int | float | bool] = field(default_factory=dict)

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
