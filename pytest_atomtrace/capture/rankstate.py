"""The state of every rank's export, from the directory, the log and the open files of the workers.

ATOM's workers write ``X.pt.trace.json``, gzip it to ``X.pt.trace.json.gz`` while the json still stands, and
unlink the json; on an exception both are deleted and one log line says so (`model_runner.py`,
``_on_trace_ready``).
"""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from pytest_atomtrace.errors import TraceFileError
from pytest_atomtrace.trace.integrity import check_export
from pytest_atomtrace.trace.layout import RankFiles, find_ranks

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pytest_atomtrace.capture.clock import Clock
    from pytest_atomtrace.capture.serverlog import ServerLog

__all__ = ["ExportWatch", "RankState", "files_now", "writers_of"]

# Two looks at least this far apart must find the same size before a file is read.
_SETTLED_S = 0.1
# A file that nobody has open and that did not grow for this long will not grow again. Between closing the json
# and opening the gz there is one Python statement, but hosts swap; once a death was logged no doubt is left.
_ORPHAN_S = 30.0
_ORPHAN_AFTER_DEATH_S = 1.0
# A gz alone is closed for good: the json went before it was looked at.
_CLOSED_S = 1.0
_RANK_NUMBER = re.compile(r"Rank (\d+)")


@dataclass(frozen=True)
class RankState:
    """`state` is missing, stale, json-growing, compressing, checking, done, failed or orphaned."""

    rank: str
    state: str
    detail: str = ""
    file: Path | None = None
    size_bytes: int = 0

    @property
    def over(self) -> bool:
        """True when waiting longer changes nothing."""
        return self.state in ("done", "failed", "orphaned")

    @property
    def text(self) -> str:
        """For messages."""
        return f"{self.rank} {self.state}" + (f" ({self.detail})" if self.detail else "")


def files_now(trace_dir: Path) -> frozenset[Path]:
    """Every trace file and json below `trace_dir`: what is there before a window's end is not of that window."""
    found: set[Path] = set()
    for files in find_ranks(trace_dir).values():
        found.update(files.traces, files.json_left)
    return frozenset(found)


def writers_of(pids: Sequence[int]) -> frozenset[Path]:
    """Files that the processes `pids` have open."""
    found: set[Path] = set()
    for pid in pids:
        directory = Path("/proc") / str(pid) / "fd"
        with contextlib.suppress(OSError):
            for link in directory.iterdir():
                with contextlib.suppress(OSError):  # closed meanwhile
                    found.add(Path(os.readlink(link)))  # noqa: PTH115  # Path.readlink keeps no "(deleted)" apart
    return frozenset(found)


@dataclass
class ExportWatch:
    """Looks again and again; `observe` gives the states, `changed_s` when anything last moved."""

    trace_dir: Path
    ranks: tuple[str, ...]
    stale: frozenset[Path]
    log: ServerLog
    since: int
    clock: Clock
    writers: Callable[[], frozenset[Path]]
    death_seen: Callable[[], bool]
    changed_s: float = field(init=False)
    _sizes: dict[Path, tuple[int, float]] = field(default_factory=dict)
    _verdicts: dict[tuple[Path, int], str] = field(default_factory=dict)
    _last: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Growth is counted from the beginning of the wait."""
        self.changed_s = self.clock.monotonic_s()

    def observe(self) -> dict[str, RankState]:
        """The state of every expected rank, in order."""
        self.log.poll()
        found = find_ranks(self.trace_dir)
        failed = self._failed_ranks()
        states = {rank: self._state(rank, found.get(rank), failed) for rank in self.ranks}
        now = {rank: state.state for rank, state in states.items()}
        if now != self._last:
            self._last, self.changed_s = now, self.clock.monotonic_s()
        return states

    def surplus(self) -> list[RankState]:
        """Ranks that the case does not have and that hold traces all the same."""
        states = []
        for rank, files in find_ranks(self.trace_dir).items():
            if rank in self.ranks or not files.traces:
                continue
            old = set(files.traces) <= self.stale
            detail = "it was there before the window ended" if old else "written by this window"
            states.append(RankState(rank, "stale" if old else "surplus", detail, files.trace))
        return states

    def to_check(self, states: Mapping[str, RankState]) -> list[RankState]:
        """Ranks whose file is complete by all signs and was not read yet at this size."""
        return [
            state
            for state in states.values()
            if state.state == "checking" and state.file and (state.file, state.size_bytes) not in self._verdicts
        ]

    def check(self, state: RankState) -> None:
        """Read the file to its end; slow, so not part of `observe`."""
        if state.file is None:
            return
        problem = ""
        try:
            check_export(state.file, rank=state.rank)
        except TraceFileError as error:
            problem = error.problem
        self._verdicts[state.file, state.size_bytes] = problem

    def _state(self, rank: str, files: RankFiles | None, failed: Mapping[str, str]) -> RankState:
        every = (*files.traces, *files.json_left) if files else ()
        new = {path for path in every if path not in self.stale}
        packed = sorted(path for path in new if path.name.endswith(".gz"))
        plain = sorted(path for path in new if not path.name.endswith(".gz"))
        if not new:
            if rank in failed:
                return RankState(rank, "failed", failed[rank])
            return RankState(rank, "stale", "only files of an earlier window") if every else RankState(rank, "missing")
        if len(packed) > 1:
            return RankState(rank, "failed", f"{len(packed)} traces where one window leaves one", packed[-1])
        quiet_s = min(self._quiet_s(path) for path in new)
        size = sum(self._sizes[path][0] for path in new)
        file = packed[0] if packed else plain[0]
        if plain:
            orphan_s = _ORPHAN_AFTER_DEATH_S if self.death_seen() else _ORPHAN_S
            if quiet_s >= orphan_s and not (new & self.writers()):
                detail = f"{plain[0].name} of {self._sizes[plain[0]][0]:,} bytes, and no live process writes it"
                return RankState(rank, "orphaned", detail, file, size)
            return RankState(rank, "compressing" if packed else "json-growing", f"{size:,} bytes", file, size)
        return self._packed(rank, file, size, quiet_s)

    def _packed(self, rank: str, file: Path, size: int, quiet_s: float) -> RankState:
        if quiet_s < _SETTLED_S:
            return RankState(rank, "compressing", f"{size:,} bytes", file, size)
        problem = self._verdicts.get((file, size))
        if problem is None:
            return RankState(rank, "checking", "", file, size)
        if not problem:
            return RankState(rank, "done", "", file, size)
        # An exporter that writes .gz without a json beside it looks truncated until it closes the file.
        closed = quiet_s >= _CLOSED_S and file not in self.writers()
        return RankState(rank, "failed" if closed else "compressing", problem, file, size)

    def _quiet_s(self, path: Path) -> float:
        now_s = self.clock.monotonic_s()
        try:
            size = path.stat().st_size
        except OSError:  # unlinked since the listing
            size = -1
        known = self._sizes.get(path)
        if known is None or known[0] != size:
            self._sizes[path] = (size, now_s)
            self.changed_s = now_s
            return 0.0
        return now_s - known[1]

    def _rank_in(self, logged: str) -> str | None:
        """The rank that a path of the log is of, by the path's end.

        Where it begins is the server's affair: it may know its directory by a relative name, through a link, or as a
        container's path of what is mounted elsewhere here.
        """
        parts = PurePath(logged.rstrip(":,.")).parent.parts
        return next((rank for rank in map("/".join, (parts[-2:], parts[-1:])) if rank in self.ranks), None)

    def _failed_ranks(self) -> dict[str, str]:
        failed: dict[str, str] = {}
        for event in self.log.events("export_failed", since=self.since):
            rank = self._rank_in(event.path)
            if rank is not None:
                failed[rank] = "the log says: failed to export trace"
        for event in self.log.events("stop_failed", since=self.since):
            match = _RANK_NUMBER.search(event.line)
            # In data parallel servers every engine counts from 0, so the number names no rank there.
            if match and f"rank_{match[1]}" in self.ranks:
                failed[f"rank_{match[1]}"] = "the log says: profiler stop failed"
        return failed
