"""A trace document as text in three parts: what comes before its events, the raw events, what comes after.

For copying events as they were written. The cuts are those of the reader (`jsontext`): a cheap one that is proven by
decoding the block, an exact walk where that fails. Memory is bounded by the piece and the largest single event.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import msgspec

from pytest_atomtrace.trace.document import DocumentText, is_bare_array
from pytest_atomtrace.trace.inflate import PIECE_BYTES, pieces
from pytest_atomtrace.trace.jsontext import last_boundary, scan_events

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["EventText"]

_CUTS_TRIED = 3
_BLANK = b" \t\r\n"
_BLANKS = re.compile(r"[ \t\r\n]*")
_raw = msgspec.json.Decoder(list[msgspec.Raw]).decode


class EventText(DocumentText):
    """One pass over a file: `head` at once, `blocks` in order, `tail` after the last block.

    `head` ends with the bracket that opens the events, `tail` begins behind the one that closes them; together they
    are a valid document. Raises EmptyTraceError, TruncatedTraceError or MalformedTraceError with file, rank and place.
    """

    def __init__(self, path: Path, *, rank: str = "", piece_bytes: int = PIECE_BYTES) -> None:
        super().__init__(pieces(path, rank=rank, piece_bytes=piece_bytes), str(path), rank)
        self._closed = False
        self._comma_due = False
        self.tail = b""
        self.head = self._head()

    @property
    def is_array(self) -> bool:
        """True for Chrome's other format, a bare array of events."""
        return is_bare_array(self.head)

    def blocks(self) -> Iterator[list[bytes]]:
        """Yield the events of one block after another, each as the text that stands in the file."""
        while not self._closed:
            # Read before the attempt: an attempt may itself reach the end, and then deserves another.
            ended = self.ended
            events = self._next(quick=not ended)
            if events:
                yield events
            elif not self._closed:
                if ended:
                    raise self._truncated()
                # Twice as much for an event that does not fit, or copying would grow quadratic.
                self._more(at_least=len(self.text) if len(self.text) >= PIECE_BYTES else 1)
        self.tail, _ = self._tail(self.head)

    def _next(self, *, quick: bool) -> list[bytes]:
        """The next whole events; none if more text is needed or the array's end was passed (`_closed`)."""
        pending = bytes(memoryview(self.text)[1:])
        if self._comma_due:
            rest = pending.lstrip(_BLANK)
            blanks = len(pending) - len(rest)
            if not rest:
                return []
            if rest.startswith(b","):
                self._drop(1 + blanks + 1)
                pending = rest[1:]
            elif not rest.startswith(b"]"):
                self._malformed("an event is followed by neither a comma nor the array's end", blanks)
            self._comma_due = False
        cut = len(pending)
        for _ in range(_CUTS_TRIED if quick else 0):
            cut = last_boundary(pending, cut)
            if not cut:
                break
            try:
                events = _raw(b"[" + pending[:cut] + b"]")
            except msgspec.MsgspecError:
                continue
            return self._taken(cut, [bytes(event) for event in events])
        return self._walked(pending)

    def _taken(self, cut: int, events: list[bytes]) -> list[bytes]:
        self._drop(1 + cut)
        self._comma_due = True
        return events

    def _walked(self, pending: bytes) -> list[bytes]:
        scan = scan_events(pending)
        if scan.stray >= 0:
            self._malformed("a brace closes nothing", scan.stray)
        if scan.array_end >= 0 and pending[scan.cut : scan.array_end].strip(_BLANK):
            self._malformed("there is text between the last event and the array's end", scan.cut)
        events = self._split(pending[: scan.cut])
        if scan.array_end >= 0:
            self._closed = True
            self._drop(1 + scan.array_end + 1)
            return events
        return self._taken(scan.cut, events) if scan.cut else []

    def _split(self, block: bytes) -> list[bytes]:
        if not block.strip(_BLANK):
            return []
        try:
            return [bytes(event) for event in _raw(b"[" + block + b"]")]
        except msgspec.MsgspecError:
            pass
        # NaN, Infinity or control characters: Python's own decoder reads them, event by event.
        text = block.decode("utf-8", "surrogateescape")
        decode = json.JSONDecoder(strict=False).raw_decode
        events: list[bytes] = []
        place = _past_blanks(text, 0)
        while place < len(text):
            if events:
                if text[place] != ",":
                    self._malformed("an event is followed by neither a comma nor the array's end", place)
                place = _past_blanks(text, place + 1)
            try:
                _, end = decode(text, place)
            except (ValueError, RecursionError) as error:
                self._malformed(f"an event is no JSON: {getattr(error, 'msg', error)}", getattr(error, "pos", place))
            events.append(text[place:end].encode("utf-8", "surrogateescape"))
            place = _past_blanks(text, end)
        return events


def _past_blanks(text: str, place: int) -> int:
    match = _BLANKS.match(text, place)
    return match.end() if match is not None else place
