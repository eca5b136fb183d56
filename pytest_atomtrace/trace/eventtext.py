"""A trace document as text in three parts: what comes before its events, the raw events, what comes after.

For copying events as they were written. The cuts are those of the reader (`jsontext`): a cheap one that is proven by
decoding the block, an exact walk where that fails. Memory is bounded by the piece and the largest single event.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, NoReturn

import msgspec

from pytest_atomtrace.errors import EmptyTraceError, MalformedTraceError, TruncatedTraceError
from pytest_atomtrace.trace.inflate import PIECE_BYTES, pieces
from pytest_atomtrace.trace.jsontext import find_events, last_boundary, scan_events

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["EventText"]

_CUTS_TRIED = 3
_BLANK = b" \t\r\n"
_BLANKS = re.compile(r"[ \t\r\n]*")
_BOM = b"\xef\xbb\xbf"
_raw = msgspec.json.Decoder(list[msgspec.Raw]).decode


class EventText:
    """One pass over a file: `head` at once, `blocks` in order, `tail` after the last block.

    `head` ends with the bracket that opens the events, `tail` begins behind the one that closes them; together they
    are a valid document. Raises EmptyTraceError, TruncatedTraceError or MalformedTraceError with file, rank and place.
    """

    def __init__(self, path: Path, *, rank: str = "", piece_bytes: int = PIECE_BYTES) -> None:
        self._source = pieces(path, rank=rank, piece_bytes=piece_bytes)
        self._path = str(path)
        self._rank = rank
        self._text = b""
        self._offset = 0
        self._ended = False
        self._closed = False
        self._comma_due = False
        self.tail = b""
        self.head = self._read_head()

    @property
    def is_array(self) -> bool:
        """True for Chrome's other format, a bare array of events."""
        return self.head.removeprefix(_BOM).lstrip(_BLANK).startswith(b"[")

    def blocks(self) -> Iterator[list[bytes]]:
        """Yield the events of one block after another, each as the text that stands in the file."""
        while not self._closed:
            # Read before the attempt: an attempt may itself reach the end, and then deserves another.
            ended = self._ended
            events = self._next(quick=not ended)
            if events:
                yield events
            elif not self._closed:
                if ended:
                    raise self._truncated()
                # Twice as much for an event that does not fit, or copying would grow quadratic.
                self._more(len(self._text) if len(self._text) >= PIECE_BYTES else 1)
        self.tail = b"".join((self._text, *self._source))
        self._check_document()

    def _more(self, at_least: int) -> None:
        parts, got = [self._text], 0
        while got < at_least:
            piece = next(self._source, None)
            if piece is None:
                self._ended = True
                break
            parts.append(piece)
            got += len(piece)
        self._text = b"".join(parts)

    def _drop(self, count: int) -> None:
        self._offset += count
        self._text = self._text[count:]

    def _read_head(self) -> bytes:
        while not self._text.strip(_BLANK) and not self._ended:
            self._more(1)
        first = self._text.removeprefix(_BOM).lstrip(_BLANK)[:1]
        if not first:
            raise EmptyTraceError(self._path, "the file holds no text", self._rank)
        if first not in (b"{", b"["):
            raise MalformedTraceError(self._path, f"is not JSON: it starts with {first!r}", self._rank, 0)
        while (place := find_events(self._text)) is None:
            if self._ended:
                raise self._truncated()
            self._more(len(self._text))
        if place < 0:
            problem = "is JSON without a traceEvents array, so no kineto trace"
            raise MalformedTraceError(self._path, problem, self._rank)
        head = self._text[:place]
        self._drop(place)
        return head

    def _next(self, *, quick: bool) -> list[bytes]:
        """The next whole events; none if more text is needed or the array's end was passed (`_closed`)."""
        self._drop(len(self._text) - len(self._text.lstrip(_BLANK)))
        if self._comma_due:
            if not self._text:
                return []
            if self._text.startswith(b","):
                self._drop(1)
            elif not self._text.startswith(b"]"):
                self._malformed("an event is followed by neither a comma nor the array's end", 0)
            self._comma_due = False
        cut = len(self._text)
        for _ in range(_CUTS_TRIED if quick else 0):
            cut = last_boundary(self._text, cut)
            if not cut:
                break
            try:
                events = _raw(b"[" + self._text[:cut] + b"]")
            except msgspec.MsgspecError:
                continue
            return self._taken(cut, [bytes(event) for event in events])
        return self._walked()

    def _taken(self, cut: int, events: list[bytes]) -> list[bytes]:
        self._drop(cut)
        self._comma_due = True
        return events

    def _walked(self) -> list[bytes]:
        scan = scan_events(self._text)
        if scan.stray >= 0:
            self._malformed("a brace closes nothing", scan.stray)
        if scan.array_end >= 0 and self._text[scan.cut : scan.array_end].strip(_BLANK):
            self._malformed("there is text between the last event and the array's end", scan.cut)
        events = self._split(self._text[: scan.cut])
        if scan.array_end >= 0:
            self._closed = True
            self._drop(scan.array_end + 1)
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

    def _check_document(self) -> None:
        if self.is_array:
            if self.tail.strip(_BLANK):
                self._malformed("text follows the document's end", 0)
            return
        document = self.head.removeprefix(_BOM) + b"]" + self.tail
        try:
            json.loads(document.decode("utf-8", "replace"), strict=False)
        except RecursionError:
            self._malformed("values are nested too deeply", 0)
        except json.JSONDecodeError as error:
            if not document[error.pos :].strip() or error.msg.startswith("Unterminated string"):
                self._offset += len(self.tail)
                raise self._truncated() from None
            self._malformed(f"is no JSON: {error.msg}", max(0, error.pos - len(self.head) - 1))

    def _truncated(self) -> TruncatedTraceError:
        place = self._offset + len(self._text)
        return TruncatedTraceError(self._path, "the JSON text ends early", self._rank, place)

    def _malformed(self, problem: str, place: int) -> NoReturn:
        raise MalformedTraceError(self._path, problem, self._rank, self._offset + place)


def _past_blanks(text: str, place: int) -> int:
    match = _BLANKS.match(text, place)
    return match.end() if match is not None else place
