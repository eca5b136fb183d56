"""One reading of one document by the typed decoder.

The technique: cut the text at its last textual event boundary, decode `[` + whole events + `]` with typed structs.
A successful decode proves that the cut was a true boundary (the decoder starts at depth one outside strings and must
end there), so the cheap cut needs no trust. On failure earlier boundaries are tried, then the exact walk, then a
longer block. Memory is bounded by the columns and the largest single event.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import msgspec
import numpy as np

from pytest_atomtrace.trace.document import Document, NeedExactTimes
from pytest_atomtrace.trace.events import EXACT_LIMIT_US, Columns, decode_loose, decoder
from pytest_atomtrace.trace.inflate import PIECE_BYTES
from pytest_atomtrace.trace.jsontext import last_boundary, scan_events
from pytest_atomtrace.trace.rankevents import EventTable, RankEvents

if TYPE_CHECKING:
    from array import array
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from pytest_atomtrace.trace.events import Table

__all__ = ["TextPass"]

_I64: TypeAlias = "NDArray[np.int64]"
_EARLIER_CUTS = 2
_PART = 1 << 16
_CLOSE, _COMMA = b"],"
_IN_GAP = "there is text between the last event and the array's end"


class TextPass(Document):
    """One reading by the typed decoder, or of one of `of` shares of the blocks."""

    def __init__(
        self, source: Iterator[bytes], path: str, rank: str, columns: Columns, *, share: int = 0, of: int = 1
    ) -> None:
        super().__init__(source, path, rank, detail=columns.decoder.detail)
        self.columns = columns
        self.share = share
        self.of = of
        self.cuts: list[int] = []

    @classmethod
    def beside(cls, document: Document, *, exact: bool) -> TextPass:
        """One that goes on where another reading stands."""
        columns = Columns(decoder(exact=exact, detail=document.detail))
        new = cls(document.source, document.path, document.rank, columns)
        new.text, new.offset, new.ended = document.text, document.offset, document.ended
        return new

    def _array(self) -> None:
        while not self.block():
            pass

    def block(self) -> bool:
        """Take some events; True if that passed the end of the array."""
        start = self.offset
        while self.offset == start:
            # Read before the attempt: an attempt may itself reach the end, and then deserves another.
            ended = self.ended
            if self._walk() if ended else self._events():
                return True
            if ended:
                raise self._truncated()
            if self.offset == start and not self.ended:
                self._more()
        return False

    def result(self) -> RankEvents:
        """What was taken so far."""
        return self._result({})

    def _result(self, meta: dict[str, object]) -> RankEvents:
        columns = self.columns
        return RankEvents(
            names=tuple(columns.names),
            threads=tuple(columns.threads),
            gpu=self._table(columns.gpu),
            calls=self._table(columns.calls),
            ops=self._table(columns.ops),
            notes=self._table(columns.notes),
            gpu_notes=self._table(columns.gpu_notes),
            meta=meta,
            event_count=columns.count,
            odd_times=columns.odd_times,
            text_bytes=self.offset,
            cuts=self.cuts if self.of > 1 else [],
        )

    def _events(self) -> bool:
        """Take what the text holds of the array; True once its closing bracket is passed."""
        cut = len(self.text)
        # Share 0 is the caller's, who is at work while the others still start: it takes one block in nine more.
        mine = len(self.cuts) % (4 * self.of + 1) % self.of == self.share
        for _ in range(1 + _EARLIER_CUTS):
            cut = last_boundary(self.text, cut)
            if not cut:
                break
            comma = self.text.index(b",", cut)
            self.text[comma] = _CLOSE
            if mine and not self._proven(memoryview(self.text)[: comma + 1]):
                self.text[comma] = _COMMA
                continue
            self._drop(comma + 1)
            self.cuts.append(self.offset)
            return False
        return self._walk()

    def _proven(self, block: memoryview) -> bool:
        """Take a block; False if it is no JSON, so not cut at an event's end."""
        try:
            self.columns.take(block)
        except (msgspec.ValidationError, UnicodeDecodeError):
            # Types that do not fit prove nothing about the cut, the loose decoder does.
            try:
                self.columns.take_loose(decode_loose(bytes(block), exact=self.columns.decoder.exact))
            except (ValueError, TypeError):
                return False
        except msgspec.DecodeError:
            return False
        return True

    def _walk(self) -> bool:
        text = bytes(self.text[1:])
        scan = scan_events(text)
        if scan.cut and not self.share:
            self._take_block(text[: scan.cut])
        if scan.stray >= 0:
            self._malformed("a brace closes nothing", scan.stray)
        if scan.array_end >= 0:
            self._check_gap(text, scan.cut, scan.array_end)
            self._drop(scan.array_end + 2)
            return True
        if scan.cut:
            self.cuts.append(self.offset)
            self._drop(scan.cut + 1)
            self._skip_comma()
        elif len(text) >= PIECE_BYTES:
            # An event larger than the text at hand: take twice as much, or copying grows quadratic.
            self._more(at_least=len(text))
        return False

    def _skip_comma(self) -> None:
        rest = self._ahead(1)
        if rest.startswith(b"]"):
            return
        if not rest.startswith(b","):
            self._malformed("an event is followed by neither a comma nor the array's end", 0)
        comma = len(self.text) - len(rest)
        if self._ahead(comma + 1).startswith(b"]"):
            self._malformed(_IN_GAP, comma - 1)
        self._drop(comma + 1)

    def _ahead(self, place: int) -> bytearray:
        """Text from `place` on, not empty and without blanks before it."""
        while not (rest := self.text[place:].lstrip()):
            if self.ended:
                raise self._truncated()
            self._more()
        return rest

    def _check_gap(self, text: bytes, start: int, end: int) -> None:
        gap = text[start:end].lstrip()
        if gap:
            self._malformed(_IN_GAP, end - len(gap))

    def _take_block(self, block: bytes) -> None:
        wrapped = b"[" + block + b"]"
        try:
            self.columns.take(wrapped)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            self._take_loose(wrapped)

    def _take_loose(self, wrapped: bytes) -> None:
        try:
            rows = decode_loose(wrapped, exact=self.columns.decoder.exact)
        except (ValueError, TypeError) as error:
            problem = f"an event is no JSON: {getattr(error, 'msg', error)}"
            self._malformed(problem, getattr(error, "pos", 1) - 1)
        self.columns.take_loose(rows)

    def _table(self, table: Table) -> EventTable:
        count = len(table)
        start, dur = self._ns(table.start), self._ns(table.dur)
        return EventTable(
            name_id=np.frombuffer(table.name, np.int32) if count else np.empty(0, np.int32),
            start_ns=start,
            dur_ns=np.maximum(dur, 0),
            where=np.frombuffer(table.where, np.int32) if count else np.empty(0, np.int32),
            link=np.frombuffer(table.link, np.int64) if table.link else np.full(count, -1, np.int64),
            extra=np.frombuffer(table.extra, table.extra.typecode) if table.extra else np.full(count, -1, np.int8),
        )

    def _ns(self, column: array[float]) -> _I64:
        if not column:
            return np.empty(0, np.int64)
        if self.columns.decoder.exact:
            return np.frombuffer(column, np.int64)
        us = np.frombuffer(column, np.float64)
        if us.max() >= EXACT_LIMIT_US or us.min() <= -EXACT_LIMIT_US:
            raise NeedExactTimes
        ns = us.view(np.int64)
        # In place and by parts: two more columns of temporaries would be the peak of the whole reading.
        for low in range(0, len(us), _PART):
            part = us[low : low + _PART]
            whole = np.floor(part)
            fraction = np.rint((part - whole) * 1000).astype(np.int64)
            ns[low : low + _PART] = whole.astype(np.int64) * 1000 + fraction
        return ns
