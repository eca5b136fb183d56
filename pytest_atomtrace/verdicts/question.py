"""A question about one name, checked before any trace is there: a wrong one must not cost a capture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_atomtrace.errors import ConfigError
from pytest_atomtrace.trace.names import Pattern
from pytest_atomtrace.verdicts.evidence import did_you_mean, listed

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["LAYERS", "Question", "parse_pattern", "refuse_ranks"]

# In the order in which a question without a layer prefers them: GPU work first.
LAYERS = ("kernel", "op", "annotation", "memory")
_RANK_WORDS = ("all", "any", "worst")


def parse_pattern(name: object) -> Pattern:
    """Read a name pattern.

    Raises:
        ConfigError: it is empty, no text, or a broken regular expression.

    """
    if not isinstance(name, str):
        raise ConfigError(f"a name pattern is text, got {name!r}")
    try:
        return Pattern.parse(name)
    except ValueError as error:
        # Without the cause: what Python's parser of expressions did is 300 lines that help nobody.
        raise ConfigError(str(error)) from None


def refuse_ranks(ranks: object, *words: str) -> None:
    """Refuse a selection of ranks that no trace could have, or that means nothing where only `words` do.

    `words` are those of ``all``, ``any`` and ``worst`` that may stand instead of names.

    Raises:
        ConfigError: what is wrong and what to write.

    """
    several = isinstance(ranks, (list, tuple))
    named = list(ranks) if isinstance(ranks, (list, tuple)) else [ranks]
    wrong = ""
    if not named:
        wrong = "the list is empty"
    elif not all(isinstance(one, str) and one.strip() for one in named):
        number = next((one for one in named if isinstance(one, int) and not isinstance(one, bool)), None)
        wrong = "ranks are named by text" + ("" if number is None else f", as rank_{number} is")
    else:
        for word in {*_RANK_WORDS}.intersection(named):
            if word not in words:
                wrong = f"{word!r} says nothing here" + ", it must hold on every selected rank" * (word == "any")
            elif several:
                wrong = f"{word!r} stands alone"
    if wrong:
        raise ConfigError(f"ranks={ranks!r}: {wrong}; write {', '.join(words)}, a rank's name, or several")


@dataclass(frozen=True)
class Question:
    """What was asked of a name; None means "not restricted"."""

    name: str
    during: str | None = None
    layer: str | None = None
    ranks: str | Sequence[str] = "all"
    at_least: int = 1
    exactly: int | None = None
    per_step: int | None = None
    example: str | None = None

    def check(self) -> Pattern:
        """Parse the name and refuse contradictory limits.

        Raises:
            ConfigError: what is wrong and what to write.

        """
        if self.layer is not None and self.layer not in LAYERS:
            raise ConfigError(f"layer={self.layer!r} is no layer{did_you_mean(self.layer, LAYERS)}")
        if self.per_step is not None and self.exactly is not None:
            raise ConfigError("per_step and exactly exclude each other: calls in each step, or calls in all")
        exact = "per_step" if self.per_step is not None else "exactly" if self.exactly is not None else ""
        if exact and self.at_least != 1:
            # It was dropped once: 2,347 calls passed as "at least 5000" beside a per_step that held.
            raise ConfigError(
                f"at_least={self.at_least!r} says nothing beside {exact}, which is exact; write two checks, or "
                f"{exact} alone"
            )
        if self.per_step is not None and self.during is None:
            raise ConfigError('per_step needs a phase: during="decode"')
        if self.per_step is not None and self.layer not in (None, "kernel"):
            raise ConfigError(f"per_step counts GPU kernels; layer={self.layer!r} has no steps")
        refuse_ranks(self.ranks, "all", *["any"] * (self.per_step is None))
        for key in ("at_least", "exactly", "per_step"):
            value = getattr(self, key)
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
                raise ConfigError(f"{key} must be a whole number, got {value!r}")
            if value == 0:
                raise ConfigError(
                    f"{key}=0 asks for absence: say not_called (assert_kernel_not_called), with an example"
                )
        pattern = parse_pattern(self.name)
        example: object = self.example
        if example is not None and not isinstance(example, str):
            raise ConfigError(f"example is the name of a kernel, got {example!r}")
        if self.example is not None and not pattern.matches(self.example):
            raise ConfigError(
                f"the pattern {self.name!r} does not match its own example {self.example!r}: it would be absent "
                "for ever"
            )
        return pattern

    def check_absence(self) -> Pattern:
        """`check`, of a name that is to be absent.

        Raises:
            ConfigError: what is wrong and what to write.

        """
        refuse_ranks(self.ranks, "all")
        return self.check()

    @property
    def text(self) -> str:
        """The question in words, as reports list it."""
        words = [self.name]
        words += [f"during {self.during}"] * (self.during is not None)
        words += [f"as {self.layer}"] * (self.layer is not None)
        if self.per_step is not None:
            words.append(f"{self.per_step} per step")
        elif self.exactly is not None:
            words.append(f"exactly {self.exactly}")
        elif self.at_least != 1:
            words.append(f"at least {self.at_least}")
        if self.ranks != "all":
            words.append(f"on {self.ranks if isinstance(self.ranks, str) else listed(list(self.ranks))}")
        return " ".join(words)
