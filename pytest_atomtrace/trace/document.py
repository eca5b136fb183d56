"""The text of one trace document as it arrives: what comes before its events, and what after."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NoReturn

from pytest_atomtrace.errors import EmptyTraceError, MalformedTraceError, TruncatedTraceError
from pytest_atomtrace.trace.jsontext import find_events
from pytest_atomtrace.trace.rankevents import number_by_use

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_atomtrace.trace.rankevents import RankEvents

__all__ = ["Document", "DocumentText", "NeedExactTimes", "is_bare_array"]

_BOM = b"\xef\xbb\xbf"
_BLANK = b" \t\r\n"


class NeedExactTimes(Exception):  # noqa: N818  (a request to start again, not an error)
    """The trace's times need decimal arithmetic; read it again with `exact`."""


class DocumentText:
    """One document as it arrives; subclasses take the events.

    Inside the events `text` is `[` and what is pending, so that a block can be decoded in place: its comma
    becomes `]` and nothing is copied. `offset` is where the pending part starts in the document.
    """

    def __init__(self, source: Iterator[bytes], path: str, rank: str) -> None:
        self.source = source
        self.path = path
        self.rank = rank
        self.text = bytearray(b"[")
        self.offset = 0
        self.ended = False

    def _more(self, *, at_least: int = 1) -> None:
        """Append text: one piece, or as many as double an event that does not fit; note the end."""
        parts: list[bytes | bytearray] = [self.text]
        got = 0
        while got < at_least:
            piece = next(self.source, None)
            if piece is None:
                self.ended = True
                break
            parts.append(piece)
            got += len(piece)
        self.text = bytearray().join(parts)

    def _truncated(self) -> TruncatedTraceError:
        place = self.offset + len(self.text) - 1
        return TruncatedTraceError(self.path, "the JSON text ends early", self.rank, place)

    def _head(self) -> bytes:
        while not self.text[1:].strip() and not self.ended:
            self._more()
        first = bytes(self.text[1:].lstrip(_BOM + _BLANK)[:1])
        if not self.text[1:].strip():
            raise EmptyTraceError(self.path, "the file holds no text", self.rank)
        if first not in (b"{", b"["):
            raise MalformedTraceError(self.path, f"is not JSON: it starts with {first!r}", self.rank, 0)
        while (place := find_events(bytes(self.text[1:]))) is None:
            if self.ended:
                raise self._truncated()
            self._more(at_least=len(self.text))
        if place < 0:
            problem = "is JSON without a traceEvents array, so no kineto trace"
            raise MalformedTraceError(self.path, problem, self.rank)
        head = bytes(self.text[1 : 1 + place])
        self._drop(1 + place)
        return head

    def _drop(self, count: int) -> None:
        """Forget the first `count` bytes of `text`, its leading bracket counted, and put a new one."""
        self.offset += count - 1
        self.text = bytearray().join((b"[", memoryview(self.text)[count:]))

    def _malformed(self, problem: str, place: int) -> NoReturn:
        raise MalformedTraceError(self.path, problem, self.rank, self.offset + max(place, 0))

    def _tail(self, head: bytes) -> tuple[bytes, dict[str, object]]:
        """The text behind the events, and what the document says beside them; `head` is its beginning."""
        tail = b"".join((memoryview(self.text)[1:], *self.source))
        start = self.offset
        self.offset += len(tail)
        if is_bare_array(head):
            if tail.strip():
                raise MalformedTraceError(self.path, "text follows the document's end", self.rank, start)
            return tail, {}
        document = head.removeprefix(_BOM) + b"]" + tail
        try:
            meta = json.loads(document.decode("utf-8", "replace"), strict=False)
        except RecursionError:
            raise MalformedTraceError(self.path, "values are nested too deeply", self.rank, start) from None
        except json.JSONDecodeError as error:
            place = max(start, start + error.pos - len(head) - 1)
            if not document[error.pos :].strip() or error.msg.startswith("Unterminated string"):
                raise TruncatedTraceError(self.path, "the JSON text ends early", self.rank, self.offset) from error
            raise MalformedTraceError(self.path, f"is no JSON: {error.msg}", self.rank, place) from error
        del meta["traceEvents"]
        return tail, dict(meta)


class Document(DocumentText):
    """One reading of one document into tables."""

    def __init__(self, source: Iterator[bytes], path: str, rank: str, *, detail: bool) -> None:
        super().__init__(source, path, rank)
        self.detail = detail

    def run(self, *, part: bool = False) -> RankEvents:
        """Read to the end; no events are an error unless only a part of them is read.

        Raises NeedExactTimes, or TraceFileError and its kin.
        """
        head = self._head()
        self._array()
        _, meta = self._tail(head)
        events = self._result(meta)
        if not events.event_count and not part:
            raise EmptyTraceError(self.path, "the trace has no events", self.rank)
        return number_by_use(events, detail=self.detail)

    def _array(self) -> None:
        """Take all events; `text` is left behind the array's bracket."""
        raise NotImplementedError

    def _result(self, meta: dict[str, object]) -> RankEvents:
        raise NotImplementedError


def is_bare_array(head: bytes) -> bool:
    """True for Chrome's other format: a bare array of events."""
    return head.lstrip(_BOM + _BLANK).startswith(b"[")
