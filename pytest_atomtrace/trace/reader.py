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
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import msgspec
import numpy as np

from pytest_atomtrace.errors import EmptyTraceError, MalformedTraceError, TruncatedTraceError
from pytest_atomtrace.trace.events import EXACT_LIMIT_US, Columns, NeedExactTimes, decode_loose, decoder
from pytest_atomtrace.trace.inflate import PIECE_BYTES, pieces
from pytest_atomtrace.trace.jsontext import find_events, last_boundary, scan_events

if TYPE_CHECKING:
    from array import array
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from pytest_atomtrace.trace.events import _Table

__all__ = ["EventTable", "RankEvents", "read_rank", "read_text"]

_I32: TypeAlias = "NDArray[np.int32]"
_I64: TypeAlias = "NDArray[np.int64]"
_EARLIER_CUTS = 2
_CLOSE, _COMMA = b"],"


@dataclass
class EventTable:
    """Columns of one group of events, in file order. Times are ns on the trace's own clock.

    `where` is the stream of a GPU activity, else the number of the thread in `RankEvents.threads`; `link` is
    the correlation of GPU activities and calls, the External id of annotations (-1 = none); `extra` is the
    kind of a GPU activity (0 kernel, 1 memcpy, 2 memset) or the number of the launched kernel's name.
    """

    name_id: _I32
    start_ns: _I64
    dur_ns: _I64
    where: _I32
    link: _I64
    extra: _I32

    def __len__(self) -> int:
        return len(self.name_id)


@dataclass
class RankEvents:
    """Everything that one pass over a rank file keeps.

    `meta` are the document's top level values beside `traceEvents`; `odd_times` counts events without a
    usable time, which no table holds.
    """

    names: tuple[str, ...]
    threads: tuple[tuple[int | str, int | str], ...]
    gpu: EventTable
    calls: EventTable
    ops: EventTable
    notes: EventTable
    gpu_notes: EventTable
    meta: dict[str, object]
    event_count: int
    odd_times: int
    text_bytes: int


def read_rank(path: Path, *, rank: str = "", detail: bool = False, piece_bytes: int = PIECE_BYTES) -> RankEvents:
    """Read a kineto trace, `.json` or gzip, of any JSON layout.

    `detail` also keeps the names of launched kernels (`args.kernel`), which capture traces need. Raises
    EmptyTraceError, TruncatedTraceError, MalformedTraceError or TraceFileError with rank, file and place.
    """

    def text() -> Iterator[bytes]:
        return pieces(path, rank=rank, piece_bytes=piece_bytes)

    return _read(text, str(path), rank, detail=detail)


def read_text(
    chunks: Iterable[bytes], *, name: str = "<text>", rank: str = "", detail: bool = False
) -> RankEvents:
    """The same for text that is already at hand, in any division into chunks."""
    kept = list(chunks)
    return _read(lambda: iter(kept), name, rank, detail=detail)


def _read(source: object, path: str, rank: str, *, detail: bool) -> RankEvents:
    assert callable(source)
    was_enabled = gc.isenabled()
    # The collector walks every live object again and again while millions are made (3 times the time).
    gc.disable()
    try:
        try:
            return _Pass(source(), path, rank, exact=False, detail=detail).run()
        except NeedExactTimes:
            return _Pass(source(), path, rank, exact=True, detail=detail).run()
    finally:
        if was_enabled:
            gc.enable()


class _Pass:
    """One reading of one document.

    Inside the events `text` is `[` and what is pending, so that a block can be decoded in place: its comma
    becomes `]` and nothing is copied. `offset` is where the pending part starts in the document.
    """

    def __init__(self, source: Iterator[bytes], path: str, rank: str, *, exact: bool, detail: bool) -> None:
        self.source = source
        self.path = path
        self.rank = rank
        self.exact = exact
        self.columns = Columns(decoder(exact=exact, detail=detail))
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
        if not columns.count:
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
        for _ in range(1 + _EARLIER_CUTS):
            cut = last_boundary(self.text, cut)
            if not cut:
                break
            comma = self.text.index(b",", cut)
            self.text[comma] = _CLOSE
            try:
                self.columns.take(memoryview(self.text)[: comma + 1])
            except (msgspec.ValidationError, UnicodeDecodeError):
                self.text[comma] = _COMMA
                break
            except msgspec.DecodeError:
                self.text[comma] = _COMMA
                continue
            self._drop(comma + 1)
            return False
        return self._walk()

    def _walk(self) -> bool:
        text = bytes(self.text[1:])
        scan = scan_events(text)
        if scan.cut:
            self._take_block(text[: scan.cut])
        if scan.stray >= 0:
            self._malformed("a brace closes nothing", scan.stray)
        if scan.array_end >= 0:
            self._check_gap(text[scan.cut : scan.array_end])
            self._drop(scan.array_end + 2)
            return True
        if scan.cut:
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
        categories = {c for row in rows if isinstance(c := row.get("cat"), str)}
        self.columns.decoder = self.columns.decoder.knowing(categories)

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
            extra=np.frombuffer(table.extra, np.int32) if table.extra else np.full(count, -1, np.int32),
        )

    def _ns(self, column: array[float]) -> _I64:
        if not column:
            return np.empty(0, np.int64)
        if self.exact:
            return np.frombuffer(column, np.int64)
        us = np.frombuffer(column, np.float64)
        if us.max() >= EXACT_LIMIT_US:
            raise NeedExactTimes
        whole = np.floor(us)
        ns = whole.astype(np.int64)
        ns *= 1000
        np.subtract(us, whole, out=whole)
        whole *= 1000
        ns += np.rint(whole).astype(np.int64)
        return ns
