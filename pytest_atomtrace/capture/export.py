"""Waiting for the traces of a window that was stopped.

The answer to /stop_profile covers rank 0 at best, and may be a time-out while the workers go on exporting: only
the files count.
"""

from __future__ import annotations

import asyncio
import shutil
from typing import TYPE_CHECKING

from pytest_atomtrace.capture.rankstate import ExportWatch, RankState, writers_of
from pytest_atomtrace.errors import ExportError, WindowError
from pytest_atomtrace.trace.layout import rank_sort_key
from pytest_atomtrace.units import format_bytes, format_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from pytest_atomtrace.capture.http import Reply
    from pytest_atomtrace.capture.progress import Progress
    from pytest_atomtrace.capture.server import Server

__all__ = ["wait_for_export"]

_POLL_S = 0.1
# How long ranks of which nothing is seen yet may take after another failed (kineto writes no file while it
# aggregates); short once the server itself is lost.
_AFTER_FAILURE_S = 60.0
_AFTER_LOSS_S = 3.0
_STOP_ANSWER_S = 10.0
# A rank of a short window may take this much as JSON; the exporter removes what it could not finish.
_LITTLE_ROOM_BYTES = 1 << 30


async def wait_for_export(
    server: Server,
    stop: asyncio.Task[Reply | None],
    *,
    stale: frozenset[Path],
    since: int,
    timeout_s: float,
    progress: Progress,
) -> dict[str, RankState]:
    """Wait until every expected rank has one new, whole trace, and no other rank has any.

    `timeout_s` is the longest time without any growth; the wait as a whole has no other limit, since a large
    export that moves is an export.

    Raises:
        ExportError: naming every rank that did not arrive, and its state.
        WindowError: the server refused to stop the window.

    """
    pids_of = _cached_pids(server)
    watch = ExportWatch(
        server.trace_dir,
        server.ranks,
        stale,
        server.log,
        since,
        server.clock,
        writers=lambda: writers_of(pids_of()),
        death_seen=lambda: server.trouble(since=since) is not None,
    )
    while True:
        states = watch.observe()
        checks = watch.to_check(states)
        for state in checks:
            await asyncio.to_thread(watch.check, state)
        if checks:
            continue
        done = sum(state.state == "done" for state in states.values())
        if done == len(states):
            break
        _refuse_bad_stop(server, stop)
        reason = _why_over(server, watch, states, since, timeout_s)
        if reason:
            raise _export_error(server, states, since, reason)
        progress.update(
            f"{done}/{len(states)} ranks (at most {format_seconds(timeout_s)} without growth), "
            + ", ".join(state.text for state in states.values() if not state.over)[:200]
        )
        await asyncio.sleep(_POLL_S)
    # Whatever others left in the directory of a server that is not ours is theirs.
    surplus = [state for state in watch.surplus() if not (server.attached and state.state == "stale")]
    if surplus:
        raise ExportError(
            f"the server left traces of ranks that the case does not have: {', '.join(s.text for s in surplus)}",
            f"The case has {', '.join(server.ranks)}. Look for parallelism flags in its server_args.",
        )
    # Let the answer come: a reply that is still on its way may be taken for the next command's.
    await asyncio.wait({stop}, timeout=_STOP_ANSWER_S)
    return states


def _cached_pids(server: Server) -> Callable[[], list[int]]:
    cache: list[tuple[float, list[int]]] = []

    def pids() -> list[int]:
        now_s = server.clock.monotonic_s()
        if not cache or now_s - cache[0][0] > 0.5:
            cache[:] = [(now_s, server.pids())]
        return cache[0][1]

    return pids


def _refuse_bad_stop(server: Server, stop: asyncio.Task[Reply | None]) -> None:
    if not stop.done() or stop.cancelled():
        return
    reply = stop.result()
    # 500 is the server's own time-out: the workers go on exporting. 4xx says that nothing was asked of them.
    if reply is not None and 400 <= reply.status < 500:
        raise WindowError(f"the window did not close: {reply.reason}", "", server.log.tail())


def _why_over(server: Server, watch: ExportWatch, states: Mapping[str, RankState], since: int, timeout_s: float) -> str:
    quiet_s = server.clock.monotonic_s() - watch.changed_s
    if all(state.over for state in states.values()):
        return "the export failed"
    if quiet_s > timeout_s:
        return f"nothing grew for {format_seconds(timeout_s)}"
    trouble = server.trouble(since=since)
    if trouble is not None and quiet_s > _AFTER_LOSS_S:
        return trouble.problem
    if quiet_s > min(timeout_s, _AFTER_FAILURE_S) and any(
        state.over and state.state != "done" for state in states.values()
    ):
        return "the export failed"
    return ""


def _little_room(place: Path) -> str:
    """A sentence about a disk that is as good as full, "" for any other."""
    try:
        free = shutil.disk_usage(place).free
    except OSError:
        return ""
    return f" The disk of {place} has {format_bytes(free)} left." if free < _LITTLE_ROOM_BYTES else ""


def _export_error(server: Server, states: Mapping[str, RankState], since: int, reason: str) -> ExportError:
    bad = sorted((s for s in states.values() if s.state != "done"), key=lambda s: rank_sort_key(s.rank))
    listed = ", ".join(state.text for state in bad)
    said = [e.line.strip() for kind in ("export_failed", "stop_failed") for e in server.log.events(kind, since=since)]
    hints = {
        "failed": (
            "The log has the exporter's exception: a full disk or a moved rank directory, most often."
            if said
            else "The files arrived and are no traces of one window."
        ),
        "orphaned": "A worker ended in its export, most often by the host's out-of-memory killer (dmesg).",
        "missing": "Nothing was written at all: the log tells whether the profiler was stopped.",
    }
    hint = next(
        (hints[state.state] for state in bad if state.state in hints),
        "Raise --atom-export-timeout if files still grow.",
    )
    hint = f"{hint}{_little_room(server.trace_dir)}"
    evidence = [*(server.redactor.text(line)[:300] for line in said[:4]), *server.log.tail()]
    return ExportError(f"{len(bad)} of {len(states)} ranks did not export, {reason}: {listed}", hint, evidence)
