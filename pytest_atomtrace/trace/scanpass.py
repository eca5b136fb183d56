"""One reading of one document by the compiled scanner, where the installation has it.

The scanner takes what has the usual types, as text and without an object per event. What it leaves (from the first
odd event on, some block of text) the typed decoder takes, whose rows join the scanner's. So odd input means the same
to both; and since any error makes the caller read again without the scanner, errors are the same too.
"""

from __future__ import annotations

import json
from importlib import import_module
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np

from pytest_atomtrace.trace.document import Document, NeedExactTimes
from pytest_atomtrace.trace.rankevents import EventTable, RankEvents

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import DTypeLike

    from pytest_atomtrace.trace import _scan

__all__ = ["ScanPass", "scanner_module"]

# What this module was written for; a scanner left by an earlier build does not count.
_VERSION = 1
_COLUMNS: tuple[DTypeLike, ...] = (np.int32, np.int64, np.int64, np.int32, np.int64, np.int8)
_CALLS = 1


class _Module(Protocol):
    MORE: int
    ENDED: int
    DAMAGED: int
    VERSION: int
    Scanner: type[_scan.Scanner]


def scanner_module() -> _Module | None:
    """The compiled scanner; None where none was built (no compiler at installation), or an old one."""
    try:
        module = cast("_Module", import_module("pytest_atomtrace.trace._scan"))
    except ImportError:
        return None
    return module if module.VERSION == _VERSION else None


class ScanPass(Document):
    """One reading by the scanner; `exact` says that what it leaves needs decimal arithmetic."""

    def __init__(
        self, module: _Module, source: Iterator[bytes], path: str, rank: str, *, exact: bool, detail: bool
    ) -> None:
        super().__init__(source, path, rank, detail=detail)
        self.module = module
        self.scanner = module.Scanner(detail=detail)
        self.exact = exact
        self.rounded = False
        self.count = self.odd_times = 0

    def _array(self) -> None:
        module, scanner = self.module, self.scanner
        piece = self._pending()
        while True:
            # An empty piece would tell the scanner that no more follows.
            state = scanner.feed(piece) if piece or self.ended else module.MORE
            self.offset += len(piece)
            if state != module.MORE:
                rest = scanner.rest()
                self.offset -= len(rest)
                self.text = bytearray(b"[" + rest)
                if state == module.DAMAGED:
                    self._malformed("commas and events do not take turns", 0)
                if state == module.ENDED or self._left():
                    return
                piece = self._pending()
                continue
            if self.ended and not piece:
                raise self._truncated()
            piece = next(self.source, b"")
            self.ended = self.ended or not piece

    def _pending(self) -> bytes:
        piece = bytes(memoryview(self.text)[1:])
        self.text = bytearray(b"[")
        return piece

    def _left(self) -> bool:
        """Have the typed decoder take the next block; True if that passed the end of the events."""
        # Imported here: usual traces have no use for it, nor for what it imports.
        from pytest_atomtrace.trace.textpass import TextPass

        exact = self.exact or self.scanner.long_times
        self.rounded = self.rounded or not exact
        decoding = TextPass.beside(self, exact=exact)
        passed = decoding.block()
        self.text, self.offset, self.ended = decoding.text, decoding.offset, decoding.ended
        self._join(decoding.result())
        return passed

    def _join(self, events: RankEvents) -> None:
        """Append rows to the scanner's tables."""
        scanner = self.scanner
        names = [scanner.name(name) for name in events.names]
        threads = [scanner.thread(_thread_text(*thread)) for thread in events.threads]
        for number, table in enumerate((events.gpu, events.calls, events.ops, events.notes, events.gpu_notes)):
            where = table.where.tolist() if not number else [threads[thread] for thread in table.where.tolist()]
            extra = table.extra.tolist()
            if number == _CALLS and self.detail:
                extra = [names[name] for name in extra]
            name_ids = [names[name] for name in table.name_id.tolist()]
            times = table.start_ns.tolist(), table.dur_ns.tolist()
            for row in zip(name_ids, *times, where, table.link.tolist(), extra, strict=True):
                scanner.add(number, *row)
        self.count += events.event_count
        self.odd_times += events.odd_times

    def _result(self, meta: dict[str, object]) -> RankEvents:
        scanner = self.scanner
        if self.rounded and scanner.long_times:
            raise NeedExactTimes
        threads = (json.loads(b"[" + text + b"]") for text in scanner.threads())
        names = tuple(scanner.names())
        return RankEvents(
            names=names,
            threads=tuple((process, thread) for process, thread in threads),
            gpu=self._taken(0),
            calls=self._taken(_CALLS),
            ops=self._taken(2),
            notes=self._taken(3),
            gpu_notes=self._taken(4),
            meta=meta,
            event_count=scanner.events + self.count,
            odd_times=self.odd_times,
            text_bytes=self.offset,
        )

    def _taken(self, number: int) -> EventTable:
        """A table of the scanner, which gives it away."""
        buffers = self.scanner.columns(number)
        kinds = (*_COLUMNS[:-1], np.int32 if number == _CALLS and buffers[-1] is not None else np.int8)
        count = 0 if buffers[0] is None else memoryview(buffers[0]).nbytes // np.dtype(kinds[0]).itemsize
        return EventTable(
            *(
                np.full(count, -1, kind) if buffer is None else np.frombuffer(memoryview(buffer), kind)
                for buffer, kind in zip(buffers, kinds, strict=True)
            )
        )


def _thread_text(process: int | str, thread: int | str) -> bytes:
    """Two values as the scanner sees them in a document: their JSON text with a comma between."""
    plain = [value if isinstance(value, str) else int(value) for value in (process, thread)]
    return ",".join(json.dumps(value, ensure_ascii=False) for value in plain).encode()
