"""What a command hands back: an exit code, a document for machines, lines for people."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from pytest_atomtrace.cli.screen import Screen

__all__ = ["Answer"]


@dataclass(frozen=True)
class Answer:
    """`record` has stable keys and builtin types; `lines` makes (style, text) pairs for a width.

    `then` is what is left to do once the answer is written; it gives the exit code.
    """

    code: int
    record: Mapping[str, object]
    lines: Callable[[int], Iterable[tuple[str, str]]]
    then: Callable[[Screen], int] | None = None
