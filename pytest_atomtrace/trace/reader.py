"""One rank file becomes columns, in one streaming pass.

The technique: inflate by small pieces, cut each at its last textual event boundary, decode
`[` + whole events + `]` with typed structs. A successful decode proves that the cut was a true boundary (the
decoder starts at depth one outside strings and must end there), so the cheap cut needs no trust. On failure
earlier boundaries are tried, then the exact walk, then a longer block. Memory is bounded by the columns and
the largest single event.
"""

from __future__ import annotations

import gc
import json
from typing import TYPE_CHECKING, TypeAlias

import msgspec
import numpy as np

from pytest_atomtrace.errors import EmptyTraceError, MalformedTraceError, TruncatedTraceError
from pytest_atomtrace.trace.events import EXACT_LIMIT_US, Columns, NeedExactTimes, decode_loose, decoder
from pytest_atomtrace.trace.inflate import PIECE_BYTES, pieces
from pytest_atomtrace.trace.jsontext import find_events, last_boundary, scan_events
from pytest_atomtrace.trace.rankevents import EventTable, RankEvents

if TYPE_CHECKING:
    from array import array
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from pytest_atomtrace.trace.events import _Table

__all__ = ["read_rank", "read_share", "read_text"]

_I64: TypeAlias = "NDArray[np.int64]"
_EARLIER_CUTS = 2
_PART = 1 << 16
_CLOSE, _COMMA = b"],"


def read_rank(path: Path, *, rank: str = "", detail: bool = False, piece_bytes: int = PIECE_BYTES) -> RankEvents:
    """Read a kineto trace, `.json` or gzip, of any JSON layout.

    `detail` also keeps the names of launched kernels (`args.kernel`), which capture traces need. Raises
    EmptyTraceError, TruncatedTraceError, MalformedTraceError or TraceFileError with rank, file and place.
    """

    def text() -> Iterator[bytes]:
        return pieces(path, rank=rank, piece_bytes=piece_bytes)

    return _read(text, str(path), rank, detail=detail)


def read_share(path: Path, *, rank: str, share: int, of: int) -> RankEvents:
    """Read one of `of` shares of a trace's blocks; all is inflated, which is cheap.

    Blocks of other shares are cut but not decoded, so their cuts are not proven: whoever puts shares together
    must check that all of them cut alike (`merge_shares` does).
    """

    def text() -> Iterator[bytes]:
        return pieces(path, rank=rank)

    return _read(text, str(path), rank, detail=False, share=share, of=of)


def read_text(chunks: Iterable[bytes], *, name: str = "<text>", rank: str = "", detail: bool = False) -> RankEvents:
    """The same for text that is already at hand, in any division into chunks."""
    kept = list(chunks)
    return _read(lambda: iter(kept), name, rank, detail=detail)


def _read(
    source: Callable[[], Iterator[bytes]], path: str, rank: str, *, detail: bool, share: int = 0, of: int = 1
) -> RankEvents:
    was_enabled = gc.isenabled()
    # The collector walks every live object again and again while millions are made (3 times the time).
    gc.disable()
    try:
        try:
            return _Pass(source(), path, rank, Columns(decoder(detail=detail)), share, of).run()
        except NeedExactTimes:
            return _Pass(source(), path, rank, Columns(decoder(exact=True, detail=detail)), share, of).run()
    finally:
        if was_enabled:
            gc.enable()


class _Pass:
    """One reading of one document.

    Inside the events `text` is `[` and what is pending, so that a block can be decoded in place: its comma
    becomes `]` and nothing is copied. `offset` is where the pending part starts in the document.
    """

    def __init__(self, source: Iterator[bytes], path: str, rank: str, columns: Columns, share: int, of: int) -> None:
        self.source = source
        self.path = path
        self.rank = rank
        self.exact = columns.decoder.exact
        self.columns = columns
        self.share = share
        self.of = of
        self.cuts: list[int] = []
        self.text = bytearray(b"[")
        self.offset = 0
        self.ended = False

    def run(self) -> RankEvents:
        head = self._head()
        while True:
            # Read before the attempt: an attempt may itself reach the end, and then deserves another.
            ended = self.ended
            if self._walk() if ended else self._events():
                break
            if ended:
                raise self._truncated()
            if not self.ended:
                self._more()
        tail = self._tail(head)
        columns = self.columns
        if not columns.count and self.of == 1:
            raise EmptyTraceError(self.path, "the trace has no events", self.rank)
        return RankEvents(
            names=tuple(columns.names),
            threads=tuple(columns.threads),
            gpu=self._table(columns.gpu),
            calls=self._table(columns.calls),
            ops=self._table(columns.ops),
            notes=self._table(columns.notes),
            gpu_notes=self._table(columns.gpu_notes),
            meta=tail,
            event_count=columns.count,
            odd_times=columns.odd_times,
            text_bytes=self.offset,
            cuts=self.cuts if self.of > 1 else [],
        )

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
        first = bytes(self.text[1:].lstrip(b"\xef\xbb\xbf \t\r\n")[:1])
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
                self.columns.take_loose(decode_loose(bytes(block), exact=self.exact))
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
            self._check_gap(text[scan.cut : scan.array_end])
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
        while not (rest := self.text[1:].lstrip()):
            if self.ended:
                raise self._truncated()
            self._more()
        if rest.startswith(b","):
            self._drop(len(self.text) - len(rest) + 1)
        elif not rest.startswith(b"]"):
            self._malformed("an event is followed by neither a comma nor the array's end", 0)

    def _check_gap(self, gap: bytes) -> None:
        if gap.strip():
            self._malformed("there is text between the last event and the array's end", 0)

    def _take_block(self, block: bytes) -> None:
        wrapped = b"[" + block + b"]"
        try:
            self.columns.take(wrapped)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            self._take_loose(wrapped)

    def _take_loose(self, wrapped: bytes) -> None:
        try:
            rows = decode_loose(wrapped, exact=self.exact)
        except (ValueError, TypeError) as error:
            problem = f"an event is no JSON: {getattr(error, 'msg', error)}"
            self._malformed(problem, getattr(error, "pos", 1) - 1)
        self.columns.take_loose(rows)

    def _malformed(self, problem: str, place: int) -> None:
        raise MalformedTraceError(self.path, problem, self.rank, self.offset + max(place, 0))

    def _tail(self, head: bytes) -> dict[str, object]:
        tail = b"".join((memoryview(self.text)[1:], *self.source))
        start = self.offset
        self.offset += len(tail)
        if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"["):
            if tail.strip():
                raise MalformedTraceError(self.path, "text follows the document's end", self.rank, start)
            return {}
        document = head.removeprefix(b"\xef\xbb\xbf") + b"]" + tail
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
        return dict(meta)

    def _table(self, table: _Table) -> EventTable:
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
        if self.exact:
            return np.frombuffer(column, np.int64)
        us = np.frombuffer(column, np.float64)
        if us.max() >= EXACT_LIMIT_US:
            raise NeedExactTimes
        ns = us.view(np.int64)
        # In place and by parts: two more columns of temporaries would be the peak of the whole reading.
        for low in range(0, len(us), _PART):
            part = us[low : low + _PART]
            whole = np.floor(part)
            fraction = np.rint((part - whole) * 1000).astype(np.int64)
            ns[low : low + _PART] = whole.astype(np.int64) * 1000 + fraction
        return ns
