"""What one event becomes: typed structs for the fast path, loose rows for the odd block, columns for both.

msgspec's tagged union decodes an event straight into the struct of its category and takes only the needed
fields; Python stacks, memory events and flow arrows become an empty struct. Whatever does not fit the types
(odd numbers, no category, a category never seen) makes that one block take the loose path.
"""

from __future__ import annotations

import json
from array import array
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from operator import attrgetter
from typing import TYPE_CHECKING, Literal, TypeVar

import msgspec
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["EXACT_LIMIT_US", "Columns", "NeedExactTimes", "decode_loose", "decoder"]

# Below 2**43 us a float64 is within 0.49 ns of the three decimals that kineto writes, so rounding restores
# the integer. Above (microseconds since 1970 are 2**50) decimals must be read as such.
EXACT_LIMIT_US = float(1 << 43)

GPU_KINDS = {"kernel": 0, "gpu_memcpy": 1, "gpu_memset": 2}
RUNTIME_CATEGORIES = ("cuda_runtime", "cuda_driver")
_SKIPPED = ("ac2g", "fwdbwd", "python_function", "cpu_instant_event", "Trace", "overhead", "async_cpu_to_gpu")
_X = Literal["X"]


class NeedExactTimes(Exception):  # noqa: N818  (a request to start again, not an error)
    """The trace's times need decimal arithmetic; read it again with `exact`."""


class _GpuArgs(msgspec.Struct, gc=False):
    stream: int
    correlation: int = -1


class _CallArgs(msgspec.Struct, gc=False):
    correlation: int = -1
    kernel: str = ""


class _ShortCallArgs(msgspec.Struct, gc=False):
    correlation: int = -1


class _NoteArgs(msgspec.Struct, gc=False):
    external_id: int | None = msgspec.field(default=None, name="External id")


_NO_CALL = _CallArgs()
_NO_NOTE = _NoteArgs()


def _struct(tag: str, fields: Iterable[tuple[str, type]], group: int) -> type:
    namespace = {"group": group}
    return msgspec.defstruct(
        f"Event_{tag}", fields, tag_field="cat", tag=tag, gc=False, namespace=namespace, module=__name__
    )


@lru_cache(maxsize=64)
def _structs(*, exact: bool, detail: bool, skipped: tuple[str, ...]) -> tuple[type, ...]:
    time: type = Decimal if exact else float
    host = [("ph", _X), ("name", str), ("ts", time), ("dur", time), ("pid", int), ("tid", int)]
    call = [*host, ("args", _CallArgs if detail else _ShortCallArgs)]
    gpu = [("ph", _X), ("name", str), ("ts", time), ("dur", time), ("args", _GpuArgs)]
    structs = [_struct(tag, gpu, kind) for tag, kind in GPU_KINDS.items()]  # type: ignore[arg-type]
    structs += [_struct(tag, call, 3) for tag in RUNTIME_CATEGORIES]  # type: ignore[arg-type]
    structs.append(_struct("cpu_op", host, 4))  # type: ignore[arg-type]
    structs.append(_struct("user_annotation", [*host, ("args", _NoteArgs)], 5))  # type: ignore[list-item]
    structs.append(_struct("gpu_user_annotation", [*host, ("args", _NoteArgs)], 6))  # type: ignore[list-item]
    structs += [_struct(tag, (), -1) for tag in skipped]
    return tuple(structs)


class Decoder:
    """A typed decoder of `[event, ...]` and the groups that its structs fall into."""

    def __init__(self, *, exact: bool, detail: bool, skipped: tuple[str, ...] = _SKIPPED) -> None:
        structs = _structs(exact=exact, detail=detail, skipped=skipped)
        union = structs[0]
        for struct in structs[1:]:
            union = union | struct  # type: ignore[assignment]
        self.exact = exact
        self.detail = detail
        self.skipped = skipped
        self.decode = msgspec.json.Decoder(list[union]).decode  # type: ignore[valid-type]
        self.groups: dict[type, int] = {s: s.group for s in structs}  # type: ignore[attr-defined]
        self.kernel = structs[0]
        self.skip = frozenset(s for s, group in self.groups.items() if group < 0)
        by_tag = {struct.__struct_config__.tag: struct for struct in structs}  # type: ignore[attr-defined]
        self.arrow, self.frame = by_tag["ac2g"], by_tag["python_function"]

    def knowing(self, categories: Iterable[str]) -> Decoder:
        """A decoder that also skips `categories`; itself if it knew them all."""
        known = {*self.skipped, *GPU_KINDS, *RUNTIME_CATEGORIES, "cpu_op"}
        known |= {"user_annotation", "gpu_user_annotation"}
        # A damaged category may hold what no type name or tag can; such an event stays on the loose path.
        new = sorted(c for c in set(categories) - known if c.isascii() and c.isprintable())
        # A file with endless categories must not grow a union without end.
        if not new or len(self.skipped) > 64:
            return self
        return Decoder(exact=self.exact, detail=self.detail, skipped=(*self.skipped, *new))


def decoder(*, exact: bool = False, detail: bool = False) -> Decoder:
    """Decoder for events; `exact` reads times as decimals, `detail` keeps `args.kernel` of launch records."""
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
    except (msgspec.MsgspecError, UnicodeDecodeError):
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

_name, _ts, _dur = attrgetter("name"), attrgetter("ts"), attrgetter("dur")
_args, _correlation, _stream = attrgetter("args"), attrgetter("correlation"), attrgetter("stream")
_thread, _kernel, _external = attrgetter("pid", "tid"), attrgetter("kernel"), attrgetter("external_id")


class _Interner(dict[_Key, int]):
    """Numbers keys in the order of their first sight."""

    def __missing__(self, key: _Key) -> int:
        number = self[key] = len(self)
        return number


class _Table:
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
        self.gpu = _Table(exact=exact, extra_code="b")
        self.calls = _Table(exact=exact)
        self.ops = _Table(exact=exact)
        self.notes = _Table(exact=exact)
        self.gpu_notes = _Table(exact=exact)
        self.count = 0
        self.odd_times = 0

    def take(self, block: bytes | memoryview) -> None:
        """Decode `[event, ...]` and append. Raises msgspec.MsgspecError or UnicodeDecodeError if it does not
        fit the types or is not JSON, and has then taken nothing.
        """
        events = self.decoder.decode(block)
        self.count += len(events)
        kernel, groups = self.decoder.kernel, self.decoder.groups
        kernels = [e for e in events if type(e) is kernel]
        if kernels:
            self._add_gpu(kernels, 0)
        others: dict[int, list[object]] = {}
        arrow, frame, skip = self.decoder.arrow, self.decoder.frame, self.decoder.skip
        # Identity is cheaper than a set, and these three are nearly all events there are.
        rest = [e for e in events if (t := type(e)) is not kernel and t is not arrow and t is not frame]
        for event in [e for e in rest if type(e) not in skip]:
            others.setdefault(groups[type(event)], []).append(event)
        for group, members in others.items():
            self._add_others(group, members)

    def _add_others(self, group: int, events: list[object]) -> None:
        if group < 3:
            self._add_gpu(events, group)
        elif group == 3:
            arguments = list(map(_args, events))
            self._add_host(self.calls, events)
            self.calls.link.extend(map(_correlation, arguments))
            if self.decoder.detail:
                self.calls.extra.extend(map(self.names.__getitem__, map(_kernel, arguments)))
        elif group == 4:
            self._add_host(self.ops, events)
        else:
            table = self.notes if group == 5 else self.gpu_notes
            self._add_host(table, events)
            ids = map(_external, map(_args, events))
            table.link.extend(-1 if number is None else number for number in ids)

    def _times(self, table: _Table, events: list[object]) -> None:
        if self.decoder.exact:
            table.start.extend(map(_ns, map(_ts, events)))
            table.dur.extend(map(_ns, map(_dur, events)))
            return
        if _ts(events[0]) >= EXACT_LIMIT_US:
            raise NeedExactTimes
        table.start.frombytes(np.fromiter(map(_ts, events), np.float64, len(events)).tobytes())
        table.dur.frombytes(np.fromiter(map(_dur, events), np.float64, len(events)).tobytes())

    def _add_gpu(self, events: list[object], kind: int) -> None:
        table = self.gpu
        self._times(table, events)
        count = len(events)
        arguments = list(map(_args, events))
        names = map(self.names.__getitem__, map(_name, events))
        table.name.frombytes(np.fromiter(names, np.int32, count).tobytes())
        table.where.frombytes(np.fromiter(map(_stream, arguments), np.int32, count).tobytes())
        table.link.frombytes(np.fromiter(map(_correlation, arguments), np.int64, count).tobytes())
        table.extra.frombytes(bytes([kind]) * count)

    def _add_host(self, table: _Table, events: list[object]) -> None:
        self._times(table, events)
        table.name.extend(map(self.names.__getitem__, map(_name, events)))
        table.where.extend(map(self.threads.__getitem__, map(_thread, events)))

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

    def _loose_times(self, table: _Table, row: Mapping[str, object]) -> bool:
        start, dur = _any_ns(row.get("ts")), _any_ns(row.get("dur", 0))
        if start is None or dur is None or "name" not in row:
            self.odd_times += 1
            return False
        if self.decoder.exact:
            table.start.append(start)
            table.dur.append(dur)
            return True
        if start >= EXACT_LIMIT_US * 1000:
            raise NeedExactTimes
        table.start.append(start / 1000)
        table.dur.append(dur / 1000)
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

    def _loose_host(self, table: _Table, row: Mapping[str, object]) -> bool:
        if not self._loose_times(table, row):
            return False
        table.name.append(self.names[_text(row.get("name"))])
        table.where.append(self.threads[_hashable(row.get("pid")), _hashable(row.get("tid"))])
        return True


def _ns(us: Decimal) -> int:
    return round(us * 1000)


def _any_ns(value: object) -> int | None:
    if isinstance(value, (bool, list, dict)) or value is None:
        return None
    try:
        # str() of a float is its shortest form, so 1.1 is 1.1 and not its binary neighbour.
        return round(Decimal(str(value)) * 1000)
    except (InvalidOperation, ValueError, OverflowError):
        return None


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
    return value if isinstance(value, (int, str)) else str(value)


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}
