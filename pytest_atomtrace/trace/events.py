"""What one event becomes: typed structs for the fast path, loose rows for the odd block, columns for both.

msgspec's tagged union decodes an event straight into the struct of its phase and takes only the needed fields;
flow arrows, marks and metadata become an empty struct. Whatever does not fit the types (odd numbers, a missing
field, a phase never seen) makes that one block take the loose path.
"""

from __future__ import annotations

import json
from array import array
from decimal import Decimal, InvalidOperation
from functools import cache
from threading import Lock
from typing import TYPE_CHECKING, Annotated, Literal, Protocol, TypeVar

import msgspec

from pytest_atomtrace.trace.document import NeedExactTimes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["EXACT_LIMIT_US", "MAKING", "Columns", "Table", "decode_loose", "decoder"]

# Below 2**43 us a float64 is within 0.49 ns of the three decimals that kineto writes, so rounding restores
# the integer. Above (microseconds since 1970 are 2**50) decimals must be read as such.
EXACT_LIMIT_US = float(1 << 43)

GPU_KINDS = {"kernel": 0, "gpu_memcpy": 1, "gpu_memset": 2}
RUNTIME_CATEGORIES = ("cuda_runtime", "cuda_driver")
# Phases of Chrome's trace format other than X, a complete event, which alone has a duration.
_OTHER_PHASES = "BEiICbneSTpFstfPNODMVvRc(,)"
# What a column holds; a number beyond is odd, so it takes the loose path and counts as unknown.
_Int32 = Annotated[int, msgspec.Meta(ge=-1 << 31, lt=1 << 31)]
_Int64 = Annotated[int, msgspec.Meta(ge=-1 << 63, le=(1 << 63) - 1)]
# A time of 64 bits in ns, somewhat less; a larger one is no time at all.
_LIMIT_US = 9_000_000_000_000_000
_NO_STREAM = -1 << 31
_GPU, _CALLS, _OPS, _NOTES, _GPU_NOTES = range(5)
_GROUPS = {
    **dict.fromkeys(GPU_KINDS, _GPU),
    **dict.fromkeys(RUNTIME_CATEGORIES, _CALLS),
    "cpu_op": _OPS,
    "user_annotation": _NOTES,
    "gpu_user_annotation": _GPU_NOTES,
}


class _Arguments(msgspec.Struct, gc=False, frozen=True):
    stream: _Int32 = _NO_STREAM
    correlation: _Int64 = -1
    external_id: _Int64 | None = msgspec.field(default=None, name="External id")


class _DetailedArguments(_Arguments, gc=False, frozen=True):
    kernel: str = ""


class _Event(Protocol):
    """A complete event as the decoder gives it."""

    cat: str
    name: str
    pid: int | str
    tid: int | str
    ts: float
    dur: float
    args: _DetailedArguments


def _structs(*, exact: bool, detail: bool) -> tuple[type, ...]:
    time: type = Decimal if exact else float
    arguments = _DetailedArguments if detail else _Arguments
    place: type = int | str  # type: ignore[assignment]
    # In kineto's order, in which a field is found at the first look.
    fields: list[tuple[str, type] | tuple[str, type, object]]
    fields = [("cat", str, ""), ("name", str), ("pid", place), ("tid", place), ("ts", time), ("dur", time)]
    structs = [_struct("X", [*fields, ("args", arguments, arguments())])]
    structs += [_struct(phase, []) for phase in _OTHER_PHASES]
    return tuple(structs)


def _struct(phase: str, fields: Sequence[tuple[str, type] | tuple[str, type, object]]) -> type:
    name = f"Event_{ord(phase)}"
    return msgspec.defstruct(name, fields, tag_field="ph", tag=phase, gc=False, kw_only=True, module=__name__)


class Decoder:
    """A typed decoder of `[event, ...]`; `complete` is the type of the events that matter.

    The phase, which comes first in an event, picks the type, so arrows (half of all events) are not even
    looked into.
    """

    def __init__(self, *, exact: bool, detail: bool) -> None:
        structs = _structs(exact=exact, detail=detail)
        union = structs[0]
        for struct in structs[1:]:
            union = union | struct  # type: ignore[assignment]
        self.exact = exact
        self.detail = detail
        self.complete = structs[0]
        self.decode = msgspec.json.Decoder(list[union]).decode  # type: ignore[valid-type]


# Ranks are read in threads, and msgspec shows a type's half-built description to the thread that asks second:
# decoding by it crashed the process (about one run of the suite in ten). So types and decoders are made alone.
MAKING = Lock()


def decoder(*, exact: bool = False, detail: bool = False) -> Decoder:
    """Decoder for events; `exact` reads times as decimals, `detail` keeps `args.kernel` of launch records."""
    with MAKING:
        return _decoder(exact=exact, detail=detail)


@cache
def _decoder(*, exact: bool, detail: bool) -> Decoder:
    return Decoder(exact=exact, detail=detail)


def decode_loose(block: bytes, *, exact: bool) -> list[dict[str, object]]:
    """Decode `[event, ...]` whatever its types: bad UTF-8 is replaced, NaN and Infinity are allowed.

    Raises ValueError (with `pos` where known) if it is not JSON at all. What is no object is dropped.
    """
    rows: object
    try:
        if exact:
            raise msgspec.DecodeError
        rows = msgspec.json.decode(block)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        text = block.decode("utf-8", "replace")
        try:
            rows = json.loads(text, strict=False, parse_float=_decimal if exact else None)
        except RecursionError:
            raise ValueError("values are nested too deeply") from None
    if not isinstance(rows, list):
        raise TypeError("events are not an array")
    return [row for row in rows if isinstance(row, dict)]


def _decimal(text: str) -> Decimal:
    return Decimal(text)


_Key = TypeVar("_Key")


class _Interner(dict[_Key, int]):
    """Numbers keys in the order of their first sight."""

    def __missing__(self, key: _Key) -> int:
        number = self[key] = len(self)
        return number


class Table:
    """Growing columns of one group of events. Times are us as float64, or ns as int64 when exact."""

    def __init__(self, *, exact: bool, extra_code: Literal["i", "b"] = "i") -> None:
        code = "q" if exact else "d"
        self.name: array[int] = array("i")
        self.start: array[float] = array(code)
        self.dur: array[float] = array(code)
        self.where: array[int] = array("i")
        self.link: array[int] = array("q")
        self.extra: array[int] = array(extra_code)

    def __len__(self) -> int:
        return len(self.name)


class Columns:
    """All tables of a rank while it is read.

    `gpu`: where = stream, link = correlation, extra = kind. `calls`: where = thread number, link =
    correlation, extra = number of the kernel's name (detail only). `ops`: where = thread. `notes` and
    `gpu_notes`: where = thread (a stream's row for GPU), link = External id, -1 for none.
    """

    def __init__(self, decoder: Decoder) -> None:
        exact = decoder.exact
        self.decoder = decoder
        self.names: _Interner[str] = _Interner()
        self.threads: _Interner[tuple[int | str, int | str]] = _Interner()
        self.gpu = Table(exact=exact, extra_code="b")
        self.calls = Table(exact=exact)
        self.ops = Table(exact=exact)
        self.notes = Table(exact=exact)
        self.gpu_notes = Table(exact=exact)
        self.count = 0
        self.odd_times = 0

    def take(self, block: bytes | memoryview) -> None:
        """Decode `[event, ...]` and append. Raises msgspec.MsgspecError or UnicodeDecodeError if it does not
        fit the types or is not JSON, and has then taken nothing.
        """
        try:
            events = self.decoder.decode(block)
        except RecursionError:
            raise msgspec.DecodeError("values are nested too deeply") from None
        complete = self.decoder.complete
        kept: list[_Event] = [e for e in events if type(e) is complete]
        gpu = [e for e in kept if e.cat == "kernel"]
        groups: list[tuple[int, list[_Event]]] = []
        if len(gpu) != len(kept):
            rest = [e for e in kept if e.cat != "kernel"]
            # A block holds few categories, most often one, so a pass for each is the quickest way.
            found = {_GROUPS[category] for category in {e.cat for e in rest} if category in _GROUPS}
            if _GPU in found:
                gpu = [e for e in kept if e.cat in GPU_KINDS]
            groups = [(group, [e for e in rest if _GROUPS.get(e.cat) == group]) for group in sorted(found - {_GPU})]
        if any(e.args.stream == _NO_STREAM for e in gpu):
            raise msgspec.ValidationError("a GPU activity has no stream")
        if self.decoder.exact and not all(_fits(e) for members in (gpu, *(g[1] for g in groups)) for e in members):
            raise msgspec.ValidationError("a time is beyond 64 bits")
        self.count += len(events)
        if gpu:
            self._add_gpu(gpu)
        for group, members in groups:
            self._add_host(group, members)

    def _add_gpu(self, events: list[_Event]) -> None:
        table = self.gpu
        # array.fromlist takes less than half the time of array.extend.
        self._times(table, events)
        arguments = [e.args for e in events]
        table.where.fromlist([a.stream for a in arguments])
        table.link.fromlist([a.correlation for a in arguments])
        table.extra.frombytes(bytes([GPU_KINDS[e.cat] for e in events]))

    def _add_host(self, group: int, events: list[_Event]) -> None:
        table = {_CALLS: self.calls, _OPS: self.ops, _NOTES: self.notes, _GPU_NOTES: self.gpu_notes}[group]
        self._times(table, events)
        threads = {(e.pid, e.tid) for e in events}
        if len(threads) == 1:
            table.where.extend(array("i", [self.threads[threads.pop()]]) * len(events))
        else:
            table.where.fromlist([self.threads[e.pid, e.tid] for e in events])
        if group == _CALLS:
            table.link.fromlist([e.args.correlation for e in events])
            if self.decoder.detail:
                number = self.names.__getitem__
                table.extra.fromlist([number(e.args.kernel) for e in events])
        elif group != _OPS:
            ids = [e.args.external_id for e in events]
            table.link.fromlist([-1 if number is None else number for number in ids])

    def _times(self, table: Table, events: list[_Event]) -> None:
        if self.decoder.exact:
            table.start.fromlist([_ns(e.ts) for e in events])
            table.dur.fromlist([_ns(e.dur) for e in events])
        elif events[0].ts >= EXACT_LIMIT_US:
            raise NeedExactTimes
        else:
            table.start.fromlist([e.ts for e in events])
            table.dur.fromlist([e.dur for e in events])
        number = self.names.__getitem__
        table.name.fromlist([number(e.name) for e in events])

    def take_loose(self, rows: list[dict[str, object]]) -> None:
        """Append rows of any types; events that lack a name or a usable time are counted as odd."""
        self.count += len(rows)
        for row in rows:
            category = row.get("cat")
            if row.get("ph") != "X" or not isinstance(category, str):
                continue
            if category in GPU_KINDS:
                self._loose_gpu(row, category)
            elif category in RUNTIME_CATEGORIES:
                arguments = _mapping(row.get("args"))
                if self._loose_host(self.calls, row):
                    self.calls.link.append(_integer(arguments.get("correlation")))
                    if self.decoder.detail:
                        self.calls.extra.append(self.names[_text(arguments.get("kernel", ""))])
            elif category == "cpu_op":
                self._loose_host(self.ops, row)
            elif category in {"user_annotation", "gpu_user_annotation"}:
                table = self.notes if category == "user_annotation" else self.gpu_notes
                if self._loose_host(table, row):
                    table.link.append(_integer(_mapping(row.get("args")).get("External id")))

    def _loose_times(self, table: Table, row: Mapping[str, object]) -> bool:
        start, dur = _any_us(row.get("ts")), _any_us(row.get("dur", 0))
        if start is None or dur is None or "name" not in row:
            self.odd_times += 1
            return False
        exact = self.decoder.exact
        longest = max(abs(start), abs(dur))
        if not exact and longest >= EXACT_LIMIT_US:
            raise NeedExactTimes
        if longest >= _LIMIT_US:
            self.odd_times += 1
            return False
        table.start.append(_ns(start) if exact else _ns(start) / 1000)
        table.dur.append(_ns(dur) if exact else _ns(dur) / 1000)
        return True

    def _loose_gpu(self, row: Mapping[str, object], category: str) -> None:
        table = self.gpu
        if not self._loose_times(table, row):
            return
        arguments = _mapping(row.get("args"))
        stream = _integer(arguments.get("stream", row.get("tid")))
        table.name.append(self.names[_text(row.get("name"))])
        table.where.append(stream if -1 << 31 <= stream < 1 << 31 else -1)
        table.link.append(_integer(arguments.get("correlation")))
        table.extra.append(GPU_KINDS[category])

    def _loose_host(self, table: Table, row: Mapping[str, object]) -> bool:
        if not self._loose_times(table, row):
            return False
        table.name.append(self.names[_text(row.get("name"))])
        table.where.append(self.threads[_hashable(row.get("pid")), _hashable(row.get("tid"))])
        return True


def _ns(us: float | Decimal) -> int:
    return round(us * 1000)


def _fits(event: _Event) -> bool:
    """Whether both times are ns of 64 bits (decimals know no limit)."""
    return abs(event.ts) < _LIMIT_US and abs(event.dur) < _LIMIT_US


def _any_us(value: object) -> Decimal | None:
    if isinstance(value, (bool, list, dict)) or value is None:
        return None
    try:
        # str() of a float is its shortest form, so 1.1 is 1.1 and not its binary neighbour.
        us = Decimal(str(value))
    except (InvalidOperation, ValueError):
        return None
    return us if us.is_finite() else None


def _integer(value: object) -> int:
    if isinstance(value, bool):
        return -1
    if isinstance(value, str):
        value = int(value, 10) if value.isascii() and value.isdigit() and len(value) < 19 else None
    return value if isinstance(value, int) and -1 << 63 <= value < 1 << 63 else -1


def _text(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    # A lone surrogate (from a \\ud800 escape) cannot be printed or stored; '?' can.
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _hashable(value: object) -> int | str:
    # True is 1, as a key of a dictionary too.
    return int(value) if isinstance(value, int) else _text(value) if isinstance(value, str) else str(value)


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}
