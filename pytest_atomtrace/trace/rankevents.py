"""Tables of one rank's events, as one pass over its file leaves them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["EventTable", "RankEvents", "merge_shares", "number_by_use"]

_I32: TypeAlias = "NDArray[np.int32]"
_I64: TypeAlias = "NDArray[np.int64]"
_PART = 1 << 16
_COLUMN_NAMES = ("name_id", "start_ns", "dur_ns", "where", "link", "extra")


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
    extra: NDArray[np.int8] | _I32

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
    cuts: list[int] = field(default_factory=list)


def number_by_use(events: RankEvents, *, detail: bool) -> RankEvents:
    """Number names and threads anew, by their first use in GPU activities, calls, ops and annotations.

    Readers number them as they meet them, which depends on where a text was cut and on who read it. `detail` says
    that `calls.extra` numbers names as well.
    """
    hosts = (events.calls, events.ops, events.notes, events.gpu_notes)
    columns = [table.name_id for table in (events.gpu, *hosts)]
    if detail:
        columns.append(events.calls.extra)  # type: ignore[arg-type]
    order = _first_uses(columns, len(events.names))
    place = _places(order, len(events.names))
    events.names = tuple(events.names[number] for number in order.tolist())
    for table in (events.gpu, *hosts):
        table.name_id = place[table.name_id]
    if detail:
        events.calls.extra = place[events.calls.extra]
    order = _first_uses([table.where for table in hosts], len(events.threads))
    place = _places(order, len(events.threads))
    events.threads = tuple(events.threads[number] for number in order.tolist())
    for table in hosts:
        table.where = place[table.where]
    return events


def _first_uses(columns: Sequence[_I32], count: int) -> _I32:
    """The numbers below `count` that occur, in the order in which they first do."""
    found: list[NDArray[np.int32]] = [np.empty(0, np.int32)]
    new = np.ones(count, np.bool_)
    for column in columns:
        for low in range(0, len(column), _PART):
            part = column[low : low + _PART]
            if not new.any():
                break
            fresh = part[new[part]]
            if len(fresh):
                numbers, first = np.unique(fresh, return_index=True)
                found.append(numbers[np.argsort(first)])
                new[numbers] = False
    return np.concatenate(found)


def _places(order: _I32, count: int) -> _I32:
    place = np.zeros(max(count, 1), np.int32)
    place[order] = np.arange(len(order), dtype=np.int32)
    return place


def merge_shares(shares: Sequence[RankEvents]) -> RankEvents | None:
    """One rank's events from the shares of one file; None if they did not cut the file alike."""
    first = shares[0]
    if any(share.cuts != first.cuts for share in shares):
        return None
    names: dict[str, int] = {}
    threads: dict[tuple[int | str, int | str], int] = {}
    tables: dict[str, EventTable] = {}
    maps = []
    for share in shares:
        name_map = np.array([names.setdefault(name, len(names)) for name in share.names] or [0], np.int32)
        thread_map = np.array([threads.setdefault(t, len(threads)) for t in share.threads] or [0], np.int32)
        maps.append((share, name_map, thread_map))
    for group in ("gpu", "calls", "ops", "notes", "gpu_notes"):
        parts = []
        for share, name_map, thread_map in maps:
            table: EventTable = getattr(share, group)
            where = table.where if group == "gpu" else thread_map[table.where]
            parts.append(replace(table, name_id=name_map[table.name_id], where=where))
        tables[group] = _joined(parts)
    merged = RankEvents(
        names=tuple(names),
        threads=tuple(threads),
        gpu=tables["gpu"],
        calls=tables["calls"],
        ops=tables["ops"],
        notes=tables["notes"],
        gpu_notes=tables["gpu_notes"],
        meta=first.meta,
        event_count=sum(share.event_count for share in shares),
        odd_times=sum(share.odd_times for share in shares),
        text_bytes=first.text_bytes,
    )
    return number_by_use(merged, detail=False)


def _joined(tables: Sequence[EventTable]) -> EventTable:
    columns = {name: np.concatenate([getattr(table, name) for table in tables]) for name in _COLUMN_NAMES}
    return EventTable(**columns)
