"""What a server's log says about kernels that are not the tuned ones: shapes without a config, builds, waits."""

from __future__ import annotations

from collections import Counter
from pathlib import PurePath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_atomtrace.capture.serverlog import LogEvent, ServerLog

    _Describe = Callable[[LogEvent], dict[str, object]]

__all__ = ["log_facts"]


def log_facts(log: ServerLog, *, window: tuple[int, int]) -> dict[str, object]:
    """The facts of everything logged so far, for a manifest.

    Lists of rows: ``untuned`` (op, m, n, k, lines), ``moe_defaults`` (stages, shape, lines), ``builds`` (module,
    begin_byte, end_byte, cost_s) and ``batons`` (path, lines). Every rank logs its own line, so rows count lines.
    ``in_window`` tells whether the row's last line lies within `window`, the bytes of the log that the profiler's
    window spans; for a build that is its end.
    """
    return {
        "untuned": _counted(log, "untuned", window, _shape),
        "moe_defaults": _counted(log, "moe_default", window, lambda e: {k: e.facts.get(k, "") for k in _MOE}),
        "builds": _builds(log, window),
        "batons": _counted(log, "baton", window, lambda event: {"path": event.path}),
    }


_MOE = ("stages", "shape")


def _shape(event: LogEvent) -> dict[str, object]:
    table = event.facts.get("table", "")
    op = PurePath(table).name.removesuffix(".csv").removesuffix("_gemm").removesuffix("_tuned") or table
    return {"op": op, **{key: int(event.facts.get(key, "0")) for key in ("m", "n", "k")}}


def _counted(log: ServerLog, kind: str, window: tuple[int, int], describe: _Describe) -> list[dict[str, object]]:
    events = log.events(kind)
    rows: dict[tuple[object, ...], dict[str, object]] = {}
    lines: Counter[tuple[object, ...]] = Counter()
    inside: set[tuple[object, ...]] = set()
    for event in events:
        row = describe(event)
        key = tuple(row.values())
        rows.setdefault(key, row)
        lines[key] += 1
        if _inside(event.offset, window):
            inside.add(key)
    return [{**row, "lines": lines[key], "in_window": key in inside} for key, row in rows.items()]


def _builds(log: ServerLog, window: tuple[int, int]) -> list[dict[str, object]]:
    """Each end belongs to the oldest open begin of its module; a build without an end still runs, or was killed."""
    open_since: dict[str, list[int]] = {}
    rows: list[dict[str, object]] = []
    events = [*log.events("build_start"), *log.events("build_finish")]
    for event in sorted(events, key=lambda event: event.offset):
        module = event.facts.get("module", "") or "?"
        if event.kind == "build_start":
            open_since.setdefault(module, []).append(event.offset)
            continue
        begun = open_since.get(module, [])
        cost = event.facts.get("cost", "")
        rows.append(
            {
                "module": module,
                "begin_byte": begun.pop(0) if begun else None,
                "end_byte": event.offset,
                "cost_s": float(cost) if cost else None,
                "in_window": _inside(event.offset, window),
            }
        )
    for module, begun in open_since.items():
        rows += [
            {"module": module, "begin_byte": at, "end_byte": None, "cost_s": None, "in_window": False} for at in begun
        ]
    return rows


def _inside(offset: int, window: tuple[int, int]) -> bool:
    return window[0] <= offset < window[1]
