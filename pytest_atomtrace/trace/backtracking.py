r"""Regular expressions that may take for ever: refused by their shape, before any name is tried.

Python's `re` tries every way to split a text among nested repeats: ``(a+)+$`` needs minutes for 30 letters, and it
cannot be interrupted. Names of kernels have thousands of characters, so a limit on one example would only put the
wait off to the trace. What is refused is one shape, a repeat around something of varying length, unless a character
that the varying part cannot hold parts the turns: ``(?:\w+::)*`` and ``(?:_\d+)*`` have one way to match.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

__all__ = ["nested_repeat"]

# (\d+x){2}\d+ names a tile and is cheap; ways multiply with every further turn.
_FEW: Final = 4
_GROUP: Final = re.compile(r"\((?:\?(?:P?<[=!]|P?<\w+>|P=\w+|\(\w+\)|#[^)]*|[=!>:]|[a-zA-Z-]+:?))?")
_ATOM: Final = re.compile(r"\\(?:x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|.)|\[\^?\]?(?:\\.|[^\]\\])*\]|.", re.DOTALL)
_REPEAT: Final = re.compile(r"(?:([*+?])|\{(\d*)(?:(,)(\d*))?\})[?+]?")
_LITERAL: Final = re.compile(r"[^.^$|()\[\]\\]", re.DOTALL)


@dataclass
class _Group:
    """An open group: how many turns of something varying it holds, and what its alternatives begin with."""

    start: int
    turns: int = 0
    heads: list[str] = field(default_factory=list)
    fresh: bool = True

    def begin(self, atom: str) -> None:
        """Note the first atom of an alternative."""
        if self.fresh:
            self.heads.append(atom)
            self.fresh = False

    @property
    def varying(self) -> int:
        """`turns`, where alternatives that may begin alike count as one."""
        told_apart = len(set(self.heads)) == len(self.heads) and all(map(_LITERAL.fullmatch, self.heads))
        return max(self.turns, int(len(self.heads) > 1 and not told_apart))


def nested_repeat(expression: str) -> str:
    """The first part of `expression` that repeats something of varying length, "" if none does."""
    stack = [_Group(0)]
    at = 0
    while at < len(expression):
        char = expression[at]
        start, inside, atom = at, 0, ""
        if char == "(":
            opened = _GROUP.match(expression, at)
            assert opened is not None
            stack[-1].begin("")
            stack.append(_Group(at))
            at = opened.end()
            continue
        if char == "|":
            stack[-1].fresh = True
            at += 1
            continue
        if char == ")" and len(stack) > 1:
            group = stack.pop()
            start, inside = group.start, group.varying
            at += 1
        else:
            matched = _ATOM.match(expression, at)
            assert matched is not None
            atom, at = matched[0], matched.end()
            # What may be left out tells no turns apart: (x?a+)*.
            stack[-1].begin("" if _REPEAT.match(expression, at) else atom)
        at, turns = _repeated(expression, at, inside, atom, stack[-1].heads)
        if turns > _FEW:
            return expression[start:at]
        stack[-1].turns = max(stack[-1].turns, turns)
    return ""


def _repeated(expression: str, at: int, inside: int, atom: str, heads: list[str]) -> tuple[int, int]:
    """Where what follows the atom or group goes on, and how many varying turns it makes.

    `heads` are what the alternatives around it begin with: at a group's end the next turn follows.
    """
    repeat = _REPEAT.match(expression, at)
    if repeat is None or repeat[0].startswith("{}") or repeat[0].startswith("{,}"):
        return at, inside
    least, most = _bounds(repeat)
    end = repeat.end()
    if inside:
        return end, inside * min(most, _FEW + 1)
    following = expression[end : end + 2]
    if following[:1] == ")" and len(heads) == 1 and heads[0] != atom:
        following = heads[0]
    if least == most or (atom and _ends(atom, following[:1], following[1:])):
        return end, 0
    return end, 1


def _bounds(repeat: re.Match[str]) -> tuple[int, int]:
    many = _FEW + 1
    if repeat[1]:
        return {"*": (0, many), "+": (1, many), "?": (0, 1)}[repeat[1]]
    least = int(repeat[2] or 0)
    return least, (least if repeat[3] is None else int(repeat[4]) if repeat[4] else max(least, many) + 1)


def _ends(atom: str, following: str, after: str) -> bool:
    """Whether `following` is a plain character, there in every turn, that ends the repeat of `atom`."""
    if not following or (after and after in "*?{") or not _LITERAL.fullmatch(following):
        return False
    try:
        return re.fullmatch(atom, following, re.DOTALL | re.IGNORECASE) is None
    except re.error:
        return False
