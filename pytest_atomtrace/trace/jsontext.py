"""Finding events in JSON text that arrives in pieces, without decoding it.

The cheap search (`last_boundary`) may be fooled by braces inside names or nested arrays; whoever uses it must
prove the cut by decoding. The exact search (`scan_events`) walks strings and brackets and cannot be fooled,
at some ten times the cost; it is for text on which the cheap one failed and for both ends of the document.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["Scan", "find_events", "last_boundary", "scan_events"]

# The closing quote is a group: a string cut off by the end of the text has none, even if it ends in \".
_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*("?)|[\[\]{}]', re.DOTALL)
_OPENS_ARRAY = re.compile(rb"\s*:\s*(\[)?", re.DOTALL)
_LOOK_BACK = 512


@dataclass(frozen=True)
class Scan:
    """What an exact walk found; places are -1 where there is no such thing in the text.

    `cut` is the end of the last whole event (0 if none), `array_end` the bracket that closes the events,
    `stray` a brace that closes nothing.
    """

    cut: int
    array_end: int = -1
    stray: int = -1


def last_boundary(text: bytes | bytearray, end: int) -> int:
    """End of the last event (just past its `}`) that seems to be followed by another event, before `end`.

    Looks for `}` `,` `{` with any white space between. 0 if there is none.
    """
    place = end
    while True:
        place = text.rfind(b"{", 0, place)
        if place <= 0:
            return 0
        low = max(0, place - _LOOK_BACK)
        before = text[low:place].rstrip()
        if before.endswith(b","):
            before = before[:-1].rstrip()
            if before.endswith(b"}"):
                return low + len(before)


def scan_events(text: bytes) -> Scan:
    """Walk `text`, which starts between two events of an array, event by event."""
    depth = 0
    cut = 0
    for match in _TOKEN.finditer(text):
        token = text[match.start()]
        if token == 0x22:
            if not match[1]:
                break
        elif token in b"{[":
            depth += 1
        elif depth:
            depth -= 1
            if not depth:
                cut = match.end()
        else:
            return Scan(cut, array_end=match.start()) if token == 0x5D else Scan(cut, stray=match.start())
    return Scan(cut)


def find_events(text: bytes) -> int | None:
    """Place just past the `[` of the top level `traceEvents` array.

    None if `text` does not reach it; -1 if the document has no such array (it ended, or `traceEvents` is no
    array). A document that is itself an array of events, Chrome's other format, counts as its own.
    """
    depth = 0
    start = 3 if text.startswith(b"\xef\xbb\xbf") else 0
    for match in _TOKEN.finditer(text, start):
        token = text[match.start()]
        if token == 0x22:
            if not match[1]:
                return None
            if depth == 1 and match[0] == b'"traceEvents"':
                follow = _OPENS_ARRAY.match(text, match.end())
                if follow is not None and follow[1]:
                    return follow.end()
                rest = text[match.end() :].lstrip()
                if not rest or (rest.startswith(b":") and not rest[1:].lstrip()):
                    return None
                if rest.startswith(b":"):
                    return -1
        elif token in b"{[":
            if not depth and token == 0x5B:
                return match.end()
            depth += 1
        else:
            depth -= 1
            if depth <= 0:
                return -1
    return None
