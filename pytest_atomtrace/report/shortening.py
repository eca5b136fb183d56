"""Shortening the texts of one table together, so that different ones stay different."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["shortened"]

_ELLIPSIS = "…"
_WHOLE = 1 << 30
# Tuned kernels differ in numbers such as 64x128; a longer word is no token worth showing from its start.
_LONGEST_TOKEN = 12


def shortened(texts: Sequence[str], width: int, shorten: Callable[[str, int], str]) -> list[str]:
    """Each text by `shorten` in at most `width` characters (8 or more), but for those that would then look alike.

    Tuned kernels share long prefixes and differ in a tile or in template arguments: of such ones the place where
    they part is shown, and what can still not be told apart is numbered. Equal texts stay equal.
    """
    shown = {text: shorten(text, width) for text in texts}
    alike: dict[str, list[str]] = {}
    for text, short in shown.items():
        alike.setdefault(short, []).append(text)
    used = {short for short, group in alike.items() if len(group) == 1}
    for group in alike.values():
        if len(group) == 1:
            continue
        whole = [shorten(text, _WHOLE) for text in group]
        # Equal even when whole: `shorten` left out what differs, such as template arguments.
        parts = group if len(set(whole)) < len(group) else whole
        for text, short in zip(group, _apart(parts, whole, width), strict=True):
            shown[text] = _unused(short, used, width)
            used.add(shown[text])
    return [shown[text] for text in texts]


def _apart(parts: Sequence[str], heads: Sequence[str], width: int) -> list[str]:
    """Start of each head, then each part from where they differ; recurses into those that differ further behind."""
    differ = _common_start(parts)
    room = (width - 1) // 2
    start = _token_start(parts[0], differ, min(_LONGEST_TOKEN, room // 2))
    end = max(_token_end(part, len(part) - _common_ending(parts, differ)) for part in parts)
    if heads == parts and end < width:
        shown = [_cut(part, width) for part in parts]
    else:
        tails = [_cut(part[start:], max(room, min(end - start, width * 2 // 3))) for part in parts]
        longest = max(map(len, tails))
        shown = [f"{head[: width - 1 - longest]}{_ELLIPSIS}{tail}" for head, tail in zip(heads, tails, strict=True)]
    again: dict[str, list[int]] = {}
    for place, short in enumerate(shown):
        again.setdefault(short, []).append(place)
    for places in again.values():
        mine = [parts[place] for place in places]
        if len(places) > 1 and _common_start(mine) > differ:
            # Others may differ from these here, and further behind as these do.
            token = mine[0][start : min(start + _LONGEST_TOKEN, _token_end(mine[0], differ))]
            lead = f"{heads[places[0]][: width // 4]}{_ELLIPSIS}{token}"
            for place, short in zip(places, _apart(mine, [lead] * len(mine), width), strict=True):
                shown[place] = short
    return shown


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + _ELLIPSIS


def _token_start(text: str, place: int, most: int) -> int:
    """Where the word or number begins that `place` lies in, at most `most` characters before it."""
    start = place
    while start and place - start < most and text[start - 1].isalnum():
        start -= 1
    return start


def _token_end(text: str, place: int) -> int:
    while place < len(text) and text[place].isalnum():
        place += 1
    return place


def _common_start(texts: Sequence[str]) -> int:
    """Length of what all texts begin with; of sorted ones the first and the last differ soonest."""
    low, high = min(texts), max(texts)
    return next((place for place, char in enumerate(low) if char != high[place]), len(low))


def _common_ending(parts: Sequence[str], differ: int) -> int:
    """Length of what all parts end with, behind the first difference."""
    return _common_start([part[differ:][::-1] for part in parts])


def _unused(text: str, used: set[str], width: int) -> str:
    number = 2
    free = text
    while free in used:
        mark = f"~{number}"
        free = text[: width - len(mark)] + mark
        number += 1
    return free
