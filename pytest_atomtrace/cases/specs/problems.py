"""What is wrong in a document, where, and what was probably meant."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Place", "Problem", "Problems", "meant"]


@dataclass(frozen=True, order=True)
class Place:
    """A position in a text, both counted from 1, as editors show them."""

    line: int = 1
    column: int = 1


@dataclass(frozen=True, order=True)
class Problem:
    """One mistake; `path` is the place in the document (``kernels[1].per_step``), "" for the whole of it."""

    place: Place
    path: str
    text: str

    def __str__(self) -> str:
        return f"{self.path}: {self.text}" if self.path else self.text


class Problems:
    """The problems of one document; the same one at the same place is kept once."""

    def __init__(self) -> None:
        self._found: dict[Problem, None] = {}

    def add(self, place: Place, path: str, text: str) -> None:
        """Record one."""
        self._found[Problem(place, path, text)] = None

    def __bool__(self) -> bool:
        return bool(self._found)

    def __len__(self) -> int:
        return len(self._found)

    def sorted(self) -> tuple[Problem, ...]:
        """In the order of the text."""
        return tuple(sorted(self._found))


def meant(word: str, known: Iterable[str]) -> str:
    """`` (did you mean 'conc'?)``, or the whole list if nothing is near."""
    words = list(known)
    close = difflib.get_close_matches(word, words, n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else f" (known: {', '.join(words)})"
