"""A few steps of one rank, cut out of its trace: a kineto document again, of raw events, small enough to send.

A step has two places in time: its label and its launches on the host, and 5 to 229 ms later (medians on MI300X) its
kernels on the GPU. So a slice has two windows: the host events from the first kept label to the next label after the
last, and the GPU events from the first activity launched in there to the end of the last. What was launched is whole,
and no label is kept without its kernels.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from typing import TYPE_CHECKING, Protocol, TypeAlias, cast

import msgspec
import numpy as np

from pytest_atomtrace.trace.events import EXACT_LIMIT_US, MAKING
from pytest_atomtrace.trace.eventtext import EventText

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from pytest_atomtrace.trace.data import RankData

__all__ = ["NOTE_KEY", "Window", "slice_text", "window_of"]

#: Top level key of a slice's document: what it was cut from and which steps it holds.
NOTE_KEY = "atomtraceSlice"
_GPU = ("kernel", "gpu_memcpy", "gpu_memset", "gpu_user_annotation")
_ARROWS = "stf"
# The profiler's own span over the whole window: a viewer would open a slice of 50 ms as five seconds.
_PROFILER_SPAN = "Trace"
_FOREVER = 1 << 62
_Spans: TypeAlias = "tuple[tuple[int, int], ...]"


@dataclass(frozen=True)
class Window:
    """What of a rank is kept; times are ns on the trace's clock, spans are half open and in order.

    `steps` are indices of the steps that are whole, `launches` the correlations of what the host launched in its
    spans.
    """

    rank: str
    steps: tuple[int, ...]
    host_ns: _Spans
    gpu_ns: _Spans
    launches: frozenset[int]


def window_of(rank: RankData, steps: Sequence[int], *, around: int = 2) -> Window:
    """The window that holds `steps` of `rank` and `around` steps before and after each.

    Raises:
        ValueError: no step is asked for, or there is none of that number.

    """
    count = len(rank.steps)
    wrong = [step for step in steps if not 0 <= step < count]
    if wrong or not steps:
        raise ValueError(f"no step {wrong[0] if wrong else 'asked for'}: {rank.name} has steps 0 to {count - 1}")
    kept = sorted({n for step in steps for n in range(max(0, step - around), min(count, step + around + 1))})
    runs: list[list[int]] = []
    for number in kept:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    host = [_host_span(rank, run) for run in runs]
    gpu: list[tuple[int, int]] = []
    launches: set[int] = set()
    for (low, high), run in zip(host, runs, strict=True):
        mine = (rank.launch_ns >= low) & (rank.launch_ns < high) | np.isin(rank.step, run)
        calls = (rank.launches.start_ns >= low) & (rank.launches.start_ns < high)
        launches.update(rank.correlation[mine].tolist(), rank.launches.correlation[calls].tolist())
        if mine.any():
            starts = rank.start_ns[mine]
            # An activity without length still has to be inside.
            gpu.append((int(starts.min()), int((starts + np.maximum(rank.dur_ns[mine], 1)).max())))
    return Window(rank.name, tuple(kept), _merged(host), _merged(gpu), frozenset(launches))


def _host_span(rank: RankData, run: Sequence[int]) -> tuple[int, int]:
    labels = [rank.steps[number] for number in run]
    end_ns = max(step.cpu_end_ns for step in labels)
    after = rank.steps[run[-1] + 1 : run[-1] + 2]
    # What is launched before the next label (sampling, copies) still belongs to the last step's iteration.
    return min(step.cpu_start_ns for step in labels), max([end_ns, *(step.cpu_start_ns for step in after)])


def _merged(spans: Iterable[tuple[int, int]]) -> _Spans:
    merged: list[tuple[int, int]] = []
    for low, high in sorted(spans):
        if merged and low <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
        else:
            merged.append((low, high))
    return tuple(merged)


def slice_text(
    path: Path, window: Window, *, note: Mapping[str, object], without: Collection[str] = ()
) -> Iterator[bytes]:
    """Yield the text of a trace with what of `path` lies in `window`; events are copied as they are.

    Kept are the head and the tail of the document, metadata events (names of processes and threads), complete
    events that overlap their side's spans, arrows of kept launches, and marks and counters within. `note` is
    added under `NOTE_KEY`; categories in `without` are left out. Raises what `EventText` raises.
    """
    source = EventText(path, rank=window.rank)
    yield b'{"traceEvents": [' if source.is_array else source.head
    keeps = _Chooser(window, frozenset(without))
    first = True
    for block in source.blocks():
        chosen = keeps.choose(block)
        if chosen:
            yield (b"\n" if first else b",\n") + b",\n".join(chosen)
            first = False
    yield b"\n]"
    yield from _end(source, note)


def _end(source: EventText, note: Mapping[str, object]) -> Iterator[bytes]:
    more: dict[str, object] = {NOTE_KEY: dict(note)}
    head = source.head.removeprefix(b"\xef\xbb\xbf")
    # Decoded with its tail by `EventText` already, so it is an object.
    keys = {} if source.is_array else json.loads((head + b"]" + source.tail).decode("utf-8", "replace"), strict=False)
    if "displayTimeUnit" not in keys:
        more = {"displayTimeUnit": "ms", **more}
    if not source.is_array:
        yield source.tail.rstrip()[:-1].rstrip()
    yield b",\n" + json.dumps(more).encode()[1:-1] + b"}\n"


class _Event(Protocol):
    """The little of an event that decides."""

    ph: str
    cat: str
    ts: float | Decimal | None
    dur: float | Decimal
    id: int | str


class _Chooser:
    """Which events of a block are kept."""

    def __init__(self, window: Window, without: frozenset[str]) -> None:
        self._host, self._gpu = window.host_ns, window.gpu_ns
        self._launches = window.launches
        self._without = without | {_PROFILER_SPAN}
        ends = [high for _, high in (*self._host, *self._gpu)]
        self._exact = max(ends, default=0) / 1000 >= EXACT_LIMIT_US
        with MAKING:
            self._decode = _decoder(exact=self._exact)

    def choose(self, block: list[bytes]) -> list[bytes]:
        """The events of `block` to keep, in their order."""
        try:
            events = self._decode(b"[" + b",".join(block) + b"]")
        except (msgspec.MsgspecError, UnicodeDecodeError):
            events = [self._loose(text) for text in block]
        return [text for text, event in zip(block, events, strict=True) if self._keeps(event)]

    def _keeps(self, event: _Event) -> bool:
        if event.ph == "M":
            return True
        if event.cat in self._without or event.ts is None:
            return False
        start = round(event.ts * 1000)
        if event.ph == "X":
            end = start + max(round(event.dur * 1000), 0)
            return _overlaps(self._gpu if event.cat in _GPU else self._host, start, end)
        if event.ph in _ARROWS and event.cat == "ac2g":
            return _whole(event.id) in self._launches
        return _overlaps(self._host, start, start)

    def _loose(self, text: bytes) -> _Event:
        row = json.loads(text.decode("utf-8", "replace"), strict=False, parse_float=Decimal if self._exact else None)
        row = row if isinstance(row, dict) else {}
        numbers = {key: _number(row.get(key)) for key in ("ts", "dur")}
        words = {key: str(row.get(key, "")) for key in ("ph", "cat")}
        number = row.get("id")
        kind = _struct(exact=False)
        number = number if isinstance(number, (int, str)) else -1
        return cast("_Event", kind(**words, ts=numbers["ts"], dur=numbers["dur"] or 0, id=number))


def _overlaps(spans: _Spans, start: int, end: int) -> bool:
    return any(start < high and (end > low or start >= low) for low, high in spans)


def _whole(value: int | str) -> int:
    if isinstance(value, str):
        return int(value) if value.isdecimal() else -1
    return value


def _number(value: object) -> float | Decimal | None:
    try:
        number = float(value) if isinstance(value, str) else value
    except ValueError:
        return None
    if isinstance(number, bool) or not isinstance(number, (int, float, Decimal)):
        return None
    return number if -_FOREVER < number < _FOREVER else None  # NaN is not


@cache
def _struct(*, exact: bool) -> type:
    time = Decimal if exact else float
    fields = [("ph", str, ""), ("cat", str, ""), ("ts", time | None, None), ("dur", time, 0), ("id", int | str, -1)]
    return msgspec.defstruct("SliceEvent", fields, gc=False, kw_only=True, module=__name__)


@cache
def _decoder(*, exact: bool) -> Callable[[bytes], list[_Event]]:
    return msgspec.json.Decoder(list[_struct(exact=exact)]).decode  # type: ignore[misc]  # made from the fields above
